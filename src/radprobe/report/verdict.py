"""What the statistics of a task say, in sentences: never more than simultaneous intervals support.

"Significantly higher" is written only where the simultaneous 95 % interval of the paired difference excludes 0, so of
all such sentences on one task, metric and protocol any is false in at most 5 of 100 studies (metrics/simultaneous.py).
"""

import math
from dataclasses import dataclass, field

from radprobe.console import about
from radprobe.names import STANDING
from radprobe.report.ranking import Column, Contrast, controls_of
from radprobe.report.words import (
    ELSEWHERE,
    METRICS,
    Name,
    duration,
    interval,
    listed,
    number,
    p_value,
    protocol,
    some,
    text,
)

SHOWN = 0.0005  # a correction that three decimals would not show

# The control rows of a backbone, in the order of `controls_of`: their name, and what it means not to exceed one.
CONTROLS = (
    ("its random init", "no benefit of pretraining is shown"),
    ("raw pixels", "no benefit of a network is shown"),
)


@dataclass(frozen=True)
class Verdict:
    """The sentences of a card: at most five lines, and what folds below them."""

    lines: list[str]
    details: list[str] = field(default_factory=list)


def verdict(column: Column, name: Name, device: str) -> Verdict:
    """Return what a column says: who may be the best, its score, its controls, how many patients, the cost."""
    best = column.best
    if best is None:
        candidates = [name for name in column.scores if name not in column.controls] or list(column.scores)
        reasons = "; ".join(sorted({column.scores[each].note for each in candidates}))
        return Verdict([f"No score is defined: {reasons}."])
    lines = [_who(column, name), _score(column, name), _controls(column, name), _patients_needed(column, name)]
    lines.append(_cost(column, name, device))
    return Verdict([line for line in lines if line], _details(column, name))


def _who(column: Column, name: Name) -> str:
    """Return who may be the best."""
    leader = column.leader
    best = name(leader)
    if leader in column.controls:
        return f"Highest score: {best}, a control. No pretrained backbone was scored."
    rivals = [other for other in column.candidates if other != leader]
    if not rivals:
        return f"{best} is the only backbone that was scored, controls apart."
    if not column.contenders:
        return f"Highest score: {best}. Nothing was compared, so no order is claimed."
    contrasts = [column.difference(leader, other) for other in rivals]
    if all(each is None or math.isnan(each.low) for each in contrasts):
        reasons = sorted({each.note for each in contrasts if each and each.note})
        return f"Highest score: {best}. No order is claimed: {'; '.join(reasons) or 'nothing was compared'}."
    if len(column.significant(leader)) == len(rivals):
        others = f"the {len(rivals)} other backbones" if len(rivals) > 1 else name(rivals[0])
        return f"Best: {best}. It scores significantly higher than {others}."
    may_be = [name(each) for each in column.candidates if each in column.contenders]
    return f"Best: {some(may_be, 'or')} (no significant difference)."


def _score(column: Column, name: Name) -> str:
    """Return the score of the best row, corrected where it was chosen among several."""
    best = column.leader
    measured = column.scores[best]
    corrected = column.corrected if column.corrected and interval(measured) else None
    how = "" if column.protocol_of(best) in STANDING else f", {protocol(column.protocol)}"
    said = f"{name(best)}{how}: {METRICS[column.metric]} {text(corrected or measured)}"
    if corrected and measured.value - corrected.value >= SHOWN:
        chosen = f"corrected for having been chosen among {len(column.candidates)}"
        said += f", {chosen} ({number(measured.value)} as measured)"
    if not interval(measured):
        said += f". No interval: {measured.note.rpartition('no interval: ')[2]}"
    return f"{said}."


def _controls(column: Column, name: Name) -> str:
    """Return whether the best row exceeds its controls; where it does not, it is flagged."""
    best = column.leader
    if best in column.controls:
        return ""
    pairs = {called: (column.difference(best, each), moral) for each, called, moral in _scored_controls(column, best)}
    if not pairs:
        return "No control was scored: neither a random init nor raw pixels."
    unknown = {contrast.note for contrast, _ in pairs.values() if contrast and contrast.sign is None}
    if len(unknown) == 1 and all(contrast and contrast.sign is None for contrast, _ in pairs.values()):
        return f"Nothing is established against {listed(list(pairs))} ({unknown.pop()})."
    beaten = [called for called, (contrast, _) in pairs.items() if contrast and contrast.sign == 1]
    others = [(called, *pair) for called, pair in pairs.items() if called not in beaten]
    said = [f"{name(best)} scores significantly higher than {listed(beaten)}."] if beaten else []
    return " ".join([*said, *(_unbeaten(*each) for each in others)])


def _scored_controls(column: Column, backbone: str) -> list[tuple[str, str, str]]:
    """Return the scored controls of a backbone: id, name, and what it means not to exceed it."""
    controls = zip(controls_of(backbone), CONTROLS, strict=True)
    return [(each, *said) for each, said in controls if each in column.scores]


def _unbeaten(called: str, contrast: Contrast | None, moral: str) -> str:
    if contrast is None:
        return f"It was not compared with {called}."
    if contrast.sign is None:
        return f"Nothing is established against {called} ({contrast.note})."
    how = "scores significantly lower than" if contrast.sign < 0 else "does not score significantly higher than"
    return f"Flagged: it {how} {called}, so {moral}."


def _patients_needed(column: Column, name: Name) -> str:
    """Return how many test patients would detect the stated margin between the best row and the next."""
    best = column.leader
    rivals = [other for other in column.candidates if other != best]
    contrast = column.difference(best, rivals[0]) if rivals else None
    if contrast is None or math.isnan(contrast.needed[0]):
        return ""
    pair = f"{column.margin:g} between {name(best)} and {name(rivals[0])}"
    if math.isinf(contrast.needed[0]):
        return f"No number of test patients resolves {pair}: seeds or random inits alone vary by too much."
    needed, low, high = (about(each) for each in contrast.needed)
    have = column.scores[best].patients
    if contrast.needed[0] <= have:
        return f"These {have} test patients are enough to resolve {pair}: about {needed} are needed ({low} to {high})."
    return f"To resolve {pair}: about {needed} test patients ({low} to {high}); you have {have}."


def _cost(column: Column, name: Name, device: str) -> str:
    best = column.leader
    if best in column.external:
        return f"{ELSEWHERE[0].upper()}{ELSEWHERE[1:]}."
    work = "train" if column.protocol_of(best) in STANDING else "embed and fit"
    return f"{name(best)} costs {duration(column.seconds.get(best, math.nan))} of {device} to {work}."


def _details(column: Column, name: Name) -> list[str]:
    """Return the differences of the best row from every other, by outcome, and doubts about its interval."""
    best = column.leader
    score = column.scores[best]
    doubt = [f"{score.note[0].upper()}{score.note[1:]}."] if interval(score) and score.note else []
    groups: dict[str, dict[str, Contrast | None]] = {}
    for other in column.order:
        if other != best:
            contrast = column.difference(best, other)
            groups.setdefault(outcome(contrast), {})[name(other)] = contrast
    return [*doubt, *(_group(each, groups[each]) for each in OPENINGS if each in groups)]


def _group(opening: str, contrasts: dict[str, Contrast | None]) -> str:
    """Return a sentence of the rows of one outcome; a note that all of them share stands once, at its end."""
    notes = {contrast.note if contrast else "" for contrast in contrasts.values()}
    shared = notes.pop() if len(notes) == 1 else ""
    named = [_named(label, contrast, with_note=not shared) for label, contrast in contrasts.items()]
    return f"{OPENINGS[opening]} {listed(named)}{f': {shared}' if shared else ''}."


OPENINGS = {
    "tied": "No significant difference from",
    "above": "Significantly higher than",
    "below": "Significantly lower than",
    "unknown": "No interval, so no order, with",
    "none": "Not compared with",
}


def outcome(contrast: Contrast | None) -> str:
    """Return what a difference says, as a key of OPENINGS."""
    if contrast is None:
        return "none"
    return {1: "above", -1: "below", 0: "tied", None: "unknown"}[contrast.sign]


def _named(label: str, contrast: Contrast | None, with_note: bool) -> str:
    if contrast is None:
        return label
    more = p_value(contrast.p) if not math.isnan(contrast.p) else contrast.note if with_note else ""
    return f"{label} ({text(contrast)}{f', {more}' if more else ''})"


def against(contrast: Contrast | None) -> str:
    """Return what a paired difference from a control says, in a few words."""
    if contrast is None:
        return "not compared"
    said = {
        1: "significantly higher",
        -1: "flagged: significantly lower",
        0: "flagged: no significant difference",
        None: "not established",
    }
    return f"{said[contrast.sign]}, {text(contrast)}"


def finding(column: Column, name: Name) -> str:
    """Return a figure's title: its finding in a line."""
    best = column.best
    if best is None:
        return "No score is defined"
    rivals = [other for other in column.candidates if other != best]
    if not rivals:
        return f"{name(best)}: the only backbone that was scored, controls apart"
    outcomes = [outcome(column.difference(best, other)) for other in rivals]
    if set(outcomes) == {"above"}:
        return f"{name(best)} scores significantly higher than all others"
    if set(outcomes) <= {"unknown", "none"}:
        return f"{name(best)} has the highest score; no order is claimed"
    n = len(rivals) - outcomes.count("above")
    return f"{name(best)} has the highest score; not significantly higher than {n} of {len(rivals)} others"
