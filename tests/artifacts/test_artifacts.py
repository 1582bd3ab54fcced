import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from radprobe.artifacts import (
    COMPARISON_SCHEMA,
    ROWS_SCHEMA,
    SCORES_SCHEMA,
    VARIANTS_SCHEMA,
    Comparison,
    Index,
    LabelMaps,
    Scores,
    Shards,
    Split,
    Truth,
    Weights,
)
from radprobe.artifacts.tables import write_table
from radprobe.files import RadprobeError, keep_twin
from radprobe.manifests import Place, seal


def an_index(n: int = 6) -> Index:
    names = [f"s{row:02d}" for row in range(n)]
    table = pd.DataFrame({"sample_id": names, "patient_id": [f"p{row // 2}" for row in range(n)], "volume_id": names})
    table["slice"] = 0
    table["image"] = [f"{name}.png" for name in names]
    table["masks"] = [[] for _ in names]
    table["spacing"] = [[0.5, 0.5] for _ in names]
    table["affine"] = [[] for _ in names]
    table["label:Mass"] = [float(row % 2) for row in range(n)]
    return Index(table, {"partial": True})


def a_split(n: int = 6) -> Split:
    table = an_index(n).table[["sample_id", "patient_id"]].copy()
    table["part"] = ["train", "train", "val", "val", "test", "test"]
    return Split(table, ["Mass"])


def test_an_index_comes_back_as_it_was_saved(tmp_path):
    index = an_index()
    index.save(Place(tmp_path, "key"))
    back = Index.load(tmp_path)
    pd.testing.assert_frame_equal(back.table, index.table)
    assert back.classes == ["Mass"]
    assert back.facts == {"partial": True}


def test_weights_that_did_not_come_with_their_manifest_leave_it_and_those_that_went_do_not(tmp_path):
    file, manifest = tmp_path / "weights.safetensors", tmp_path / "weights.json"
    Weights(file, "0" * 64, "local").save(Place(tmp_path, "key"))
    with pytest.raises(RadprobeError, match="the weights are not here: DVC brought none"):
        Weights.load(tmp_path)
    assert manifest.is_file()
    keep_twin(manifest)
    with pytest.raises(RadprobeError, match="changed since they were verified"):
        Weights.load(tmp_path)
    assert not manifest.is_file()


def test_unsorted_or_repeated_samples_are_refused():
    table = an_index().table
    with pytest.raises(Exception, match="sorted"):
        Index(table.iloc[::-1])
    with pytest.raises(Exception, match="duplicate"):
        Index(pd.concat([table, table.tail(1)]))


def test_a_patient_in_two_parts_is_refused():
    split = a_split()
    table = split.table.copy()
    table.loc[0, "part"] = "test"
    with pytest.raises(RadprobeError, match=r"patient p0.*two parts"):
        Split(table, ["Mass"])


def test_a_split_finds_the_rows_of_its_parts(tmp_path):
    a_split().save(Place(tmp_path, "key"))
    split = Split.load(tmp_path)
    assert split.rows(an_index(), "val").tolist() == [2, 3]
    assert split.rows(an_index(), "train", "val").tolist() == [0, 1, 2, 3]


def test_truth_of_what_was_never_prepared_leaves_nothing(tmp_path):
    with pytest.raises(RadprobeError, match="is not there"):
        Truth.load(tmp_path / "never")
    assert not list(tmp_path.iterdir())


def a_table(schema) -> pd.DataFrame:
    of = schema.columns.items()
    return pd.DataFrame({name: [""] if str(column.dtype).startswith("str") else [1.0] for name, column in of})


def words(table):
    return table.assign(low="much")


def without(table):
    return table.drop(columns="low")


def with_more(table):
    return table.assign(more=1)


def numbers(table):
    return table.assign(note=7)


@pytest.mark.parametrize("broken", ["comparison", "variants", "rows"])
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (words, "fails coerce_dtype('float64'): 'much'"),
        (without, "column 'low' is missing"),
        (with_more, "column 'more' is none of the table"),
        (numbers, "column 'note' fails dtype("),
    ],
)
def test_a_table_that_somebody_else_sealed_is_named_with_the_column_and_the_check(tmp_path, broken, harm, why):
    schemas = {"comparison": COMPARISON_SCHEMA, "variants": VARIANTS_SCHEMA, "rows": ROWS_SCHEMA}
    tables = {name: a_table(schema) for name, schema in schemas.items()}
    Comparison(*tables.values()).save(Place(tmp_path, "key"))
    assert len(Comparison.load(tmp_path).variants) == 1
    write_table(tmp_path / f"{broken}.parquet", harm(tables[broken]))
    seal(Place(tmp_path, "key"), "comparison", {}, [f"{name}.parquet" for name in tables])
    with pytest.raises(RadprobeError) as error:
        Comparison.load(tmp_path)
    assert error.value.what == str(tmp_path / f"{broken}.parquet")
    assert why in error.value.reason


@pytest.mark.parametrize(
    ("kind", "table", "why"),
    [
        ("index", an_index().table.iloc[::-1], "fails rows sorted by sample_id"),
        ("index", an_index().table.assign(slice=-1), "column 'slice' fails greater_than_or_equal_to(0): '-1'"),
        ("scores", a_table(SCORES_SCHEMA), "column 'part' fails isin(('train', 'val', 'test')): ''"),
    ],
)
def test_every_table_says_which_column_fails_which_check(tmp_path, kind, table, why):
    write_table(tmp_path / f"{kind}.parquet", table)
    seal(Place(tmp_path, "key"), kind, {}, [f"{kind}.parquet"])
    with pytest.raises(RadprobeError) as error:
        {"index": Index, "scores": Scores}[kind].load(tmp_path)
    assert why in error.value.reason


shapes = hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9)


@settings(deadline=None, max_examples=25)
@given(st.lists(hnp.arrays(np.uint8, shapes), min_size=1, max_size=4))
def test_label_maps_come_back_bit_by_bit(tmp_path_factory, maps):
    folder = tmp_path_factory.mktemp("maps")
    LabelMaps.write(folder, "truth", [(f"c{i}", f"p{i}", "", one, [1.0] * one.ndim) for i, one in enumerate(maps)])
    back = LabelMaps.read(folder, "truth")
    assert list(back) == [f"c{i}" for i in range(len(maps))]
    for i, one in enumerate(maps):
        np.testing.assert_array_equal(back[f"c{i}"], one)
        assert back.spacing(f"c{i}") == [1.0] * one.ndim


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.data())
def test_shards_read_as_one_array(sizes, data):
    whole = np.arange(sum(sizes) * 2).reshape(-1, 2)
    shards = Shards(np.split(whole, np.cumsum(sizes)[:-1]))
    rows = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8))
    np.testing.assert_array_equal(shards[rows], whole[rows])
