"""docs/reliability.md is made by `make reliability` from a run; here: nothing that is tested is absent from it."""

import re
from pathlib import Path

import reliability
from corpus import by_hand

TESTS = Path(__file__).parent


def page() -> str:
    return (TESTS.parent / "docs/reliability.md").read_text(encoding="utf-8")


def rows() -> list[list[str]]:
    """Return the cells of every row of the tables: what, trials, outcome, tests."""
    lines = [line for line in page().splitlines() if line.startswith("| ") and "---" not in line]
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if not line.startswith("| what |")
    ]


def test_every_fault_that_is_tested_is_on_the_page_and_nothing_else():
    listed = {(what, outcome, name) for what, _, outcome, tests in rows() for name in re.findall(r"`([^`]+)`", tests)}
    assert listed == reliability.marked(TESTS), "run `make reliability`"


def test_there_are_more_than_200_malformed_files():
    assert len(by_hand.CASES) > 200
    assert sum(int(trials.replace(",", "")) for what, trials, *_ in rows() if what.startswith("files ")) > 200


def test_the_page_says_what_is_not_covered():
    assert page().endswith(reliability.CLOSE)
