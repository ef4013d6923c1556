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
