"""What of this machine and of a study would stop a run: a module for each subject, which yields Checks. Facts come from
`machine`; what they mean for a run, and what to do about it, is said here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

NAMES = 8  # in a line
State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, whether it is ok, a note, or a problem (a run would stop or lose something)."""

    check: str
    state: State
    found: str
    remedy: str = ""


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    return ", ".join(names[:NAMES]) + more
