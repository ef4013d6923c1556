"""Pose NMS on faces found twice, faces that touch, and any number of points; result files."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pPose_nms import pose_nms, write_results
from predictor import Face
from SPPE.src.landmarks import IBUG68
from tiny import face_shape
from utils.dataset.w300 import read_pts


def face_points(x, y, size):
    """A face of that width (106, 2) about (x, y)."""
    return face_shape() * size / 2 + (x, y)


def detections(*faces, noise=0.0, seed=0):
    """(centre x, centre y, size) of each face -> boxes, box scores, points, scores as the networks would give them."""
    rng = np.random.default_rng(seed)
    points = np.stack([face_points(x, y, size) for x, y, size in faces]).astype(np.float32)
    sizes = np.array([size for *_, size in faces], np.float32)
    points += rng.normal(0, noise, points.shape) * sizes[:, None, None]
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
    scores = rng.uniform(0.6, 0.9, points.shape[:2]).astype(np.float32)
    return boxes, rng.uniform(0.5, 1, len(faces)).astype(np.float32), points, scores


@pytest.mark.parametrize("size", [12, 40, 200, 2000])
def test_a_face_found_twice_is_one(size):
    """At any size: two detections differ by 1 % of the face a point."""
    index, points, scores, pose_scores = pose_nms(*detections((900, 900, size), (900, 900, size), noise=0.01))
    assert len(index) == len(points) == len(scores) == len(pose_scores) == 1


@pytest.mark.parametrize("size", [12, 40, 200, 2000])
def test_faces_that_touch_stay_two(size):
    index, *_ = pose_nms(*detections((900, 900, size), (900 + 0.8 * size, 900, size)))
    assert len(index) == 2
    index, *_ = pose_nms(*detections((900, 900, size), (900 + 0.3 * size, 900 + 0.2 * size, size)))
    assert len(index) == 2


def test_a_child_before_an_adult_stays():
    """A small face inside the box of a large one."""
    index, *_ = pose_nms(*detections((200, 200, 200), (200, 230, 70)))
    assert len(index) == 2


def test_order_of_detections_does_not_matter():
    boxes, box_scores, points, scores = detections((100, 100, 80), (101, 100, 80), (300, 100, 80), noise=0.005)
    one = pose_nms(boxes, box_scores, points, scores)
    order = np.array([2, 0, 1])
    other = pose_nms(boxes[order], box_scores[order], points[order], scores[order])
    assert len(one[0]) == 2
    assert other[1] == pytest.approx(one[1], abs=1e-3)


def test_merged_points_are_nearer_the_truth_than_either():
    truth = face_points(500, 500, 300)
    boxes, box_scores, points, scores = detections((500, 500, 300), (500, 500, 300), noise=0.008)
    _, merged, _, _ = pose_nms(boxes, box_scores, points, scores)
    errors = np.linalg.norm(points - truth, axis=-1).mean(1)
    assert np.linalg.norm(merged[0] - truth, axis=-1).mean() < 0.9 * errors.min()


def test_a_pose_nobody_believes_is_dropped():
    boxes, box_scores, points, scores = detections((100, 100, 80))
    assert len(pose_nms(boxes, box_scores, points, 0.1 * scores)[0]) == 0


def test_nothing_in_nothing_out():
    index, points, scores, pose_scores = pose_nms(
        np.zeros((0, 4)), np.zeros(0), np.zeros((0, 106, 2)), np.zeros((0, 106))
    )
    assert len(index) == 0 and points.shape == (0, 106, 2) and scores.shape == (0, 106) and pose_scores.shape == (0,)


def test_seventeen_joints_behave_as_alphapose_tuned_them():
    """A person of 246 px: 5 joints within 7 px match, 4 do not (the rest far apart, so that only the count decides)."""
    rng = np.random.default_rng(0)
    pose = rng.uniform(0, 246, (17, 2)).astype(np.float32)
    boxes = np.tile(np.array([0, 0, 246, 246], np.float32), (2, 1))
    for near, expected in ((4, 2), (5, 1)):
        other = pose + 80
        other[:near] = pose[:near] + 4
        index, *_ = pose_nms(boxes, np.ones(2), np.stack([pose, other]), np.full((2, 17), 0.9, np.float32))
        assert len(index) == expected


def a_face(seed=0):
    points = face_points(100, 100, 80).astype(np.float32)
    confidence = np.random.default_rng(seed).uniform(0.5, 1, 106).astype(np.float32)
    return Face(np.array([60, 60, 140, 140], np.float32), 0.9, points, confidence, 2.5, np.zeros(106, bool))


def test_alphapose_results(tmp_path):
    face = a_face()
    write_results({"a/b.jpg": [face, face], "没有脸.png": []}, tmp_path)
    content = json.loads((tmp_path / "alphapose-results.json").read_text())
    assert [entry["image_id"] for entry in content] == ["a/b.jpg", "a/b.jpg"]
    assert set(content[0]) == {"image_id", "category_id", "keypoints", "score"}
    triples = np.array(content[0]["keypoints"]).reshape(106, 3)
    assert triples[:, :2] == pytest.approx(face.landmarks, abs=1e-3)
    assert triples[:, 2] == pytest.approx(face.confidence, abs=1e-3)


@pytest.mark.parametrize(("form", "key"), [("cmu", "bodies"), ("open", "people")])
def test_cmu_and_open_results(tmp_path, form, key):
    face = a_face()
    write_results({"x.jpg": [face], "y.jpg": []}, tmp_path, form)
    content = json.loads((tmp_path / "alphapose-results.json").read_text())
    assert content["y.jpg"][key] == []
    openpose = np.array(content["x.jpg"][key][0]["face_keypoints_2d"]).reshape(70, 3)
    assert openpose[:68, :2] == pytest.approx(face.to_68(), abs=1e-3)
    assert openpose[:68, 2] == pytest.approx(face.confidence[list(IBUG68)], abs=1e-3)
    assert openpose[68:, :2] == pytest.approx(face.landmarks[[104, 105]], abs=1e-3)
    assert json.loads((tmp_path / "sep-json" / "x.json").read_text()) == content["x.jpg"]
    assert not list(tmp_path.rglob("*.tmp"))


def test_pictures_that_differ_in_their_extension_only_have_files_of_their_own(tmp_path):
    names = ("a.png.jpg", "a.jpg", "a.png", "b/a.png")
    write_results({name: [a_face()] for name in names}, tmp_path, "open")
    write_results({name: [a_face(), a_face()] for name in names}, tmp_path, "pts")
    folder = tmp_path / "sep-json"
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json"))
    assert written == ["a.json", "a.png-2.json", "a.png.json", "b/a.json"]
    assert len(list((tmp_path / "pts").rglob("*.pts"))) == 8


def test_a_second_face_does_not_take_another_pictures_name(tmp_path):
    one, other = a_face(), replace(a_face(), landmarks=a_face().landmarks + 50)
    write_results({"a.jpg": [one, one], "a_1.jpg": [other]}, tmp_path, "pts")
    assert {path.name for path in (tmp_path / "pts").iterdir()} == {"a.pts", "a_1.pts", "a.jpg_1.pts"}
    assert read_pts(tmp_path / "pts" / "a_1.pts", (106,)) == pytest.approx(other.landmarks, abs=2e-3)


@pytest.mark.parametrize(("form", "folder"), [("pts", "pts"), ("open", "sep-json")])
def test_files_of_an_earlier_run_are_told(tmp_path, form, folder):
    write_results({"a.jpg": [a_face()], "b.jpg": [a_face()]}, tmp_path, form)
    with pytest.warns(UserWarning, match=rf"{folder} holds 1 files that are not of this run, b\."):
        write_results({"a.jpg": [a_face()]}, tmp_path, form)


def test_unknown_format_names_the_choices(tmp_path):
    with pytest.raises(ValueError, match=r"'xml'.*alphapose, cmu, open"):
        write_results({}, tmp_path, "xml")
    assert not list(tmp_path.iterdir())
