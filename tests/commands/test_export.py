import nibabel
import numpy as np
import pandas as pd
import pytest
from frozen import prepare, study
from PIL import Image

from radprobe.artifacts import Index, LabelMaps, Predictions
from radprobe.commands import export
from radprobe.files import RadprobeError

CLASSES = ["left lung", "right lung"]


def made(root, maps, affine=()):
    """A `segment` step whose predictions are `maps`, by case."""
    s = study(root, "montgomery")
    prepare(s, "montgomery", np.zeros((len(maps), 8, 8), np.uint8), classes=CLASSES)
    step = s.step("prepare", "montgomery")
    table = Index.load(step.folder).table
    table["volume_id"], table["affine"] = list(maps), [list(np.ravel(affine)) for _ in maps]
    Index(table).save(step.place)
    step = s.step("segment", "montgomery", "test_vit")
    for name in ("linear-decoder", "unet-decoder"):
        cases = ((case, case, "test", labels, []) for case, labels in maps.items())
        LabelMaps.write(step.folder, name, cases)
    found = {name: LabelMaps.read(step.folder, name) for name in ("linear-decoder", "unet-decoder")}
    Predictions(CLASSES, maps=found, facts={"protocols": {name: {} for name in found}}).save(step.place)
    return s, step


def test_films_become_png_whose_values_are_the_labels(tmp_path):
    maps = {"a b/c": np.random.default_rng(0).integers(0, 3, (7, 5)).astype(np.uint8)}
    export.run(*made(tmp_path / "s", maps), tmp_path / "out")
    for protocol in ("linear-decoder", "unet-decoder"):
        picture = Image.open(tmp_path / "out" / protocol / "test/a_b_c.png")
        np.testing.assert_array_equal(np.asarray(picture), maps["a b/c"])
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        assert len(np.unique(colours, axis=0)) == 3
    assert pd.read_csv(tmp_path / "out/labels.csv").to_dict("list") == {"label": [1, 2], "class": CLASSES}


def test_volumes_become_nifti_on_the_grid_of_their_image(tmp_path):
    affine = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -3], [0, 0, 4, 7], [0, 0, 0, 1]])
    maps = {"case": np.random.default_rng(0).integers(0, 3, (4, 5, 6)).astype(np.uint8)}
    export.run(*made(tmp_path / "s", maps, affine), tmp_path / "out", "unet-decoder")
    (file,) = (tmp_path / "out").rglob("*.nii.gz")
    assert file.parent == tmp_path / "out/unet-decoder/test"
    image = nibabel.load(file)
    np.testing.assert_array_equal(np.asarray(image.dataobj), maps["case"])
    np.testing.assert_allclose(image.affine, affine)


def test_a_protocol_that_was_not_made_is_said(tmp_path):
    s, step = made(tmp_path / "s", {"a": np.zeros((4, 4), np.uint8)})
    with pytest.raises(RadprobeError, match="name one of linear-decoder, unet-decoder"):
        export.run(s, step, tmp_path / "out", "linear")
