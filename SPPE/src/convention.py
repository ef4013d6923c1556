"""300-W (iBUG) and LaPa draw the same lids, lips and jaw, but put their points at other places along them.

Where the points lie, as fractions of the arc length from corner to corner (LaPa: two annotated faces and their mirror
images; 300-W: means over the frontal faces of its training parts):

                                    LaPa            300-W
    lids, from the outer corner     .24 .50 .75     .32 (.49) .66
    upper lip, from corner to middle     .37 .78         .40 .76
    lower lip                       .31 .63         .43 .77
    inner lip                       .40             .70
    jaw                             begins 10 % of the eye distance higher at the ears, then even steps in both

A point of one scheme is a spline through the other's at a fixed place, so both directions are fixed matrices whose rows
sum to 1: they hold in every frame. Brows, nose and pupils are taken as the same.
"""

import numpy as np
from scipy.interpolate import CubicSpline

NUM_POINTS = 106

_LID = (0, 0.24, 0.50, 0.75, 1), (0, 0.32, 0.49, 0.66, 1)

# How much longer LaPa's half of the jaw is, as a fraction of 300-W's: 10 % of the eye distance.
_EAR_GAIN = 0.059


def _lip(lapa: tuple[float, ...], ibug: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Places on the left half, corner and middle left out -> on the whole lip, 0 .. 2."""

    def whole(half: tuple[float, ...]) -> tuple[float, ...]:
        return (0, *half, 1, *(2 - place for place in half[::-1]), 2)

    return whole(lapa), whole(ibug)


# Chains of points: (indices, places in LaPa, places in 300-W). The jaw's are counted in steps of its 33 points.
_CHAINS = (
    ((66, 67, 68, 69, 70), *_LID),
    ((66, 73, 72, 71, 70), *_LID),
    ((79, 78, 77, 76, 75), *_LID),
    ((79, 80, 81, 82, 75), *_LID),
    ((84, 85, 86, 87, 88, 89, 90), *_lip((0.37, 0.78), (0.40, 0.76))),
    ((84, 95, 94, 93, 92, 91, 90), *_lip((0.31, 0.63), (0.43, 0.77))),
    ((96, 97, 98, 99, 100), *_lip((0.40,), (0.70,))),
    ((96, 103, 102, 101, 100), *_lip((0.40,), (0.70,))),
    (tuple(range(33)), tuple((1 + _EAR_GAIN) * np.arange(-16, 17)), tuple(np.arange(-16.0, 17))),
)


def _matrix(source: int, target: int) -> np.ndarray:
    """(106, 106): points of one scheme from the other's; source and target say which of a chain's places to take."""
    matrix = np.eye(NUM_POINTS)
    for indices, *places in _CHAINS:
        knots, wanted = np.asarray(places[source]), np.asarray(places[target])
        rows = CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(wanted.clip(knots[0], knots[-1]))
        # beyond the ends: straight on, along the last three steps, which wander less than one
        before, after = wanted < knots[0], wanted > knots[-1]
        first, last = np.eye(len(knots))[[0, 3]], np.eye(len(knots))[[-1, -4]]
        rows[before] += np.outer((knots[0] - wanted[before]) / (knots[3] - knots[0]), first[0] - first[1])
        rows[after] += np.outer((wanted[after] - knots[-1]) / (knots[-1] - knots[-4]), last[0] - last[1])
        matrix[np.ix_(indices, indices)] = rows
    return matrix


# LAPA_FROM_IBUG @ points: points (106, 2) in LaPa's order but 300-W's places -> LaPa's places. IBUG_FROM_LAPA: back.
LAPA_FROM_IBUG = _matrix(source=1, target=0)
IBUG_FROM_LAPA = _matrix(source=0, target=1)
