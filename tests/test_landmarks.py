"""The schema of the 106 points: permutations, parts, and the geometry of a real face."""

import numpy as np
import pytest

from SPPE.src import landmarks as lm
from SPPE.src.utils.pose import mirror_points


def test_parts_cover_every_point_once():
    assert sorted(i for part in lm.PARTS.values() for i in part) == list(range(106))
    assert set(lm.PARTS) == set(lm.LINES) == set(lm.COLOURS)
    assert len(set(lm.NAMES)) == 106


def test_flip_pairs_and_axis_cover_every_point_once():
    assert sorted([i for pair in lm.FLIP_PAIRS for i in pair] + list(lm.ON_AXIS)) == list(range(106))
    assert [lm.FLIP_ORDER[i] for i in lm.FLIP_ORDER] == list(range(106))


def test_a_mirror_swaps_left_and_right_parts():
    for left, right in (("left_brow", "right_brow"), ("left_eye", "right_eye")):
        assert {lm.FLIP_ORDER[i] for i in lm.PARTS[left]} == set(lm.PARTS[right])
    for part in ("contour", "nose", "outer_lip", "inner_lip", "pupils"):
        assert {lm.FLIP_ORDER[i] for i in lm.PARTS[part]} == set(lm.PARTS[part])


def test_lines_stay_inside_their_part_and_mirror_onto_lines():
    every = {frozenset(line) for lines in lm.LINES.values() for line in lines}
    for part, lines in lm.LINES.items():
        assert {i for line in lines for i in line} <= set(lm.PARTS[part])
    assert {frozenset(lm.FLIP_ORDER[i] for i in line) for line in every} == every


def test_maps_are_permutations_or_subsets():
    assert len(lm.IBUG68) == len(set(lm.IBUG68)) == 68
    assert sorted(lm.INSIGHTFACE) == list(range(106))
    sources = [*lm.TAUGHT_BY_LABEL, *lm.TAUGHT_BY_GEOMETRY, *lm.TAUGHT_BY_TEACHER]
    assert sorted(sources) == list(range(106))


def test_insightface_order_carries_each_point():
    points = np.arange(212.0).reshape(106, 2)
    there = lm.to_insightface(points)
    assert all((there[lm.INSIGHTFACE[i]] == points[i]).all() for i in range(106))


def test_68_subset_mirrors_as_ibug_does():
    """iBUG's own mirror: jaw k <-> 16 - k, and the eye corners 36 <-> 45, mouth corners 48 <-> 54."""
    position = {index: k for k, index in enumerate(lm.IBUG68)}
    mirrored = {k: position[lm.FLIP_ORDER[index]] for k, index in enumerate(lm.IBUG68)}
    assert all(mirrored[k] == 16 - k for k in range(17))
    assert (mirrored[36], mirrored[39], mirrored[48], mirrored[60], mirrored[31], mirrored[17]) == (
        45,
        42,
        54,
        64,
        35,
        26,
    )


def test_mirroring_twice_changes_nothing():
    points = np.random.default_rng(0).uniform(0, 128, (3, 106, 2))
    assert mirror_points(mirror_points(points, 128), 128) == pytest.approx(points)


def mean_face():
    return np.array(lm.MEAN_FACE, float) / 1000


def test_mean_face_has_the_anatomy_its_names_say():
    """Order along x or y of points that the picture in doc/ defines, on the mean of real faces."""
    x, y = mean_face().T
    assert (x[66], y[66], x[79], y[79]) == (-0.5, 0, 0.5, 0)  # the outer eye corners are its unit
    assert (np.diff(x[[0, 33, 66, 70, 51, 75, 79, 46, 32]]) > 0).all()
    assert (np.diff(y[[35, 40, 68, 74, 72, 53, 60, 87, 98, 102, 93, 16]]) > 0).all()  # down the face
    for brow in ("left_brow", "right_brow"):
        upper, lower = np.split(y[list(lm.PARTS[brow])], [5])
        assert upper.mean() < lower.mean()
    assert (np.diff(y[list(range(17))]) > 0).all() and y.argmax() == 16
    assert (np.diff(y[[55, 56, 57]]) > 0).all() and (np.diff(y[[63, 64, 65]]) < 0).all()


def test_mean_face_is_its_own_mirror_image():
    face = mean_face()
    assert face[list(lm.FLIP_ORDER)] * (-1, 1) == pytest.approx(face)


def test_lines_join_neighbours():
    """No line of the drawing is longer than half the distance between the eyes' outer corners."""
    face = mean_face()
    for lines in lm.LINES.values():
        for a, b in lines:
            assert np.linalg.norm(face[a] - face[b]) < 0.5


def test_insightface_has_the_68_points_where_its_users_take_them():
    """The map from 2d106 to iBUG's 68 that public programs share: contour, brows, nose, eyes, mouth."""
    users = (
        *(1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17),
        *(43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
        *(72, 73, 74, 86, 78, 79, 80, 85, 84),
        *(35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90),
        *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55, 65, 66, 62, 70, 69, 57, 60, 54),
    )
    assert tuple(lm.INSIGHTFACE[i] for i in lm.IBUG68) == users


def test_insightface_flips_as_its_own_pairs_do():
    """Facts of InsightFace's 2d106 order: 0 is the chin, 1 and 17 the ears, 33-42 one eye, 87-96 the other."""
    position = {value: index for index, value in enumerate(lm.INSIGHTFACE)}
    assert position[0] == 16 and {position[1], position[17]} == {0, 32}
    assert {position[i] for i in range(33, 43)} == {*lm.PARTS["left_eye"], 104}
    assert {position[i] for i in range(87, 97)} == {*lm.PARTS["right_eye"], 105}
    assert {position[i] for i in range(52, 72)} == {*lm.PARTS["outer_lip"], *lm.PARTS["inner_lip"]}
    assert {position[i] for i in range(72, 87)} == set(lm.PARTS["nose"])
