"""CheXpert: 224,316 chest films of 65,240 patients, 14 observations mined from reports (Irvin et al., AAAI 2019).

Frontal films only, as in the study. 1 is positive, 0 negative, -1 uncertain, blank not mentioned; the labels of valid
and test are by radiologists: 1 or 0.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from radprobe.artifacts import LABEL, META, Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError

# part -> names of its label table. groundtruth.csv, of github.com/rajpurkarlab/cheXpert-test-set-labels, has a row a
# study; test_labels.csv, of CheXlocalize, a row an image
TABLES = {"train": ["train.csv"], "val": ["valid.csv"], "test": ["groundtruth.csv", "test_labels.csv", "test.csv"]}
FOLDERS = {"train": ["train"], "val": ["valid", "val"], "test": ["test"]}
TABLES_BATCH, TRAIN_BATCHES = "CheXpert-v1.0 batch 1 (validate & csv)", "CheXpert-v1.0 batch * (train *)"
PATH = r"(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<view>view\d+_(?:frontal|lateral))\.(?:jpg|jpeg|png)$"
STUDY = r"(?P<patient>patient\d+)/(?P<study>study\d+)/?$"
VALUES = {"": np.nan, **{f"{value}{zero}": float(value) for value in (1, 0, -1) for zero in ("", ".0")}}
SEXES = {"Female": "F", "Male": "M"}  # one film has Unknown
AGAIN = "put the publisher's label table there"


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find train.csv, valid.csv and their images in the folder itself or up to two folders below.

    Variants: `official` (train/ and valid/, small or full), `batches` (the full release's archives as they unpack).
    The test images and their labels, which are got separately, lie beside them or are not there.
    """
    for root in raw.places(raw_folder, depth=2):
        homes = [root, _unwrapped(root / TABLES_BATCH)]
        tables = {part: _first(homes, names, Path.is_file) for part, names in TABLES.items()}
        folders = {part: _first(homes, names, Path.is_dir) for part, names in FOLDERS.items()}
        variant = "official"
        if not folders["train"]:
            variant, folders["train"] = "batches", [_unwrapped(path) for path in sorted(root.glob(TRAIN_BATCHES))]
        parts = [part for part in TABLES if tables[part] and folders[part]]
        if {"train", "val"} <= set(parts):
            found = [path for part in parts for path in folders[part]]
            return Layout(root, variant, tuple(tables[part][0] for part in parts), tuple(found))
    return None


def _first(homes: list[Path], names: list[str], kind: Callable[[Path], bool]) -> list[Path]:
    return [home / name for home in homes for name in names if kind(home / name)][:1]


def _unwrapped(folder: Path) -> Path:
    """Return the folder of the same name, or `train`, that an archive has put into its own folder, if it has."""
    return next((inner for inner in (folder / folder.name, folder / "train") if inner.is_dir()), folder)


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per frontal film that is here; lateral ones are counted.

    meta: list (train, val, test: the folder), study, view (AP, PA), sex, age. Raises RadprobeError on missing columns,
    unknown labels and paths, a film listed twice, a patient in two tables, and (unless `allow_missing`) absent films.
    """
    tables = {_part(path.name, TABLES): path for path in layout.tables}
    people = _patient_folders(layout)
    listed = pd.concat([_read(path, part, entry.classes, people) for part, path in tables.items()], ignore_index=True)
    _refuse_shared_patients(listed, tables)
    lateral = listed["view"].str.endswith("lateral")
    frontal = listed[~lateral].reset_index(drop=True)
    paths = [_image(people, row) for row in frontal[["part", "patient", "study", "view"]].itertuples(index=False)]
    here = np.array([path is not None for path in paths], bool)
    if not here.all() and not allow_missing:
        first = frontal[~here].iloc[0]
        reason = (
            f"{(~here).sum():,} of the {len(frontal):,} frontal films of the tables are absent, "
            f"{first['patient']}/{first['study']}/{first['view']} for one"
        )
        remedy = "complete the copy, or accept a partial one: datasets.chexpert.allow_missing: true"
        raise RadprobeError(layout.root, reason, remedy)
    phantom = raw.is_phantom(layout)
    facts = {
        # without the test films the copy is incomplete, though its tables list none
        "partial": not here.all() or ("test" not in tables and not phantom),
        "n_listed": len(frontal),
        "n_absent": int((~here).sum()),
        "n_lateral": int(lateral.sum()),
        "phantom": phantom,
        "label_table": ", ".join(path.name for path in tables.values()),
    }
    return raw.index(entry, _rows(frontal[here], [path for path in paths if path], layout, entry), facts)


def _part(name: str, names: dict[str, list[str]]) -> str:
    return next((part for part, known in names.items() if name in known), "train")  # else a batch of train


def _patient_folders(layout: Layout) -> dict[tuple[str, str], str]:
    """Return the folder of each (part, patient). Listing them is much quicker than asking for each file everywhere."""
    found: dict[tuple[str, str], str] = {}
    for folder in layout.folders:
        part = _part(folder.name, FOLDERS)
        with os.scandir(folder) as entries:
            found |= {(part, entry.name): entry.path for entry in entries if entry.name.startswith("patient")}
    return found


class FilmRow(Protocol):
    """A row of the tables, as `itertuples` gives it."""

    part: str
    patient: str
    study: str
    view: str


def _image(people: dict[tuple[str, str], str], row: FilmRow) -> str | None:
    """Return the path of a film, or None. Resized copies may have another suffix than the table."""
    folder = people.get((row.part, row.patient))
    names = [f"{folder}/{row.study}/{row.view}.{suffix}" for suffix in ("jpg", "png", "jpeg")] if folder else []
    return next((name for name in names if Path(name).is_file()), None)


def _read(path: Path, part: str, classes: list[str], people: dict[tuple[str, str], str]) -> pd.DataFrame:
    table = raw.read_table(path)
    key = "Study" if "Study" in table and "Path" not in table else "Path"
    if absent := [name for name in (key, *classes) if name not in table]:
        raise RadprobeError(path, f"lacks the columns {', '.join(absent)}", AGAIN)
    where = table[key].str.replace("\\", "/").str.extract(STUDY if key == "Study" else PATH)
    if (odd := where["patient"].isna()).any():
        reason = f"has an unknown path '{table.loc[odd, key].iloc[0]}'"
        raise RadprobeError(path, reason, f"{key} must end as patientNNNNN/studyN/viewN_frontal.jpg does")
    if (twice := where.duplicated()).any():
        raise RadprobeError(path, f"has {table.loc[twice, key].iloc[0]} twice", "download the table again")
    read = where.assign(part=part)
    for name in classes:
        read[LABEL + name] = table[name].str.strip().map(VALUES)
        if (unknown := ~table[name].str.strip().isin(VALUES)).any():
            text, film = table.loc[unknown, [name, key]].iloc[0]
            raise RadprobeError(path, f"unknown label '{text}' for {name} of {film}", "known are 1, 0, -1 and blank")
    for meta, column in {"sex": "Sex", "age": "Age", "projection": "AP/PA"}.items():
        read[meta] = table.get(column, "")
    return read if key == "Path" else _each_film(read, people)


def _each_film(studies: pd.DataFrame, people: dict[tuple[str, str], str]) -> pd.DataFrame:
    """Return a row for each film of the studies that is here, or one for view1 where a study is absent."""

    def views(row: Mapping[str, str]) -> list[str]:
        folder = Path(people.get((row["part"], row["patient"]), ""), row["study"])
        found = {path.stem for path in folder.glob("view*_*") if not raw.junk(path)} if folder.is_dir() else set()
        return sorted(found) or ["view1_frontal"]

    return studies.assign(view=studies.apply(views, axis=1)).explode("view", ignore_index=True)


def _refuse_shared_patients(listed: pd.DataFrame, tables: dict[str, Path]) -> None:
    """Raise RadprobeError where two tables have one patient: numbers are unique across the official ones."""
    pairs = listed[["patient", "part"]].drop_duplicates()
    if (shared := pairs[pairs["patient"].duplicated(keep=False)]).size:
        patient = shared["patient"].iloc[0]
        names = " and ".join(tables[part].name for part in shared.loc[shared["patient"] == patient, "part"])
        raise RadprobeError(tables["train"], f"{patient} is in {names}", "download the tables again")


def _rows(films: pd.DataFrame, paths: list[str], layout: Layout, entry: RawEntry) -> list[dict[str, Any]]:
    names = films["patient"] + "_" + films["study"] + "_" + films["view"]
    rows = films[[LABEL + name for name in entry.classes]].assign(
        sample_id=names,
        patient_id=films["patient"],
        image=[os.path.relpath(path, layout.root) for path in paths],
    )
    rows[f"{META}list"], rows[f"{META}study"] = films["part"], films["patient"] + "_" + films["study"]
    rows[f"{META}view"] = films["projection"].where(films["projection"] != "")
    rows[f"{META}age"] = pd.to_numeric(films["age"], errors="coerce")  # test has none
    rows[f"{META}sex"] = films["sex"].map(SEXES)
    records: list[dict[str, Any]] = rows.to_dict("records")
    return records
