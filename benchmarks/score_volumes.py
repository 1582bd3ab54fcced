"""The memory and seconds of the score stage for generated abdomens in the size and number of organs of AMOS.

    python benchmarks/score_volumes.py [volumes] [side] [slices]

15 ellipsoids a volume, predicted a little beside where they are; a fifth of the volumes is val, as small as the others.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from surface_metrics import SPACING, organs

from radprobe.artifacts import LabelMaps, LeakCertificate, Predictions, Truth
from radprobe.learning.device import MAXRSS_UNIT
from radprobe.study import Study

DATASET, BACKBONE, PROTOCOL, SHIFT = "amos", "test_vit", "linear-decoder", 2
RUN = f"""
import sys
from radprobe.stages import score
from radprobe.study import Study
study = Study(sys.argv[1])
step = study.step("score", "{DATASET}", "{BACKBONE}")
score.run(step.job, step.inputs, study.runtime(step))
"""


def write(study: Study, volumes: int, shape: tuple[int, int]) -> None:
    """Write what `score` reads: the truth, the certificate of the split, the predictions."""
    step, classes = study.step("score", DATASET, BACKBONE), study.dataset(DATASET).classes
    prepared, split, segment = (step.dependency(verb) for verb in ("prepare", "split", "segment"))
    names = [f"amos_{number:04d}" for number in range(volumes)]
    parts = ["val" if number % 5 == 0 else "test" for number in range(volumes)]

    def cases(shift: int, labelled: bool):
        for number, (name, part) in enumerate(zip(names, parts, strict=True)):
            labels = organs(*shape, len(classes), shift * (1 + number % 3))
            yield name, name, part if labelled else "", labels, SPACING

    Truth.write(prepared.place, cases(0, False), classes)
    LeakCertificate({}, []).save(split.place)
    LabelMaps.write(segment.folder, PROTOCOL, cases(SHIFT, True))
    took = {"seconds": 0.0, "peak_gb": 0.0}
    facts = {"protocols": {PROTOCOL: took}, "embedding": took}
    maps = {PROTOCOL: LabelMaps.read(segment.folder, PROTOCOL)}
    Predictions(classes, maps=maps, facts=facts).save(segment.place)


def main(volumes: str = "20", side: str = "512", slices: str = "100") -> None:
    with tempfile.TemporaryDirectory() as folder:
        content = {"study": "s", "datasets": {DATASET: {"phantom": {"patients": 1}}}, "backbones": [BACKBONE]}
        params = Path(folder) / "params.yaml"
        params.write_text(yaml.safe_dump({**content, "paths": {"root": folder}}))
        write(Study(params), int(volumes), (int(side), int(slices)))
        begun = time.perf_counter()
        _, status, usage = os.wait4(subprocess.Popen([sys.executable, "-c", RUN, str(params)]).pid, 0)
        seconds, gigabytes = time.perf_counter() - begun, usage.ru_maxrss * MAXRSS_UNIT / 1e9
        if status:
            sys.exit("score failed")
    print(f"{volumes} volumes of {side} x {side} x {slices}: {seconds:.1f} s, {gigabytes:.2f} GB (wanted: under 4)")
    print(f"ratio score_volumes_4gb {4 / gigabytes:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
