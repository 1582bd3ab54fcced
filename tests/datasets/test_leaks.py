import numpy as np
import pandas as pd

from radprobe.artifacts import Index, Split
from radprobe.datasets import leaks


def case(parts, volumes=None):
    n = len(parts)
    names = [f"s{row}" for row in range(n)]
    table = {"sample_id": names, "patient_id": names, "volume_id": volumes or names, "slice": 0, "image": names}
    table |= {"masks": [[] for _ in names], "spacing": [[] for _ in names], "affine": [[] for _ in names]}
    split = Split(pd.DataFrame({"sample_id": names, "patient_id": names, "part": parts}), [])
    return Index(pd.DataFrame(table)), split, np.random.default_rng(0).integers(0, 255, (n, 8, 8), dtype=np.uint8)


def test_a_clean_split_has_no_overlap():
    certificate = leaks.compare(*case(["train", "train", "val", "test"]))
    assert certificate.overlaps == []
    assert certificate.compared["pictures"] == 4


def test_the_same_pixels_in_two_parts_are_found_and_named():
    index, split, images = case(["train", "train", "val", "test"])
    images[3] = images[1]
    (overlap,) = leaks.compare(index, split, images).overlaps
    assert (overlap["kind"], overlap["samples"], overlap["parts"]) == ("pixels", ["s1", "s3"], ["train", "test"])


def test_one_other_pixel_makes_another_picture():
    index, split, images = case(["train", "val", "test"])
    images[1] = images[0]
    images[1, 0, 0] ^= 1
    assert leaks.compare(index, split, images).overlaps == []


def test_copies_within_a_part_are_counted_and_do_not_leak():
    index, split, images = case(["train", "train", "val", "test"])
    images[1] = images[0]
    certificate = leaks.compare(index, split, images)
    assert certificate.overlaps == []
    assert certificate.compared["repeated_within_parts"] == 1


def test_a_volume_in_two_parts_is_found():
    certificate = leaks.compare(*case(["train", "val", "test"], ["v", "w", "v"]))
    assert [(o["kind"], o["what"], o["samples"]) for o in certificate.overlaps] == [("volume", "v", ["s0", "s2"])]
