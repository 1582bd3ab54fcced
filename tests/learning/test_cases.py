import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from radprobe.artifacts import Index
from radprobe.learning.cases import Cases, permuted


def cases(volumes):
    """The cases of an Index with one row for each name of a volume."""
    names = [f"{name}_{k:04d}" for k, name in enumerate(volumes)]
    table = pd.DataFrame({"sample_id": names, "patient_id": volumes, "volume_id": volumes, "slice": 0, "image": "a"})
    table["masks"], table["spacing"], table["affine"] = ([[] for _ in names] for _ in range(3))
    return Cases(Index(table))


@pytest.mark.parametrize("volumes", [["a", "b", "c"], ["a", "a", "b"]], ids=["films", "volumes"])
@pytest.mark.parametrize("rows", [2, 4, 6])
def test_features_of_other_rows_than_the_index_has_are_refused(volumes, rows):
    with pytest.raises(ValueError, match=f"{rows} rows of features for 3"):
        cases(volumes).mean(np.zeros((rows, 5), np.float16))


def test_the_vector_of_a_volume_is_the_mean_of_its_slices():
    found = cases(["a", "a", "b"]).mean(np.array([[1], [3], [7]], np.float16))
    assert found.tolist() == [[2], [7]]


@pytest.mark.parametrize(("scores", "targets"), [((2, 2), (3, 2)), ((3, 3), (3, 2)), ((3, 2), (3, 3))])
def test_scores_of_other_cases_or_classes_make_no_predictions(scores, targets):
    with pytest.raises(ValueError, match="for 3 cases of 2 classes"):
        cases(["a", "b", "c"]).table(
            np.arange(3), "knn", "test", ["x", "y"], torch.zeros(scores), torch.zeros(targets), False
        )


@given(st.lists(st.integers(1, 4), min_size=2, max_size=8), st.integers(0, 100))
def test_permuted_labels_are_all_there_and_those_of_a_patient_stay_together(sizes, seed):
    patients = np.repeat([f"p{number}" for number in range(len(sizes))], sizes)
    patients = np.random.default_rng(0).permutation(patients)
    source = permuted(patients, seed)
    assert sorted(source) == list(range(len(patients)))
    runs = patients[source][np.argsort(patients, kind="stable")]  # whose labels the cases have, patient by patient
    assert len(runs) - (runs[1:] == runs[:-1]).sum() == len(sizes)
    assert np.array_equal(source, permuted(patients, seed))
    if len(set(sizes)) == 1:  # whole patients are exchanged
        assert all(len(set(patients[source][patients == name])) == 1 for name in set(patients))
