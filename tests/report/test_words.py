import math

from radprobe.report import words
from radprobe.report.ranking import Estimate


def test_numbers_have_three_decimals_and_no_negative_zero():
    assert words.number(-0.0001) == "0.000"
    assert words.text(Estimate(math.nan)) == "–"
    assert [words.duration(s) for s in (0.2, 42, 180, 7200, math.nan)] == [
        "under 1 s", "42 s", "3.0 min", "2.0 h", "unknown",
    ]  # fmt: skip


def test_names_are_listed_and_small_p_values_have_a_floor():
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed(["a", "b"], "or") == "a or b"
    assert words.p_value(0.0124) == "p = 0.012"
    assert words.p_value(0.0005) == "p < 0.001"
