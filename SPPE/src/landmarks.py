"""The 106 facial landmarks as data: names, parts, flip pairs, drawing lines and maps to other schemes.

The order is LaPa's (Liu et al., "A New Dataset and Boundary-Attention Semantic Segmentation for Face Parsing",
AAAI 2020), which is also that of the JD 106-point challenge. "L" and "left" mean the left of the *picture*.
The schema is plain tuples, so that it can be read, tested and exported without torch.
"""

from itertools import pairwise

import numpy as np

from .convention import IBUG_FROM_LAPA, NUM_POINTS

# Parts in drawing order: name -> indices along the part.
PARTS = {
    "contour": tuple(range(0, 33)),
    "left_brow": tuple(range(33, 42)),
    "right_brow": tuple(range(42, 51)),
    "nose": tuple(range(51, 66)),
    "left_eye": tuple(range(66, 75)),
    "right_eye": tuple(range(75, 84)),
    "outer_lip": tuple(range(84, 96)),
    "inner_lip": tuple(range(96, 104)),
    "pupils": (104, 105),
}

# Points that stay themselves in a mirror.
ON_AXIS = (16, 51, 52, 53, 54, 60, 87, 93, 98, 102)

# (point, its mirror image), each pair once.
FLIP_PAIRS = (
    *((i, 32 - i) for i in range(16)),
    *((33, 46), (34, 45), (35, 44), (36, 43), (37, 42), (38, 50), (39, 49), (40, 48), (41, 47)),
    *((55, 65), (56, 64), (57, 63), (58, 62), (59, 61)),
    *((66, 79), (67, 78), (68, 77), (69, 76), (70, 75), (71, 82), (72, 81), (73, 80), (74, 83)),
    *((84, 90), (85, 89), (86, 88), (91, 95), (92, 94)),
    *((96, 100), (97, 99), (101, 103)),
    (104, 105),
)


def _permutation(pairs: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    order = list(range(NUM_POINTS))
    for a, b in pairs:
        order[a], order[b] = b, a
    return tuple(order)


# mirrored_points = points[FLIP_ORDER] after x has been mirrored; its own inverse.
FLIP_ORDER = _permutation(FLIP_PAIRS)


def _open(*indices: int) -> tuple[tuple[int, int], ...]:
    return tuple(pairwise(indices))


def _closed(*indices: int) -> tuple[tuple[int, int], ...]:
    return _open(*indices, indices[0])


# Part -> line segments (pairs of indices).
LINES = {
    "contour": _open(*range(0, 33)),
    "left_brow": _closed(*range(33, 42)),
    "right_brow": _closed(*range(42, 51)),
    "nose": (*_open(51, 52, 53, 54), *_open(51, *range(55, 66), 51)),
    "left_eye": _closed(*range(66, 74)),
    "right_eye": _closed(*range(75, 83)),
    "outer_lip": _closed(*range(84, 96)),
    "inner_lip": _closed(*range(96, 104)),
    "pupils": (),
}

# Part -> RGB colour, chosen to be told apart on skin of any tone and by most colour-blind readers (after Okabe & Ito).
COLOURS = {
    "contour": (86, 180, 233),
    "left_brow": (240, 228, 66),
    "right_brow": (230, 159, 0),
    "nose": (0, 200, 140),
    "left_eye": (255, 110, 180),
    "right_eye": (204, 121, 255),
    "outer_lip": (255, 80, 60),
    "inner_lip": (255, 170, 150),
    "pupils": (255, 255, 255),
}

PART_OF = tuple(next(part for part, members in PARTS.items() if i in members) for i in range(NUM_POINTS))

_SPECIAL_NAMES = {
    16: "chin",
    33: "left_brow_outer",
    42: "right_brow_inner",
    60: "nose_base_centre",
    66: "left_eye_outer",
    68: "left_eye_top",
    70: "left_eye_inner",
    72: "left_eye_bottom",
    74: "left_eye_centre",
    75: "right_eye_inner",
    77: "right_eye_top",
    79: "right_eye_outer",
    81: "right_eye_bottom",
    83: "right_eye_centre",
    84: "mouth_left_corner",
    87: "upper_lip_top",
    90: "mouth_right_corner",
    93: "lower_lip_bottom",
    96: "inner_lip_left",
    98: "inner_lip_top",
    100: "inner_lip_right",
    102: "inner_lip_bottom",
    104: "left_pupil",
    105: "right_pupil",
}

# One name a point: the anatomical one where there is one, else the part and the place in it.
NAMES = tuple(_SPECIAL_NAMES.get(i, f"{PART_OF[i]}_{PARTS[PART_OF[i]].index(i)}") for i in range(NUM_POINTS))

# iBUG 300-W 68: IBUG68[k] is the 106-index of 68-point k.
IBUG68 = (
    *range(0, 33, 2),
    *range(33, 38),
    *range(42, 47),
    *range(51, 55),
    *range(58, 63),
    *(66, 67, 69, 70, 71, 73),
    *(75, 76, 78, 79, 80, 82),
    *range(84, 104),
)

# InsightFace 2d106: INSIGHTFACE[i] is the InsightFace index of 106-point i. The 68 of iBUG are as that
# model's users take them; the other 38 were not checked against a live model.
INSIGHTFACE = (
    *(1, 9, 10, 11, 12, 13, 14, 15, 16, 2, 3, 4, 5, 6, 7, 8, 0),
    *(24, 23, 22, 21, 20, 19, 18, 32, 31, 30, 29, 28, 27, 26, 25, 17),
    *(43, 48, 49, 51, 50, 46, 47, 45, 44),
    *(102, 103, 104, 105, 101, 100, 99, 98, 97),
    *(72, 73, 74, 86, 75, 76, 77, 78, 79, 80, 85, 84, 83, 82, 81),
    *(35, 41, 40, 42, 39, 37, 33, 36, 38),
    *(89, 95, 94, 96, 93, 91, 87, 90, 92),
    *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55),
    *(65, 66, 62, 70, 69, 57, 60, 54),
    *(34, 88),
)

# Orders in which a file of 106 points may come, for readers: name -> source[i] is the file's index of 106-point i.
POINT_ORDERS = {"lapa": tuple(range(NUM_POINTS)), "insightface": INSIGHTFACE}

# What face measures are taken between (inter-ocular distance: outer eye corners, as 300-W's NME; and the pupils).
OUTER_EYES = (66, 79)
PUPILS = (104, 105)

# How the shipped weights learnt each point (see models/README.md): from hand labels of 300-W's 68 points, from
# geometry between such labels (a curve through their neighbours), or from a public face mesh model as teacher.
TAUGHT_BY_LABEL = tuple(sorted(IBUG68))
TAUGHT_BY_GEOMETRY = (*range(1, 33, 2), 68, 72, 77, 81)
TAUGHT_BY_TEACHER = tuple(i for i in range(NUM_POINTS) if i not in TAUGHT_BY_LABEL and i not in TAUGHT_BY_GEOMETRY)

# The mean of 254 frontal faces with closed mouths (and their mirror images), x right, y down, in thousandths of the
# distance between the outer eye corners; (0, 0) is midway between these.
# fmt: off
MEAN_FACE = (
    (-805, 21), (-797, 124), (-789, 230), (-775, 331), (-761, 435), (-748, 536), (-729, 634), (-698, 741), (-655,
    835), (-602, 923), (-534, 1012), (-460, 1084), (-379, 1154), (-295, 1212), (-203, 1262), (-104, 1292), (0, 1299),
    (104, 1292), (203, 1262), (295, 1212), (379, 1154), (460, 1084), (534, 1012), (602, 923), (655, 835), (698, 741),
    (729, 634), (748, 536), (761, 435), (775, 331), (789, 230), (797, 124), (805, 21), (-671, -138), (-568, -228),
    (-426, -256), (-284, -242), (-145, -191), (-157, -133), (-289, -157), (-425, -176), (-557, -158), (145, -191),
    (284, -242), (426, -256), (568, -228), (671, -138), (557, -158), (425, -176), (289, -157), (157, -133), (0, -28),
    (0, 118), (0, 262), (0, 409), (-130, 49), (-185, 298), (-240, 431), (-167, 480), (-86, 508), (0, 539), (86, 508),
    (167, 480), (240, 431), (185, 298), (130, 49), (-500, 0), (-412, -50), (-359, -56), (-307, -47), (-219, 18),
    (-314, 33), (-366, 36), (-418, 32), (-363, -12), (219, 18), (307, -47), (359, -56), (412, -50), (500, 0), (418,
    32), (366, 36), (314, 33), (363, -12), (-351, 706), (-226, 657), (-95, 642), (0, 662), (95, 642), (226, 657),
    (351, 706), (231, 861), (104, 926), (0, 938), (-104, 926), (-231, 861), (-304, 708), (-97, 704), (0, 715), (97,
    704), (304, 708), (98, 821), (0, 831), (-98, 821), (-363, -12), (363, -12),
)
# fmt: on


def to_68(points):
    """The iBUG 300-W points of 106 in LaPa's places: (..., 106, D) -> (..., 68, D), array or tensor, any frame.

    The schemes put lids, lips and jaw at other places of the same lines (`convention`): index by index they are 2.5 %
    of the eye distance apart, after this map 0.1 % (mean over 202 faces).
    """
    matrix = IBUG_FROM_LAPA[list(IBUG68)]
    return (matrix if isinstance(points, np.ndarray) else points.new_tensor(matrix)) @ points


def to_insightface(points):
    """Reorder (..., 106, D) from LaPa's order to InsightFace 2d106's, array or tensor, any frame."""
    inverse = sorted(range(NUM_POINTS), key=INSIGHTFACE.__getitem__)
    return points[..., inverse, :]


def align(moving, fixed, using):
    """Similarity (least squares) that takes moving[using] to fixed[using], applied to all of moving.

    moving, fixed: (N, 2), (x, y); using: (N,) bool. Returns (N, 2) in the frame of `fixed`.
    """
    z, w = (p[using] @ np.array([1, 1j]) for p in (moving, fixed))
    dz, dw = z - z.mean(), w - w.mean()
    turn = np.vdot(dz, dw) / np.vdot(dz, dz)  # scale * exp(i * angle)
    moved = (moving @ np.array([1, 1j]) - z.mean()) * turn + w.mean()
    return np.stack([moved.real, moved.imag], axis=1)
