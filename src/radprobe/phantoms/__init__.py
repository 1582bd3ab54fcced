"""Generated raw downloads: the official layout and file formats of each benchmark, with labels that can be learnt.

A module `radprobe.phantoms.<loader>` has `generate(folder, entry, patients, seed)`; `anatomy`, `organs` and `scans`
draw.
"""

import importlib
from pathlib import Path

from radprobe.catalog import RawEntry


def generate(folder: Path, entry: RawEntry, patients: int, seed: int) -> None:
    """Write a generated raw download of a benchmark to `folder`, with the marker file PHANTOM.json.

    Raises RadprobeError if the benchmark's layout cannot hold that number of patients.
    """
    importlib.import_module(f"radprobe.phantoms.{entry.loader}").generate(folder, entry, patients, seed)
