import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from radprobe.files import RadprobeError
from radprobe.learning import metadata

AGES = st.one_of(st.none(), st.floats(0, 110))
VIEWS = st.one_of(st.none(), st.sampled_from(["AP", "PA", "LL"]))


@given(st.lists(st.tuples(AGES, VIEWS), min_size=3, max_size=40))
def test_numbers_are_standardised_and_text_becomes_one_column_a_value(rows):
    ages, views = (pd.Series(column, dtype=object) for column in zip(*rows, strict=True))
    found = metadata.features(pd.DataFrame({"meta:age": ages, "meta:view": views}), ["age", "view"])
    assert np.isfinite(found).all()
    assert len(found) == len(rows)
    known = [row for row, age in enumerate(ages) if age is not None]
    if known:
        scaled = StandardScaler().fit_transform(np.array([[ages[row]] for row in known]))[:, 0]
        np.testing.assert_allclose(found[known, 0], scaled, atol=1e-3)
        assert (found[[row for row in range(len(rows)) if row not in known], 0] == 0).all()
    named = views.dropna()
    if len(named):
        start = (1 if known else 0) + (len(known) < len(rows))
        hot = OneHotEncoder(sparse_output=False).fit_transform(named.to_numpy()[:, None])
        np.testing.assert_array_equal(found[named.index][:, start : start + hot.shape[1]], hot)


def test_what_is_missing_has_a_column_of_its_own():
    table = pd.DataFrame({"meta:age": [50.0, np.nan, 30.0], "meta:sex": ["F", "M", "F"]})
    assert metadata.features(table, ["age", "sex"]).shape == (3, 1 + 1 + 2)
    assert metadata.features(table, ["age"])[:, 1].tolist() == [0, 1, 0]


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(RadprobeError, match=r"metadata view: is no column.*\n.*its columns: age"):
        metadata.features(pd.DataFrame({"meta:age": [1.0]}), ["view"])
