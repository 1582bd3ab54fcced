"""ROC and precision-recall curves of one class, point by point, and the few of their points that a drawing needs."""

import heapq

import numpy as np

STRAIGHT = 1e-12  # the turn between two steps that is none


def roc(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the ROC curve [k, 2], a point a distinct score from (0, 0) to (1, 1): 1 - specificity, sensitivity.

    scores: [n]. targets: [n], 1 or 0; any other value is left out. Empty without positives or without negatives. The
    area under the straight lines between the points is AUROC.
    """
    hits, alarms = _counts(scores, targets)
    if not hits[-1] or not alarms[-1]:
        return np.empty((0, 2))
    return np.column_stack([alarms / alarms[-1], hits / hits[-1]])


def precision_recall(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the precision-recall curve [k, 2], of steps: recall, precision; empty without positives.

    Each distinct score gives two points, its precision from the recall before to its own. So the area under it is
    AUPRC: average precision, which does not interpolate.
    """
    hits, alarms = _counts(scores, targets)
    if not hits[-1]:
        return np.empty((0, 2))
    recall, precision = hits / hits[-1], hits[1:] / (hits[1:] + alarms[1:])
    return np.column_stack([np.column_stack([recall[:-1], recall[1:]]).ravel(), precision.repeat(2)])


def _counts(scores: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many positives and negatives score at least each distinct score, highest first; 0 before them."""
    known = (targets == 0) | (targets == 1)
    scores, positive = scores[known], targets[known] == 1
    order = np.argsort(-scores, kind="stable")
    scores, positive = scores[order], positive[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, int)
    hits = np.cumsum(positive)[last] if len(scores) else last
    return np.append(0, hits), np.append(0, last + 1 - hits)


def thinned(points: np.ndarray, most: int) -> np.ndarray:
    """Return those of points [n, 2] that a drawing of their line needs, at most `most`.

    What repeats the point before it or lies on a straight line between its neighbours is not needed. Where that leaves
    too many, the point farthest off the line is added to it again and again (Ramer 1972, Douglas and Peucker 1973).
    """
    points = points[_moves(points)]
    points = points[_bends(points)]
    if len(points) <= most:
        return points
    kept = {0, len(points) - 1}
    waiting: list[tuple[float, int, int, int]] = []

    def split(start: int, stop: int) -> None:
        if stop - start > 1:
            far = _distances(points[start : stop + 1])
            heapq.heappush(waiting, (-float(far.max()), start, start + int(far.argmax()), stop))

    split(0, len(points) - 1)
    while waiting and len(kept) < most:
        _, start, at, stop = heapq.heappop(waiting)
        kept.add(at)
        split(start, at)
        split(at, stop)
    return points[sorted(kept)]


def _moves(points: np.ndarray) -> np.ndarray:
    """Return which of points [n, 2] differ from the one before, bool [n]: a repeat has no direction to turn from."""
    moves = np.ones(len(points), bool)
    moves[1:] = (points[1:] != points[:-1]).any(axis=1)
    return moves


def _bends(points: np.ndarray) -> np.ndarray:
    """Return where a line through points [n, 2] changes its direction, and its ends, bool [n]."""
    bends = np.ones(len(points), bool)
    if len(points) > 2:
        before, after = points[1:-1] - points[:-2], points[2:] - points[1:-1]
        turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
        bends[1:-1] = (np.abs(turn) > STRAIGHT) | ((before * after).sum(1) < 0)
    return bends


def _distances(points: np.ndarray) -> np.ndarray:
    """Return how far each point lies from the line between the first and the last."""
    from_first, way = points - points[0], points[-1] - points[0]
    length = np.hypot(*way)
    apart = from_first
    if length != 0:
        along = np.clip(from_first @ way / length**2, 0, 1)
        apart = from_first - along[:, None] * way
    distances: np.ndarray = np.hypot(*apart.T)
    return distances
