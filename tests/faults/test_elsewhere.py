"""The same study in other surroundings: every byte that frozen backbones and the heads on them make stays the same."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shuffled_listing
import yaml
from faults.small import content
from PIL import Image

from radprobe.study import Study

pytestmark = pytest.mark.slow
CLASSES = ["Ödem", "ıslak İz"]  # Turkish has other capitals of i and ı
VIEWS = "PA", "AP", "LL", "schräg"
MAKE_ALL = """
import json, locale, os, sys, time
from radprobe import cli

threads = 0
for line in sys.stdin.read().splitlines():
    cli.app(line.split(), standalone_mode=False)
    if torch := sys.modules.get("torch"):
        threads = max(threads, torch.get_num_threads())

found = {"encoding": locale.getencoding(), "zone": time.strftime("%Z"), "folder": os.getcwd()}
found |= {"cores": len(os.sched_getaffinity(0)), "threads": threads, "hash": hash("a")}
found["shuffled"] = "sitecustomize" in sys.modules and os.listdir.__module__ == "sitecustomize"
print(json.dumps(found))
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # else Python would take UTF-8 all the same
TURKISH = "tr_TR", "ISO-8859-9"
ELSEWHERE = {  # what is changed, and by what it is known to have been
    "two threads on one core": ({"one_core": True, "threads": 2}, {"cores": 1, "threads": 2}),
    "four threads, a shuffled listing": ({"threads": 4, "shuffled": True}, {"threads": 4, "shuffled": True}),
    "ASCII, another time zone and folder": (
        {"cwd": "/", "TZ": "Etc/GMT-14", **ASCII},
        {"folder": "/", "zone": "+14", "encoding": "ANSI_X3.4-1968"},
    ),
    "Turkish, another time zone": ({"locale": TURKISH, "TZ": "Etc/GMT+9"}, {"zone": "-09", "encoding": TURKISH[1]}),
}


def write(root: Path, threads: int) -> Study:
    """Write films in a raw folder, and a study of them and of controls that see no network."""
    rng, rows = np.random.default_rng(0), []
    (root / "mine").mkdir(parents=True)
    for k in range(48):
        patient = k // 2
        film = rng.normal(128, 30, (40, 50)) + 40 * np.sin(np.arange(50) / 2) * (patient % 2)
        Image.fromarray(film.clip(0, 255).astype(np.uint8)).save(root / f"mine/{k}.png")
        labels = dict(zip(CLASSES, (patient % 2, patient // 2 % 2), strict=True))
        rows.append(
            {"path": f"{k}.png", "patient": f"Ä {patient}", "view": ("PA", "AP", "LL", "schräg")[k % 4], **labels}
        )
    pd.DataFrame(rows).to_csv(root / "mine/labels.csv", index=False, encoding="utf-8")
    params = {
        "study": "ünterwegs",
        "threads": threads,
        "device": "cpu",
        "hub": False,
        "datasets": {
            "mine": {
                "raw": "mine",
                "folder": {"task": "multilabel", "classes": CLASSES, "metadata": ["view"], "stored": 64, "size": 64},
            }
        },
        "backbones": ["test_vit"],
        "controls": {"random_inits": 0, "ceiling": False},
        "embed": {"shard_rows": 20},
        "probe": {"linear": {"epochs": 5}, "few_shot": {"draws": 2}},
        "score": {"resamples": 200},
        "paths": {"root": str(root)},
    }
    (root / "study.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    return Study(root / "study.yaml")


def make(root: Path, threads=1, one_core=False, shuffled=False, cwd=None, **environment):
    """Make a study and its page in one process; return what each step made, by command, and the surroundings."""
    study = write(root, threads)
    environment = {**os.environ, "RADPROBE_PARAMS": str(root / "study.yaml"), "TZ": "UTC", **environment}
    if shuffled:
        shutil.copy(shuffled_listing.__file__, root / "sitecustomize.py")
        environment["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    call = [sys.executable, "-c", MAKE_ALL]
    if one_core:
        call = [shutil.which("taskset"), "--cpu-list", str(min(os.sched_getaffinity(0))), *call]
    commands = [step.command.removeprefix("radprobe ") for step in study.steps.values()]
    pipes = {"input": "\n".join([*commands, "report"]), "capture_output": True, "text": True, "encoding": "utf-8"}
    done = subprocess.run(call, cwd=cwd or root, env=environment, errors="replace", **pipes)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (root / "reports/explorer.html").is_file()
    return {step.command: content(step) for step in study.steps.values()}, json.loads(done.stdout.splitlines()[-1])


def compiled(folder: Path, name: str, letters: str) -> dict[str, str]:
    """Return the environment of a locale that is made for the test; skip where that cannot be done."""
    if not shutil.which("localedef") or not Path("/usr/share/i18n/locales", name).is_file():
        pytest.skip(f"no localedef, or no source of {name}: apt install locales")
    subprocess.run(["localedef", "-i", name, "-f", letters, str(folder / name)], check=True, capture_output=True)
    return {"LOCPATH": str(folder), "LC_ALL": name}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return make(tmp_path_factory.mktemp("here") / "study")


@pytest.mark.survives(
    "bug",
    "another number of cores or threads, order of listing, hash seed, locale, time zone or working folder",
    "the same bytes from raw files to scores",
)
@pytest.mark.parametrize("name", ELSEWHERE)
def test_frozen_scores_are_the_same_bytes_elsewhere(here, tmp_path, name):
    changes, known = ELSEWHERE[name]
    made, around = here
    if "one_core" in changes and (around["cores"] == 1 or not shutil.which("taskset")):
        pytest.skip("this machine has one core, or no taskset to leave one of several")
    assert known.items().isdisjoint(around.items()), "nothing would be changed"
    if "locale" in changes:
        changes = changes | compiled(tmp_path, *changes["locale"])
        del changes["locale"]
    again, elsewhere = make(tmp_path / "study", **changes, PYTHONHASHSEED="4")
    assert elsewhere.items() >= known.items()
    assert elsewhere["hash"] != around["hash"]
    assert again == made
