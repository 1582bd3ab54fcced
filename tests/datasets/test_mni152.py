import numpy as np
import pytest

from radprobe import catalog
from radprobe.datasets import mni152
from radprobe.study import package_folder

ENTRY = catalog.datasets()["mni152"]
FOLDER = package_folder(ENTRY.package)


@pytest.mark.skipif(FOLDER is None, reason="nilearn of the catalog's version is not installed")
def test_the_volume_in_nilearn_gives_slices_of_one_subject():
    layout = mni152.locate(ENTRY, FOLDER)
    table = mni152.samples(layout, ENTRY, False).table
    assert 8 <= len(table) <= 20
    assert set(table["volume_id"]) == {"mni152"}
    assert (np.diff(table["slice"]) == mni152.EVERY).all()
    assert (layout.root / table["image"].iloc[0]).is_file()
    assert table["spacing"].iloc[0] == [1.0, 1.0, 1.0]


def test_another_folder_holds_no_volume(tmp_path):
    assert mni152.locate(ENTRY, tmp_path) is None
