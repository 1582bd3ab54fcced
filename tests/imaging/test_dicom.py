import importlib.util
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from imaging.dicom_files import SECRETS, data_set, write
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut

from radprobe.files import RadprobeError
from radprobe.imaging import dicom, reading
from radprobe.imaging.values import is_dicom

warnings.filterwarnings("ignore", module="pydicom")
ROOTS = [Path(pydicom.data.__file__).parent / "test_files"]
if spec := importlib.util.find_spec("data_store"):  # the wheel pydicom-data
    ROOTS.append(Path(spec.submodule_search_locations[0]) / "data")
CORPUS = [path for root in ROOTS for path in sorted(root.rglob("*")) if path.is_file() and is_dicom(path)]
UNREADABLE = {  # of the files with one frame, and why
    "JPEG-lossy.dcm": "decoded",  # 12-bit JPEG: neither gdcm nor Pillow decodes it
    "JPGExtended.dcm": "decoded",
    "JPEG2000-embedded-sequence-delimiter.dcm": "decoded",  # broken on purpose
    "MR_truncated.dcm": "cut off",
    "badVR.dcm": "damaged",
    "meta_missing_tsyntax.dcm": "lacks Rows",
    "nested_priv_SQ.dcm": "lacks Rows",
    "rtdose_1frame.dcm": "beyond 16 bits",
    "rtdose_expb_1frame.dcm": "beyond 16 bits",
    "rtdose_rle_1frame.dcm": "beyond 16 bits",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "frames",
}


def expected(path):
    """What pydicom itself gives, made bright for bone and shifted as `read_grey` promises."""
    data = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in data.file_meta:
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian  # the default of the standard
    values = data.pixel_array
    if data.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, data)
    if values.ndim == 3:
        eight = values if values.dtype == np.uint8 else values >> (8 * values.itemsize - 8)
        return np.asarray(Image.fromarray(eight.astype(np.uint8)).convert("L")).astype(int)
    plain = values.dtype == np.uint16 and data.BitsStored == 16
    values = apply_modality_lut(values, data)
    picture = data.get("Modality") not in ("CT", "MR", "PT", "NM")
    if data.PhotometricInterpretation == "MONOCHROME1" and picture:
        ends = np.array([0, 2**data.BitsStored - 1]) * float(data.get("RescaleSlope", 1))
        values = ends.sum() + 2 * float(data.get("RescaleIntercept", 0)) - values.astype(float)
    shift = 32768 if picture and (plain or "ModalityLUTSequence" in data) else 0
    return np.rint(values.astype(float)) - shift


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_pydicoms_own_files_are_read_as_pydicom_does_or_refused(path):
    data = pydicom.dcmread(path, force=True)
    why = UNREADABLE.get(path.name)
    if not why and int(data.get("NumberOfFrames") or 1) > 1:
        why = "frames"
    if not why and "PixelData" not in data:
        why = "no pixel data|no DICOM image"
    if why:
        with pytest.raises(RadprobeError, match=why) as error:
            reading.read_grey(path)
        assert path.name in str(error.value)
        return
    read, header = reading.read_grey(path), reading.probe(path)
    np.testing.assert_array_equal(read, expected(path))
    assert (header.shape, header.dtype) == (read.shape, read.dtype)


def test_the_corpus_is_there():
    n_images = sum("PixelData" in pydicom.dcmread(path, force=True) for path in CORPUS)
    assert n_images > 50


PIXELS = np.random.default_rng(0).integers(0, 4096, (12, 20)).astype(np.uint16)


def film(path, pixels=PIXELS, **tags):
    return write(path, pixels, **({"Modality": "DX", "BitsStored": 12, "HighBit": 11} | tags))


def test_ct_is_in_hounsfield_units(tmp_path):
    path = write(tmp_path / "ct.dcm", PIXELS, RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS.astype(int) - 1024)


def test_one_of_the_two_rescaling_tags_is_enough(tmp_path):
    path = write(tmp_path / "ct.dcm", PIXELS, RescaleIntercept=-1024)
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS.astype(int) - 1024)
    path = write(tmp_path / "slope.dcm", PIXELS, RescaleSlope=2)
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS.astype(int) * 2)


def test_a_film_with_dark_bone_is_inverted_within_its_bits_and_keeps_them(tmp_path):
    bright = reading.read_grey(film(tmp_path / "2.dcm"))
    dark = reading.read_grey(film(tmp_path / "1.dcm", 4095 - PIXELS, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(bright, PIXELS)
    np.testing.assert_array_equal(dark, bright)
    eight = (PIXELS >> 4).astype(np.uint8)
    tags = {"Modality": "CR", "PhotometricInterpretation": "MONOCHROME1"}
    read = reading.read_grey(write(tmp_path / "8.dcm", eight, **tags))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, 255 - eight)


def test_measured_values_are_never_inverted(tmp_path):
    path = write(tmp_path / "ct.dcm", PIXELS, PhotometricInterpretation="MONOCHROME1", RescaleIntercept=-1024)
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS.astype(int) - 1024)


def test_a_window_is_left_to_later(tmp_path):
    path = film(tmp_path / "film.dcm", WindowCenter=100, WindowWidth=10)
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS)


def test_films_of_16_bits_are_shifted_as_png_is(tmp_path):
    deep = PIXELS * 16
    path = film(tmp_path / "film.dcm", deep, BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(reading.read_grey(path), deep.astype(int) - 32768)


def test_what_is_missing_has_its_usual_value_or_is_named(tmp_path):
    usual = ("PhotometricInterpretation", "PixelRepresentation", "BitsStored", "HighBit", "SamplesPerPixel")
    path = write(tmp_path / "usual.dcm", PIXELS, without=usual)
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS)
    path = write(tmp_path / "rows.dcm", PIXELS, without=("Rows", "Columns"))
    with pytest.raises(RadprobeError, match=r"rows\.dcm: lacks Rows, Columns"):
        reading.probe(path)


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({"PixelSpacing": [0.5, 0.25]}, (0.5, 0.25)),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2)),
        ({"PixelSpacing": [0, 0]}, ()),
        ({}, ()),
    ],
)
def test_spacing_is_that_of_the_patient_then_of_the_detector_or_unknown(tmp_path, tags, spacing):
    assert reading.probe(film(tmp_path / "film.dcm", **tags)).spacing == spacing


def test_a_file_needs_neither_suffix_nor_preamble(tmp_path):
    path = film(tmp_path / "IM0001")
    np.testing.assert_array_equal(reading.read_grey(path), PIXELS)
    bare = tmp_path / "bare.dcm"
    data = pydicom.dcmread(path)
    del data.file_meta
    data.save_as(bare, implicit_vr=True, little_endian=True)
    np.testing.assert_array_equal(reading.read_grey(bare), PIXELS)


@pytest.mark.survives("input", "a DICOM file that is cut off", "refused before it is decoded")
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_what_was_cut_off_is_found_by_the_header_check(tmp_path, share):
    whole = film(tmp_path / "whole.dcm").read_bytes()
    (tmp_path / "film.dcm").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(RadprobeError, match=r"film\.dcm"):
        reading.probe(tmp_path / "film.dcm")


def test_no_pixel_data_and_no_dicom_are_told_apart(tmp_path):
    with pytest.raises(RadprobeError, match="has no pixel data"):
        reading.probe(write(tmp_path / "report.dcm", PIXELS, without=("PixelData",)))
    (tmp_path / "text.dcm").write_text("this is no image\n" * 50)
    with pytest.raises(RadprobeError, match="no DICOM"):
        reading.probe(tmp_path / "text.dcm")


# --- privacy ----------------------------------------------------------------------------------------------------------


def test_a_description_holds_nothing_that_identifies(tmp_path):
    described = dicom.describe(film(tmp_path / "film.dcm", PixelSpacing=[0.5, 0.5], BurnedInAnnotation="NO"))
    assert described == {
        "modality": "DX",
        "photometric": "MONOCHROME2",
        "shape": (12, 20),
        "spacing": (0.5, 0.5),
        "burned_in": "NO",
        "text_possible": False,
    }


@pytest.mark.survives("attack", "DICOM tags that identify a patient", "never read")
def test_identifying_tags_are_not_even_read(tmp_path):
    data = dicom.header(film(tmp_path / "film.dcm"))
    assert not any(name in data for name in (*SECRETS, "SOPInstanceUID", "StudyDate"))


@pytest.mark.parametrize(
    ("tags", "possible"),
    [
        ({"BurnedInAnnotation": "YES"}, True),
        ({"Modality": "US"}, True),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, False),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        ({}, False),
    ],
)
def test_burned_in_text_is_possible_where_the_file_says_so_or_is_a_copy_of_a_screen(tmp_path, tags, possible):
    assert dicom.describe(film(tmp_path / "film.dcm", **tags))["text_possible"] is possible


@pytest.mark.survives("attack", "DICOM tags that identify a patient, in messages", "never quoted")
def test_messages_quote_no_tag(tmp_path):
    path = film(tmp_path / "film.dcm", StudyDate="20200101")
    content, said = path.read_bytes(), []
    for at in range(132, len(content) - PIXELS.nbytes, 7):  # damage all over the header
        path.write_bytes(content[:at] + b"\xff\xfe\x00A" + content[at + 4 :])
        said += [] if (why := message(path)) is None else [why]
    assert len(said) > 20
    for secret in (*SECRETS.values(), "Doe", "20200101", "1.2."):
        assert not any(secret in why for why in said)


def message(path):
    try:
        reading.read_grey(path)
    except RadprobeError as error:
        return str(error)
    return None


def without_preamble(content):
    return content[132:]


def behind_a_long_header(content):
    """Its group 2, one of whose elements is made longer than the 4 kB in which the syntax stands as a rule."""
    data = pydicom.dcmread(BytesIO(content))
    data.file_meta.MediaStorageSOPInstanceUID = "1." + "2" * 6000
    data.save_as(longer := BytesIO(), enforce_file_format=True)
    return longer.getvalue()


@pytest.mark.parametrize("change", [bytes, without_preamble, behind_a_long_header])
def test_a_deflate_bomb_is_one_wherever_its_syntax_stands(tmp_path, monkeypatch, change):
    data = data_set(np.zeros((200, 200), np.uint16))
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(written := BytesIO(), enforce_file_format=True)
    (path := tmp_path / "x.dcm").write_bytes(change(written.getvalue()))
    assert dicom.header(path).Rows == 200
    monkeypatch.setattr(dicom, "MAX_INFLATED", 10_000)
    with pytest.raises(RadprobeError, match="inflates to far more than an image"):
        dicom.header(path)
