"""Generated raw downloads of CheXpert, in its official layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from radprobe.catalog import RawEntry
from radprobe.files import RadprobeError
from radprobe.phantoms import anatomy

OBSERVATIONS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
DRAWN = {
    **{name: name for name in ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pneumonia", "Pneumothorax")},
    **{"Pleural Effusion": "Effusion", "Lung Lesion": "Mass"},
}  # observation -> finding of anatomy
STUDIED = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
OPACITIES = {"Edema", "Consolidation", "Atelectasis", "Pneumonia", "Lung Lesion"}
FIRST_NUMBER = {"train": 1, "valid": 64541, "test": 64741}  # of patients, as in the official release
SHARE = 0.2  # of the patients in valid, and in test


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated CheXpert-v1.0-small: train, valid and test, small JPEGs, 1 to 3 studies a patient.

    Train has -1 and blank labels, valid and test only 1 and 0; test's labels are a groundtruth.csv, a row a study.
    Findings are drawn where the label is 1, and in some films where it is -1.
    """
    root = folder / "CheXpert-v1.0-small"
    n = round(SHARE * patients) or 1
    sizes = {"train": patients - 2 * n, "valid": n, "test": n}
    if sizes["train"] < 1:
        raise RadprobeError("datasets.chexpert.phantom.patients", f"is {patients}", "3 is the least: train, val, test")
    for part, size in sizes.items():
        rows = []
        for count in range(size):
            number = FIRST_NUMBER[part] + count
            rows += _phantom_patient(root, part, number, np.random.default_rng([seed, number]), count)
        _phantom_table(root, part, rows)
    (root / "train" / "._patient00001").write_bytes(bytes(16))  # as macOS leaves in archives
    anatomy.mark(root, patients, seed)


def _phantom_patient(root: Path, part: str, number: int, rng: np.random.Generator, count: int) -> list[dict[str, Any]]:
    person = anatomy.person(rng)
    main = (*STUDIED, None)[count % 6]
    rows = []
    for study in range(1, 1 + int(rng.integers(2, 4))):
        # the first study is before the findings came, so that small parts have both
        present = {name for name in DRAWN if study > 1 and (name == main or rng.random() < 0.1)}
        labels = _phantom_labels(present, part, rng)
        place = f"{part}/patient{number:05d}/study{study}"
        views = ["frontal", "lateral"][: 1 + (rng.random() < 0.3)]
        for view, name in enumerate(views, 1):
            path = f"{place}/view{view}_{name}.jpg"
            _phantom_film(root / path, person, present, name, rng)
            projection = ("AP" if rng.random() < 0.8 else "PA") if name == "frontal" else ""
            cells = {"Sex": {"F": "Female", "M": "Male"}[person.sex], "Age": str(person.age)}
            cells |= {"Path": f"{root.name}/{path}", "Frontal/Lateral": name.capitalize(), "AP/PA": projection}
            rows.append({**cells, "Study": f"CheXpert-v1.0/{place}", **labels})
    return rows


def _phantom_labels(present: set[str], part: str, rng: np.random.Generator) -> dict[str, str]:
    """Return the text of all 14 cells; `present` loses and gains findings where the label is uncertain."""
    labels = {name: float(name in present) for name in OBSERVATIONS}
    labels["Lung Opacity"] = float(bool(present & OPACITIES))
    labels["Enlarged Cardiomediastinum"] = labels["Cardiomegaly"]
    labels["No Finding"] = float(not present)
    labels["Support Devices"] = float(rng.random() < 0.3)
    if part != "train":
        return {name: f"{value:.1f}" if part == "valid" else f"{value:.0f}" for name, value in labels.items()}
    cells = {}
    for name, value in labels.items():
        draw = rng.random()
        uncertain = name in DRAWN and draw < 0.1
        if uncertain and draw < 0.05:
            present ^= {name}
        cells[name] = "-1.0" if uncertain else "1.0" if value else "0.0" if draw > 0.8 else ""
    return cells


def _phantom_film(path: Path, person: anatomy.Person, present: set[str], view: str, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (int(rng.integers(160, 200)), 200)  # the official small ones are 320 by 390 pixels
    film, _ = anatomy.film(person, sorted(DRAWN[name] for name in present), shape, rng)
    film = film if view == "frontal" else film[:, ::-1] // 2 + 60
    Image.fromarray(film).save(path, quality=90)


def _phantom_table(root: Path, part: str, rows: list[dict[str, Any]]) -> None:
    table = pd.DataFrame(rows)
    if part == "test":
        table[["Study", *OBSERVATIONS]].drop_duplicates().to_csv(root / "groundtruth.csv", index=False)
    else:
        columns = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS]
        table[columns].to_csv(root / f"{part}.csv", index=False)
