"""What a point's score means: its expected error, by a table that tools/calibrate.py learnt on validation faces.

A score is the height of a heatmap's peak. Higher is better, but by how much differs between points and networks. The
table, `meta["confidence"]` of a weights file, tells for groups of points the mean error at each score:

    {"all": [[scores], [errors]], "contour": [[scores], [errors]], ...}

Keys are parts of `landmarks.PARTS`, and "all" for the other points; scores rise, errors never rise with them; errors
are in % of the face's size, the square root of its box's area: known without any landmark. As a rule of thumb the outer
eye corners of a face seen from the front are 0.55 of that size apart, so 2 % of the size is 3.6 % of the eye distance.
"""

import numpy as np

from ..landmarks import NUM_POINTS, PARTS

# The expected error, in % of the face's size, at which the confidence is one half. A face whose points are off by so
# much on average has failed by the usual bar (10 % of the distance of the outer eye corners, 0.55 of the size).
HALF_AT = 5.5


def face_score(box_scores: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """How sure both networks are of a face: box_scores (N,) of the detector, peaks (N, K) of the heatmaps -> (N,).

    The heatmaps over a medal or a hand stay low. doc/detector.md has what this measures.
    """
    return np.sqrt(box_scores) * peaks.mean(axis=1)


def check_table(table: dict) -> dict:
    """The table itself.

    Raises:
        ValueError: it is not such a table; says what is wrong.
    """
    if not isinstance(table, dict) or "all" not in table:
        raise ValueError('a confidence table has an entry "all"; make it with tools/calibrate.py')
    for group, knots in table.items():
        if group != "all" and group not in PARTS:
            raise ValueError(f"confidence table: no part {group!r}; parts are {', '.join(PARTS)}")
        try:
            knots = np.array(knots, dtype=float)
        except (ValueError, TypeError):
            knots = np.zeros(0)
        if knots.ndim != 2 or knots.shape[0] != 2 or not knots.size or not np.isfinite(knots).all():
            raise ValueError(f"confidence table: {group} is not two lists of numbers of one length")
        if (np.diff(knots[0]) <= 0).any() or (np.diff(knots[1]) > 0).any():
            raise ValueError(f"confidence table: {group} needs rising scores and errors that do not rise")
    return table


def expected_error(scores: np.ndarray, table: dict) -> np.ndarray:
    """Scores (..., K) as `Estimator` gives them -> expected errors (..., K), in % of the face's size (root of the box).

    A score beyond the table's ends has the error of that end. With K other than 106 all points are read by "all".
    """
    scores = np.asarray(scores, np.float64)
    errors = np.interp(scores, *table["all"])
    if scores.shape[-1] == NUM_POINTS:
        for part, members in PARTS.items():
            if part in table:
                errors[..., list(members)] = np.interp(scores[..., list(members)], *table[part])
    return errors.astype(np.float32)


def confidence_of(errors: np.ndarray) -> np.ndarray:
    """Expected errors, in % of the face's size -> confidences in 0 .. 1: 2 ** (-error / HALF_AT).

    1 is a point without error, 0.9 one that is expected 0.8 % of the face's size off, 0.5 one that is 5.5 % off.
    """
    return np.exp2(-np.asarray(errors) / HALF_AT)


def confidence(scores: np.ndarray, table: dict) -> np.ndarray:
    """Scores (..., K) -> confidences (..., K) in 0 .. 1, `confidence_of` their expected errors."""
    return confidence_of(expected_error(scores, table))


def error_of(confidences: np.ndarray) -> np.ndarray:
    """Confidences in 0 .. 1 -> the expected errors again, in % of the face's size; that of 0 is infinite."""
    with np.errstate(divide="ignore"):
        return -HALF_AT * np.log2(np.asarray(confidences))
