"""complete106: invariants of the geometry and of the teacher's alignment; no MediaPipe, no picture needed."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
sys.path.append(str(ROOT / "train_sppe" / "src" / "tools"))
import complete106 as c106

from SPPE.src.landmarks import FLIP_ORDER, IBUG68, TAUGHT_BY_GEOMETRY, TAUGHT_BY_LABEL, TAUGHT_BY_TEACHER

WIDTH = 256
INSIDE = np.random.default_rng(0).uniform(60, 200, (c106.MESH_VERTICES, 2))


def face68(seed=0):
    """A plausible 68-point face, (68, 2): the random mesh's points, but an ellipse for the jaw and almond eyes."""
    points = np.random.default_rng(seed).uniform(90, 160, (106, 2))
    angles = np.linspace(0, np.pi, 33)
    points[:33] = 128 - 80 * np.cos(angles)[:, None] * [1, 0] + [0, 110] * np.sin(angles)[:, None] + [0, 90]
    for ring, centre in zip(c106.EYE_RINGS.values(), ((95, 100), (160, 100))):
        turn = np.arange(8) * np.pi / 4
        points[list(ring)] = np.stack([-14 * np.cos(turn), -6 * np.sin(turn)], axis=1) + centre
    return points[list(IBUG68)]


def flip68(points):
    """Mirror (68, 2) points through the 106's own flip order."""
    full = np.full((106, 2), np.nan)
    full[list(IBUG68)] = points
    return c106.flip_points(full, WIDTH)[list(IBUG68)]


class MirrorFairTeacher:
    """Stands for the mesh: fixed vertices, mirrored and renumbered for a picture whose corner is dark."""

    def __call__(self, image, margin=0.0, degrees=0.0):
        if image[0, 0, 0]:
            return INSIDE
        mirrored = INSIDE.copy()
        swap = {**c106.MESH_MIRROR, **{b: a for a, b in c106.MESH_MIRROR.items()}}
        for vertex in range(c106.MESH_VERTICES):
            mirrored[vertex] = INSIDE[swap.get(vertex, vertex)]
        mirrored[:, 0] = WIDTH - 1 - mirrored[:, 0]
        return mirrored


def picture():
    image = np.zeros((WIDTH, WIDTH, 3), np.uint8)
    image[0, 0] = 255  # tells the picture from its mirror image
    return image


def test_every_point_has_one_origin():
    assert sorted((*TAUGHT_BY_LABEL, *TAUGHT_BY_GEOMETRY, *TAUGHT_BY_TEACHER)) == list(range(106))
    _, sources = c106.complete_by_geometry(face68())
    assert set(np.flatnonzero(sources == c106.LABEL)) == set(TAUGHT_BY_LABEL)
    assert set(np.flatnonzero(sources == c106.GEOMETRY)) == set(TAUGHT_BY_GEOMETRY)


def test_labels_are_copied():
    points, _ = c106.complete_by_geometry(face68())
    np.testing.assert_array_equal(points[list(IBUG68)], face68())


def test_curve_lies_on_an_ellipse():
    angles = np.linspace(0, np.pi, 17)
    knots = np.stack([80 * np.cos(angles), 110 * np.sin(angles)], axis=1)
    middles = c106.curve_midpoints(knots)
    radius = np.hypot(middles[:, 0] / 80, middles[:, 1] / 110)
    assert np.abs(radius[1:-1] - 1).max() < 2e-3  # the two end segments have one neighbour only
    assert np.abs(radius - 1).max() < 1e-2
    gaps = np.linalg.norm(middles - knots[:-1], axis=1), np.linalg.norm(middles - knots[1:], axis=1)
    np.testing.assert_allclose(gaps[0], gaps[1], rtol=0.03)


def test_coinciding_knots_stay_finite():
    assert np.isfinite(c106.curve_midpoints(np.zeros((5, 2)))).all()


def test_geometry_commutes_with_flip():
    points, _ = c106.complete_by_geometry(face68())
    flipped, _ = c106.complete_by_geometry(flip68(face68()))
    np.testing.assert_allclose(flipped, c106.flip_points(points, WIDTH), atol=1e-9)


def test_mesh_mixtures_are_means():
    np.testing.assert_allclose(c106.MESH_WEIGHTS[c106.MESH_GIVES].sum(axis=1), 1)
    assert all(c106.MESH_GIVES[i] for i in TAUGHT_BY_TEACHER if i not in c106.EYE_CENTRES.values())
    assert (c106.MESH_GIVES[list(FLIP_ORDER)] == c106.MESH_GIVES).all()


def test_align_undoes_a_similarity():
    fixed = np.random.default_rng(1).normal(size=(20, 2))
    turn = 1.7 * np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    using = np.arange(20) < 6
    np.testing.assert_allclose(c106.align(fixed @ turn.T + [5, -3], fixed, using), fixed, atol=1e-9)


def test_complete_commutes_with_flip(monkeypatch):
    monkeypatch.setattr(c106, "MAX_OFFSET", np.inf)
    monkeypatch.setattr(c106, "MAX_RESIDUAL", np.inf)
    points, sources, _ = c106.complete(face68(), picture(), MirrorFairTeacher())
    flipped, flipped_sources, _ = c106.complete(flip68(face68()), picture()[:, ::-1], MirrorFairTeacher())
    np.testing.assert_allclose(flipped, c106.flip_points(points, WIDTH), atol=1e-6)
    np.testing.assert_array_equal(flipped_sources, sources[list(FLIP_ORDER)])
    assert (sources > c106.NONE).all()


def test_poor_fit_is_not_invented(monkeypatch):
    monkeypatch.setattr(c106, "MAX_OFFSET", np.inf)
    points, sources, residual = c106.complete(face68(), picture(), MirrorFairTeacher())
    assert residual > c106.MAX_RESIDUAL
    assert set(np.flatnonzero(sources == c106.NONE)) == set(TAUGHT_BY_TEACHER)
    assert (points[sources == c106.NONE] == 0).all()


def test_no_face_is_not_invented():
    def blind(image, margin=0.0, degrees=0.0):
        return np.empty((0, 2))

    _, sources, residual = c106.complete(face68(), picture(), blind)
    assert residual == float("inf")
    assert (sources == c106.NONE).sum() == len(TAUGHT_BY_TEACHER)


@pytest.mark.parametrize("point, expected", [((1, 1), (1, 1)), ((5, 1), (2, 1)), ((-1, -1), (0, 0))])
def test_clamp_into(point, expected):
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], dtype=float)
    np.testing.assert_allclose(c106.clamp_into(np.array(point, dtype=float), square), expected)


def test_wrong_columns_name_file_and_remedy(tmp_path):
    path = tmp_path / "wrong.csv"
    path.write_text("image,source,x0,y0\n")
    with pytest.raises(SystemExit, match=r"wrong\.csv.*--csv"):
        list(c106.read_rows(path))
