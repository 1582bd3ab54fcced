"""MNI152: the average brain that ships in nilearn, as axial slices. One template, no labels: only to look at."""

from pathlib import Path

from radprobe.artifacts import Index
from radprobe.catalog import RawEntry
from radprobe.datasets import Layout, raw
from radprobe.files import RadprobeError

EVERY = 10  # slices are this far apart
BRAIN = (
    0.05  # share of a slice's voxels that must be above a tenth of the maximum: slices with little brain are left out
)


def locate(entry: RawEntry, raw_folder: Path) -> Layout | None:
    """Find the volume at its place in the package's folder, or directly in the folder."""
    file = Path(entry.shipped.file)
    for variant, path in (("package", raw_folder / file), ("flat", raw_folder / file.name)):
        if path.is_file():
            return Layout(root=raw_folder, variant=variant, files=(path,))
    return None


def samples(layout: Layout, entry: RawEntry, allow_missing: bool) -> Index:
    """Return one row per axial slice, every 10 slices through the brain; all are of one subject and volume."""
    from radprobe.imaging.reading import read_volume  # the graph is built where no reader is installed
    from radprobe.imaging.volumes import Slicing

    (path,) = layout.files
    volume = read_volume(path)
    cut = Slicing.of(volume.affine, entry.slices).cut(volume.values)
    brain = (cut > cut.max() / 10).mean(axis=(1, 2))
    rows = [
        {
            "sample_id": f"mni152_{z:03d}",
            "patient_id": "mni152",
            "volume_id": "mni152",
            "slice": z,
            "image": path.relative_to(layout.root).as_posix(),
            "spacing": list(volume.spacing),
            "affine": volume.affine.reshape(-1).tolist(),
        }
        for z in range(0, len(cut), EVERY)
        if brain[z] > BRAIN
    ]
    if not rows:
        raise RadprobeError(path, "no slice shows a brain", "install the package again: the volume is damaged")
    facts = {"partial": False, "n_listed": len(rows), "n_absent": 0, "phantom": False}
    return raw.index(entry, rows, facts)
