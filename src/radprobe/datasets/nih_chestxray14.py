"""NIH ChestX-ray14: 112,120 films of 30,805 patients with 14 findings mined from reports (Wang et al., CVPR 2017)."""

from pathlib import Path

import pandas as pd

from radprobe.artifacts import LABEL, META, Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")  # the releases of the label table, newest first
LISTS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
COLUMNS = ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position")
NO_FINDING = "No Finding"


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find the table, the two lists and at least one image, in the folder itself or one folder below.

    Variants: `official` (images_NNN/images, also Kaggle's), `merged` (all archives unpacked into images/), `flat`
    (images beside the tables).
    """
    for root in raw.places(raw_folder, depth=1):
        tables = [root / name for name in TABLES if (root / name).is_file()][:1]
        lists = [root / name for name in LISTS.values() if (root / name).is_file()]
        if tables and len(lists) == len(LISTS):
            variant, folders = _image_folders(root)
            return Layout(root, variant, tables=(*tables, *lists), folders=folders) if folders else None
    return None


def _image_folders(root: Path) -> tuple[str, tuple[Path, ...]]:
    archives = [path for path in sorted(root.glob("images_*")) if path.is_dir()]
    known = {
        "official": [folder / "images" if (folder / "images").is_dir() else folder for folder in archives],
        "merged": [root / "images" / "images", root / "images"],
        "flat": [root],
    }
    for variant, folders in known.items():
        if found := tuple(folder for folder in folders if folder.is_dir() and raw.has_image(folder)):
            return variant, found
    return "", ()


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per image that the official lists name and that is here.

    Labels are 1 or 0. meta: view, age, sex, list (train_val or test) and list_row, the line in that list.
    Raises RadprobeError on missing columns, unknown label text, images of the lists that the table lacks or that are
    in both lists, and (unless `allow_missing`) listed images that are absent.
    """
    table = _read_table(layout.tables[0], entry.classes)
    listed = _read_lists(layout)
    if (unknown := listed.index.difference(table.index)).size:
        raise RadprobeError(
            layout.tables[0], f"has no row of {unknown[0]} ({unknown.size} such)", "download the table again"
        )
    found = _find_images(layout)
    present = listed[listed.index.isin(found.keys())]
    if (n_absent := len(listed) - len(present)) and not allow_missing:
        first = listed.index.difference(present.index)[0]
        raise RadprobeError(
            layout.root,
            f"{n_absent:,} of the {len(listed):,} listed images are absent, {first} for one",
            "complete the copy, or accept a partial one: datasets.nih_chestxray14.allow_missing: true",
        )
    rows = table.loc[present.index].join(present)
    rows["image"] = [found[name] for name in rows.index]
    facts = {
        "partial": n_absent > 0,
        "n_listed": len(listed),
        "n_absent": n_absent,
        "n_unlisted": len(found.keys() - set(listed.index)),
        "n_train_val": int((listed[f"{META}list"] == "train_val").sum()),
        "phantom": raw.is_phantom(layout),
        "label_table": layout.tables[0].name,
    }
    return raw.index(entry, rows.to_dict("records"), facts)


def _read_table(path: Path, classes: list[str]) -> pd.DataFrame:
    table = raw.read_table(path)
    table = table.rename(columns={"Patient Sex": "Patient Gender"})  # the name in some releases
    if absent := [name for name in COLUMNS if name not in table]:
        raise RadprobeError(path, f"lacks the columns {', '.join(absent)}", "put the publisher's label table there")
    if (twice := table["Image Index"][table["Image Index"].duplicated()]).size:
        raise RadprobeError(path, f"has {twice.iloc[0]} twice", "download the table again")
    findings = table["Finding Labels"].str.split("|")
    if unknown := sorted(set(findings.explode()) - {*classes, NO_FINDING}):
        image = table["Image Index"][[unknown[0] in names for names in findings]].iloc[0]
        raise RadprobeError(
            path, f"unknown finding '{unknown[0]}' of {image}", f"known are {', '.join(classes)}; download it again"
        )
    rows = {
        "sample_id": table["Image Index"].str.removesuffix(".png"),
        "patient_id": table["Patient ID"].str.zfill(8),  # as it stands in the file names
        **{LABEL + name: [float(name in names) for names in findings] for name in classes},
        f"{META}view": table["View Position"],
        f"{META}age": pd.to_numeric(table["Patient Age"].str.extract(r"(\d+)")[0]),  # one release writes 058Y
        f"{META}sex": table["Patient Gender"],
    }
    return pd.DataFrame(rows).set_index(table["Image Index"])


def _read_lists(layout: Layout) -> pd.DataFrame:
    parts = []
    for part, path in zip(LISTS, layout.tables[1:], strict=True):
        names = path.read_text(encoding="utf-8").split()  # the official lists end without a newline
        parts.append(pd.DataFrame({f"{META}list": part, f"{META}list_row": range(len(names))}, index=names))
    listed = pd.concat(parts)
    if (twice := listed.index[listed.index.duplicated()]).size:
        raise RadprobeError(
            layout.root, f"the lists name {twice[0]} twice ({twice.size} such)", "download both lists again"
        )
    return listed


def _find_images(layout: Layout) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in layout.folders:
        for path in raw.images(folder):
            relative = path.relative_to(layout.root).as_posix()
            if (other := found.setdefault(path.name, relative)) != relative:
                raise RadprobeError(path, f"is there twice: also {other}", "remove one of the two")
    return found
