"""Ward films: an example of a benchmark, 80 bedside films of 40 patients, with or without an effusion."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from radprobe.artifacts import LABEL, Index
from radprobe.catalog import Dataset
from radprobe.datasets import Layout, anatomy, raw
from radprobe.files import RadprobeError

TABLE, FILMS = "labels.csv", "films"


def locate(entry: Dataset, raw_folder: Path) -> Layout | None:
    """Find labels.csv beside films, in the folder itself or one below (WardFilms)."""
    for root in raw.places(raw_folder, depth=1):
        if (root / TABLE).is_file() and (root / FILMS).is_dir():
            return Layout(root, "official", tables=(root / TABLE,), folders=(root / FILMS,))
    return None


def samples(layout: Layout, entry: Dataset, allow_missing: bool) -> Index:
    """Return one row per film of the table: `file`, `patient`, `effusion` (yes or no).

    Raises RadprobeError where a reading is neither, and (unless `allow_missing`) where films are absent.
    """
    (table,), rows = layout.tables, []
    for line in raw.read_table(table).itertuples():
        if line.effusion not in ("yes", "no"):
            reason = f"line {line.Index + 2}: '{line.effusion}' is no reading"
            raise RadprobeError(table, reason, "write yes or no, as the publisher does")
        if (layout.root / FILMS / line.file).is_file():
            row = {"sample_id": Path(line.file).stem, "patient_id": line.patient, "image": f"{FILMS}/{line.file}"}
            rows.append({**row, f"{LABEL}Effusion": float(line.effusion == "yes")})
    return raw.index(entry, rows, raw.coverage(layout, entry, len(rows), allow_missing))


# --- phantom ----------------------------------------------------------------------------------------------------------


def phantom(folder: Path, entry: Dataset, patients: int, seed: int) -> None:
    """Write generated WardFilms of `patients` patients, two films each; about half of them have an effusion."""
    root, lines = folder / "WardFilms", []
    (root / FILMS).mkdir(parents=True)
    for number in range(patients):
        rng = np.random.default_rng([seed, number])
        patient, ill = anatomy.person(rng), rng.random() < 0.5
        for view in range(2):
            shape = tuple(int(side) for side in rng.integers(280, 330, 2))
            pixels, _ = anatomy.film(patient, ["Effusion"] if ill else [], shape, rng)
            name = f"p{number:03d}_{view}.png"
            Image.fromarray(pixels).save(root / FILMS / name, compress_level=1)
            lines.append({"file": name, "patient": f"p{number:03d}", "effusion": "yes" if ill else "no"})
    pd.DataFrame(lines).to_csv(root / TABLE, index=False)
    anatomy.mark(root, patients, seed)
