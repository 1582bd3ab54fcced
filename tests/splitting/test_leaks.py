import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radprobe.artifacts import PARTS, Index, Split
from radprobe.files import RadprobeError
from radprobe.splitting import leaks

SIDE = 32


def case(parts, volumes=None, patients=None, studies=None):
    """Index, Split and noise pictures; the Split says that every sample has a patient of its own."""
    n = len(parts)
    names = [f"s{row:02d}" for row in range(n)]
    table = {"sample_id": names, "patient_id": patients or names, "volume_id": volumes or names, "slice": 0}
    table |= {"image": names, **{column: [[] for _ in names] for column in ("masks", "spacing", "affine")}}
    if studies:
        table["meta:study"] = pd.Series(studies, dtype=object)
    split = Split(pd.DataFrame({"sample_id": names, "patient_id": names, "part": parts}), [])
    images = np.random.default_rng(0).integers(0, 255, (n, SIDE, SIDE), dtype=np.uint8)
    return Index(pd.DataFrame(table)), split, images


def exception(*samples, reason="the same film, known"):
    return {"samples": list(samples), "reason": reason}


ALL_PARTS = st.lists(st.sampled_from(PARTS), min_size=3, max_size=20).filter(lambda parts: len(set(parts)) > 1)


@given(ALL_PARTS)
@settings(max_examples=15, deadline=None)
def test_a_clean_split_passes(parts):
    certificate = leaks.compare(*case(parts))
    assert certificate.overlaps == certificate.near == certificate.near_test_samples == []
    assert certificate.compared["pictures"] == len(parts)


@given(ALL_PARTS, st.sampled_from(["patient", "study", "volume", "pixels"]), st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_planted_in_two_parts_is_found_and_all_its_samples_are_named(parts, kind, data):
    rows = data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=2, max_size=4, unique=True))
    names = [f"x{row}" for row in range(len(parts))]
    planted = ["shared" if row in rows else name for row, name in enumerate(names)]
    columns = {"patient": "patients", "study": "studies", "volume": "volumes"}
    index, split, images = case(parts, **({columns[kind]: planted} if kind != "pixels" else {}))
    if kind == "pixels":
        images[rows] = images[rows[0]]
    found = leaks.compare(index, split, images).overlaps
    if len({parts[row] for row in rows}) == 1:
        assert found == []
        return
    (overlap,) = found
    assert overlap["kind"] == kind
    assert sorted(overlap["samples"]) == sorted(f"s{row:02d}" for row in rows)
    assert overlap["parts"] == sorted((parts[row] for row in rows), key=PARTS.index)


def test_one_other_pixel_makes_another_picture_that_looks_the_same():
    index, split, images = case(["train", "val", "test"])
    images[1] = images[0]
    images[1, 0, 0] ^= 1
    certificate = leaks.compare(index, split, images)
    assert certificate.overlaps == []
    assert [entry["samples"] for entry in certificate.near] == [["s00", "s01"]]
    assert certificate.near_test_samples == [], "a copy of train in val concerns no test sample"


def test_copies_within_a_part_are_counted_and_do_not_leak():
    index, split, images = case(["train", "train", "val", "test"])
    images[1] = images[0]
    certificate = leaks.compare(index, split, images)
    assert certificate.overlaps == certificate.near == []
    assert certificate.compared["repeated_within_parts"] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_blank_pictures_are_no_leak_and_are_counted(dtype):
    index, split, images = case(["train", "train", "val", "test"])
    images = images.astype(dtype)
    images[[0, 3]] = np.iinfo(dtype).min
    images[[0, 3], 5, 5] += 1
    certificate = leaks.compare(index, split, images)
    assert certificate.overlaps == certificate.near == []
    assert certificate.compared["blank"] == 2
    images[[0, 3], 5, 5] += 1
    assert [overlap["samples"] for overlap in leaks.compare(index, split, images).overlaps] == [["s00", "s03"]]


def test_pictures_of_samples_without_a_part_are_not_compared():
    index, split, images = case(["train", "train", "val", "test"])
    images[:] = images[0]
    few = Split(split.table.iloc[:2], [])
    certificate = leaks.compare(index, few, images)
    assert certificate.overlaps == []
    assert certificate.compared["samples"] == 2


def test_a_missing_study_is_no_study():
    certificate = leaks.compare(*case(["train", "val", "test"], studies=[None, None, "s"]))
    assert certificate.overlaps == []
    assert certificate.compared["studies"] == 1


def volumes(a="train", b="test"):
    index, split, images = case([a] * 4 + [b] * 4, ["a"] * 4 + ["b"] * 4, ["pa"] * 4 + ["pb"] * 4)
    images[0] = images[4] = 0
    return index, split, images


def test_a_volume_under_another_name_is_one_overlap_blank_slices_aside():
    index, split, images = volumes()
    images[5:] = images[1:4]
    (overlap,) = leaks.compare(index, split, images).overlaps
    assert (overlap["kind"], overlap["cases"], overlap["pictures"]) == ("pixels", ["a", "b"], 3)
    assert overlap["whole"] is True
    images[7, 0, 0] ^= 1
    (overlap,) = leaks.compare(index, split, images).overlaps
    assert (overlap["pictures"], overlap["whole"]) == (2, False)


def test_volumes_that_look_the_same_are_one_entry_and_all_test_slices_are_named():
    index, split, images = volumes()
    images[5:7] = images[1:3] // 2 + 40
    certificate = leaks.compare(index, split, images)
    (entry,) = certificate.near
    assert (entry["cases"], entry["parts"], entry["pairs"]) == (["a", "b"], ["train", "test"], 2)
    assert certificate.near_test_samples == ["s04", "s05", "s06", "s07"]


def test_what_looks_the_same_within_a_volume_or_patient_is_not_reported():
    index, split, images = volumes(b="train")
    images[1:] = images[1] // 2 + np.arange(7, dtype=np.uint8)[:, None, None]
    assert leaks.compare(index, split, images).near == []


# --- exceptions -------------------------------------------------------------------------------------------------------


def test_an_overlap_of_which_all_samples_are_named_is_excepted_with_its_reason():
    index, split, images = case(["train", "train", "val", "test"])
    images[3] = images[1]
    certificate = leaks.compare(index, split, images, [exception("s01", "s03", reason="a phantom of the scanner")])
    assert certificate.overlaps == certificate.unused == certificate.near == []
    assert [(e["samples"], e["reason"]) for e in certificate.excepted] == [(["s01", "s03"], "a phantom of the scanner")]


def test_a_third_copy_that_is_not_named_still_fails():
    index, split, images = case(["train", "train", "val", "test"])
    images[[2, 3]] = images[1]
    certificate = leaks.compare(index, split, images, [exception("s01", "s03")])
    assert [overlap["samples"] for overlap in certificate.overlaps] == [["s01", "s02", "s03"]]
    assert certificate.excepted == []


def test_cases_may_be_named_instead_of_their_slices():
    index, split, images = volumes()
    images[5:] = images[1:4]
    certificate = leaks.compare(index, split, images, [exception("a", "b")])
    assert (len(certificate.excepted), certificate.overlaps) == (1, [])


def test_an_exception_that_nothing_needs_is_said():
    certificate = leaks.compare(*case(["train", "val", "test"]), [exception("s00", "s02")])
    assert certificate.unused == [exception("s00", "s02")]


def test_an_exception_without_a_reason_is_refused():
    with pytest.raises(RadprobeError, match="no reason"):
        leaks.compare(*case(["train", "val", "test"]), [exception("s00", "s02", reason=" ")])


# --- folds ------------------------------------------------------------------------------------------------------------


def folded(numbers):
    index, split, images = case(["test"] * len(numbers))
    return index, Split(split.table.assign(fold=numbers), []), images


@given(st.lists(st.integers(1, 4), min_size=4, max_size=12).filter(lambda numbers: len(set(numbers)) > 1), st.data())
@settings(max_examples=30, deadline=None)
def test_two_folds_share_nothing_as_each_is_trained_on_while_the_other_is_test(numbers, data):
    one, other = data.draw(st.lists(st.integers(0, len(numbers) - 1), min_size=2, max_size=2, unique=True))
    index, split, images = folded(numbers)
    images[one] = images[other]
    found = leaks.compare(index, split, images).overlaps
    if numbers[one] == numbers[other]:
        assert found == []
        return
    (overlap,) = found
    assert sorted(overlap["samples"]) == sorted(f"s{row:02d}" for row in (one, other))
    assert overlap["parts"] == [f"fold {number}" for number in sorted((numbers[one], numbers[other]))]


def test_both_of_two_copies_in_two_folds_are_test_samples():
    index, split, images = folded([1, 2, 3])
    images[1] = images[0]
    images[1, 0, 0] ^= 1
    assert leaks.compare(index, split, images).near_test_samples == ["s00", "s01"]
