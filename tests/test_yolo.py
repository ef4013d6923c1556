"""The detector: letterbox, Darknet files and networks, boxes, NMS."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from yolo import util
from yolo.bbox import coverage_matrix, face_box, iou_matrix, xywh_to_xyxy, xyxy_to_xywh
from yolo.darknet import Darknet, parse_cfg
from yolo.detector import FACE_CFG, FACE_CONF, FACE_WEIGHTS, SECOND_LOOK_FROM, Detector
from yolo.preprocess import GREY, letterbox, to_input, unletterbox_boxes

CFG = Path(FACE_CFG).parent
EXAMPLES = CFG.parent.parent / "examples" / "imgs"
# Faces in a picture of examples/imgs; one where nothing is said. To the detector alone a medal may be one too.
FACES, MEDALS = {"group": 10}, {"grace_hopper": 1}
MAX_FILE = 8 * 2**20

TINY_CFG = """
[net]
width=64
height=64
channels=3
# a comment
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
groups=2
activation=leaky
[shortcut]
from=-2
activation=linear
[maxpool]
size=2
stride=2
[maxpool]
size=2
stride=1
[upsample]
stride=2
[route]
layers=-1, 0
[convolutional]
filters=14
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1
anchors=10,14, 23,27, 37,58
classes=2
num=3
"""


@pytest.fixture
def tiny_cfg(tmp_path):
    path = tmp_path / "tiny.cfg"
    path.write_text(TINY_CFG)
    return path


def randomised(net, seed=0):
    """Random values everywhere, running statistics included, so that nothing cancels out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in net.stored():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / max(1, tensor[0].numel()) ** 0.5)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.abs_().add_(0.5)
    return net.eval()


# --- letterbox ------------------------------------------------------------------------------------


@pytest.mark.parametrize("height, width", [(480, 640), (1333, 77), (1, 999), (513, 511), (31, 30)])
def test_letterbox_inverse_is_exact(height, width):
    rng = np.random.default_rng(height)
    corners = np.sort(rng.random((50, 2, 2)), axis=1) * (width, height)
    boxes = np.concatenate((corners.reshape(50, 4), rng.random((50, 1))), 1).astype(np.float32)
    square, transform = letterbox(np.zeros((height, width, 3), np.uint8), 416)
    assert square.shape == (416, 416, 3)
    assert square.dtype == np.uint8
    there = boxes.copy()
    there[:, 0:4:2] = boxes[:, 0:4:2] * transform.scale_x + transform.left
    there[:, 1:4:2] = boxes[:, 1:4:2] * transform.scale_y + transform.top
    assert there[:, :4].min() >= 0
    assert there[:, :4].max() <= 416
    back = unletterbox_boxes(there, transform)
    np.testing.assert_allclose(back, boxes, atol=2e-3 * max(1, max(height, width) / 416))


def test_letterbox_keeps_aspect_and_centres():
    square, transform = letterbox(np.full((300, 600, 3), 255, np.uint8), 512)
    inside = (square == 255).all(-1)
    rows, columns = np.nonzero(inside)
    assert (rows.min(), rows.max() + 1) == (128, 384)
    assert (columns.min(), columns.max() + 1) == (0, 512)
    assert (square[~inside] == GREY).all()
    assert transform.scale_x == pytest.approx(transform.scale_y)


def test_shrinking_keeps_the_light_of_small_things():
    image = np.zeros((3000, 3000, 3), np.uint8)
    image[1500:1506, 1500:1506] = 255
    square, transform = letterbox(image, 300)
    assert square.sum() / 255 / 3 == pytest.approx(36 * transform.scale_x**2, rel=0.1)


def test_a_picture_of_odd_sides_shrinks_to_where_its_letterbox_says():
    """15 pixels are cut away on the way from 4,015 to 250 pixels; at the far end that would be 0.9 of 250."""
    image = np.zeros((4015, 2007, 3), np.uint8)
    image[3900:3964, 1900:1964] = 255
    square, transform = letterbox(image, 250)
    light = np.where(square == GREY, 0, square)[..., 0]  # without the border
    y, x = (np.average(np.arange(250) + 0.5, weights=light.sum(axis)) for axis in (1, 0))
    back = unletterbox_boxes(np.array([[x, y, x, y, 1]]), transform)[0]
    np.testing.assert_allclose(back[:2], (1932, 3932), atol=1.5)


def test_boxes_are_cut_to_the_image_and_nothing_stays_nothing():
    _, transform = letterbox(np.zeros((100, 200, 3), np.uint8), 416)
    assert unletterbox_boxes(np.array([[-50, -50, 999, 999, 0.5]]), transform).tolist() == [[0, 0, 200, 100, 0.5]]
    assert unletterbox_boxes(np.zeros((0, 5)), transform).shape == (0, 5)


def test_an_empty_image_is_named():
    with pytest.raises(ValueError, match="0 × 5"):
        letterbox(np.zeros((5, 0, 3), np.uint8), 416)


def test_network_input():
    squares = [np.full((64, 64, 3), (0, 51, 255), np.uint8)] * 2
    x = to_input(squares)
    assert x.shape == (2, 3, 64, 64)
    assert x.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(x[1, :, 5, 5], torch.tensor([0.0, 0.2, 1.0]))


# --- boxes ----------------------------------------------------------------------------------------


def test_box_forms_are_inverse():
    boxes = torch.tensor([[1.0, 2, 5, 10, 0.3]])
    assert xyxy_to_xywh(boxes).tolist() == [[3, 6, 4, 8, pytest.approx(0.3)]]
    torch.testing.assert_close(xywh_to_xyxy(xyxy_to_xywh(boxes)), boxes)


def test_overlaps():
    a = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    b = torch.tensor([[0.0, 0, 10, 5], [5, 5, 15, 15]])
    torch.testing.assert_close(iou_matrix(a, b), torch.tensor([[0.5, 25 / 175], [0, 0]]))
    torch.testing.assert_close(coverage_matrix(a, b), torch.tensor([[0.5, 0.25], [0, 0]]))
    assert iou_matrix(a[:0], b).shape == (0, 2)


def test_face_box_adds_the_forehead():
    points = torch.tensor([[10.0, 20], [50, 60], [30, 120]])
    assert face_box(points).tolist() == pytest.approx([10, 20 - 0.333 * 100, 50, 120])


# --- Darknet --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, count", [("yolov3-spp", 63_052_381), ("yolov3", 62_001_757), ("yolov3-tiny", 8_858_734)]
)
def test_published_networks_have_the_published_size(name, count):
    with torch.device("meta"):
        net = Darknet(CFG / f"{name}.cfg")
    assert sum(tensor.numel() for tensor in net.stored()) == count
    assert (net.stride, net.classes) == (32, 80)


def test_published_tiny_weights_have_the_anchors_that_they_were_trained_with():
    """pjreddie/darknet, issue 851: 1,2,3, whatever was meant."""
    with torch.device("meta"):
        net = Darknet(CFG / "yolov3-tiny.cfg")
    pairs = [(10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319)]
    assert [head.anchors.tolist() for head in net.heads] == [[list(p) for p in pairs[i : i + 3]] for i in (3, 1)]


def test_forward_rows_and_columns(tiny_cfg):
    net = randomised(Darknet(tiny_cfg))
    raw = torch.zeros(1, 14, 3, 4)
    raw[0, 7 + 4] = torch.arange(12.0).view(3, 4)  # objectness of the second anchor
    rows = net.heads[0].decode(raw)
    assert rows.shape == (1, 24, 7)
    torch.testing.assert_close(rows[0, 1::2, 4], torch.arange(12.0).sigmoid())  # cells row by row, then anchors
    torch.testing.assert_close(rows[0, 2 * 6 + 1, :4], torch.tensor([2.5 * 2, 1.5 * 2, 23, 27]))  # cell x 2, y 1
    wide = net.heads[0]
    wide.reach = 1.2  # a centre may lie a tenth of a cell outside
    raw[0, 7] = 9.0
    edge = wide.decode(raw)[0, 2 * 6 + 1, 0].item()
    assert edge == pytest.approx((2 + 1.2 * torch.tensor(9.0).sigmoid().item() - 0.1) * 2, abs=1e-4)
    x = torch.rand(2, 3, 32, 64)
    assert net(x).shape == (2, 16 * 32 * 2, 7)
    with pytest.raises(ValueError, match="multiples of 4"):
        net(torch.rand(1, 3, 30, 30))


def test_pooling_of_size_2_and_stride_1_looks_right_and_down(tiny_cfg):
    pool = Darknet(tiny_cfg).layers[4]
    x = -torch.arange(9.0).view(1, 1, 3, 3) - 1
    assert torch.equal(pool(x), x)  # values fall, so the best of each window is its upper left cell
    assert torch.equal(pool(-x)[0, 0], torch.tensor([[5.0, 6, 6], [8, 9, 9], [8, 9, 9]]))


def test_fused_equals_unfused(tiny_cfg):
    net = randomised(Darknet(tiny_cfg))
    x = torch.rand(2, 3, 64, 64)
    before = net(x)
    torch.testing.assert_close(net.fuse()(x), before, atol=1e-4, rtol=1e-4)


def test_weights_survive_the_file(tiny_cfg, tmp_path):
    net = randomised(Darknet(tiny_cfg))
    net.seen = 123_456_789_012
    net.save_weights(tmp_path / "a.weights")
    again = Darknet(tiny_cfg).load_weights(tmp_path / "a.weights")
    assert again.seen == net.seen
    assert all(torch.equal(a, b) for a, b in zip(net.stored(), again.stored()))
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []
    with pytest.raises(RuntimeError, match="fused"):
        again.fuse().save_weights(tmp_path / "b.weights")


def test_file_order_is_bias_weight_mean_variance_kernel(tiny_cfg, tmp_path):
    net = Darknet(tiny_cfg)
    count = sum(tensor.numel() for tensor in net.stored())
    for header in (np.array([0, 1, 0, 7], np.int32), np.array([0, 2, 0, 7, 0], np.int32)):  # 16 and 20 bytes
        with (tmp_path / "n.weights").open("wb") as file:
            header.tofile(file)
            np.arange(count, dtype=np.float32).tofile(file)
        net.load_weights(tmp_path / "n.weights")
        first = net.layers[0]
        assert net.seen == 7
        assert [t.flatten()[0].item() for t in (first.norm.bias, first.norm.weight, first.norm.running_mean)] == [
            0,
            8,
            16,
        ]
        assert first.norm.running_var[0] == 24
        assert torch.equal(first.conv.weight.flatten(), torch.arange(32.0, 32 + 216))
        assert net.layers[7].conv.weight.flatten()[-1] == count - 1


@pytest.mark.parametrize("change", [-3, 4])
def test_a_file_of_the_wrong_length_is_named_with_both_lengths(tiny_cfg, tmp_path, change):
    path = tmp_path / "w.weights"
    net = Darknet(tiny_cfg)
    net.save_weights(path)
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(ValueError, match=rf"w.weights: {len(data) + change} bytes found, {len(data)} expected"):
        net.load_weights(path)
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="5 bytes found"):
        net.load_weights(path)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("classes=2", "classes=2\nnew_coords=1", "block 9: new_coords=1 of .yolo. is not known"),
        ("filters=14", "filters=18", "block 9: .yolo. of 18 filters; its anchors and classes need 14"),
        ("[upsample]", "[reorg]", r"tiny.cfg: block 6: unknown layer \[reorg\]; known: convolutional, .*yolo"),
        ("activation=leaky", "activation=elu", "block 1: unknown activation 'elu'; known: linear, leaky"),
        ("layers=-1, 0", "layers=-1, 55", r"block 7: \[route\] refers to"),
        ("[net]", "[convolutional]", r"starts with \[net\]"),
        ("filters=14\n", "", "block 8: .*lacks the option 'filters'"),
        ("filters=14", "filters", "tiny.cfg:.*neither"),
        ("mask=0", "mask=9", r"block 9: \[yolo\]"),
    ],
)
def test_a_wrong_cfg_is_named(tiny_cfg, old, new, message):
    tiny_cfg.write_text(TINY_CFG.replace(old, new))
    with pytest.raises(ValueError, match=message):
        Darknet(tiny_cfg)


def test_parse_cfg(tiny_cfg):
    blocks = parse_cfg(tiny_cfg)
    assert blocks[0] == {"type": "net", "width": "64", "height": "64", "channels": "3"}
    assert len(blocks) == 10


# --- decode and NMS -------------------------------------------------------------------------------


def crowd(count, groups=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 200
    boxes = torch.cat((corner, corner + 10 + torch.rand(count, 2, generator=generator) * 40), 1)
    return boxes, torch.rand(count, generator=generator), torch.randint(groups, (count,), generator=generator)


@pytest.mark.parametrize("threshold", [0.2, 0.45, 0.8])
def test_fallback_equals_torchvision(threshold):
    try:
        import torchvision
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        pytest.skip(f"torchvision does not load beside this torch: {error}")
    boxes, scores, groups = crowd(800)
    expected = torchvision.ops.batched_nms(boxes, scores, groups, threshold)
    assert torch.equal(util.nms_fallback(boxes, scores, threshold, groups), expected)
    assert torch.equal(util.nms(boxes, scores, threshold, groups), expected)
    assert len(util.nms_fallback(boxes[:0], scores[:0], threshold, groups[:0])) == 0


def test_without_torchvision_the_module_still_loads(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.ops", None)
    spec = importlib.util.spec_from_file_location("yolo.util_alone", util.__file__)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert alone._torchvision_nms is None
    boxes, scores, groups = crowd(50)
    assert torch.equal(alone.nms(boxes, scores, 0.3, groups), util.nms(boxes, scores, 0.3, groups))


def test_detections_of_a_batch(monkeypatch):
    rows = torch.tensor(
        [
            [50.0, 50, 20, 20, 0.9, 0.9, 0.1],  # the face
            [51.0, 50, 20, 20, 0.8, 0.9, 0.1],  # the same face again
            [80.0, 80, 10, 10, 0.9, 0.3, 0.6],  # another class
            [20.0, 20, 10, 10, 0.6, 1.0, 0.0],  # a weaker face
            [90.0, 20, 10, 10, 0.1, 1.0, 0.0],  # below the threshold
        ]
    )
    prediction = torch.stack((rows, torch.zeros_like(rows), rows.flip(0)))
    for _ in range(2):
        first, empty, third = util.detections(prediction, conf=0.3, nms_threshold=0.45)
        expected = torch.tensor([[40, 40, 60, 60, 0.81], [15, 15, 25, 25, 0.6]])
        torch.testing.assert_close(first, expected)
        torch.testing.assert_close(third, expected)
        assert empty.shape == (0, 5)
        assert util.detections(prediction, 0.3, 0.45, class_id=1)[0][:, 4].tolist() == pytest.approx([0.54])
        monkeypatch.setattr(util, "_torchvision_nms", None)  # once more without torchvision


# --- the detector ---------------------------------------------------------------------------------


def test_an_unknown_precision_is_named():
    with pytest.raises(ValueError, match=r"'int4'; choose one of auto, fp32"):
        Detector(precision="int4")


def test_detector_on_random_weights(tiny_cfg, tmp_path):
    net = randomised(Darknet(tiny_cfg), seed=1)
    with torch.no_grad():  # a sure head, of boxes as large as its anchors
        head = net.layers[-2].conv
        head.weight.mul_(4)
        head.weight.view(2, 7, -1)[:, 2:4].zero_()
        head.bias.view(2, 7)[:, 4:6] += 1
    net.save_weights(tmp_path / "w.weights")
    # without NMS, where equal scores decide which boxes stay
    detector = Detector(tiny_cfg, tmp_path / "w.weights", device="cpu", precision="fp32", conf=0.3, nms=1.0)
    images = [np.random.default_rng(n).integers(0, 256, (40 + 9 * n, 90, 3), dtype=np.uint8) for n in range(3)]
    together = detector(images)
    for image, found in zip(images, together):
        assert found.dtype == np.float32
        assert found.shape[1] == 5
        assert (
            (found[:, 0:4:2] <= image.shape[1]).all()
            and (found[:, 1:4:2] <= image.shape[0]).all()
            and (found >= 0).all()
        )
        assert (np.diff(found[:, 4]) <= 0).all()
        (alone,) = detector([image])
        assert len(found) == len(alone) > 100
        apart = np.abs(found[:, None] - alone[None]).max(-1)  # equal scores may change places
        assert apart.min(1).max() < 1e-3
    assert detector([]) == []
    for wrong in ({"inp_dim": 30}, {"class_id": 2}):
        with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
            Detector(tiny_cfg, tmp_path / "w.weights", **wrong)


def test_missing_files_are_named(tiny_cfg, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.weights: no such file; models/README"):
        Detector(tiny_cfg, tmp_path / "none.weights")
    with pytest.raises(FileNotFoundError, match=r"none.cfg: no such file; say which network .*--cfg"):
        Detector(tmp_path / "none.cfg", tmp_path / "none.weights")


needs_weights = pytest.mark.skipif(not FACE_WEIGHTS.is_file(), reason=f"{FACE_WEIGHTS} is not there")


@pytest.fixture(scope="module")
def face_detector():
    return Detector()


@needs_weights
def test_shipped_weights_fit_and_are_small():
    assert FACE_WEIGHTS.stat().st_size <= MAX_FILE
    Darknet(FACE_CFG).load_weights(FACE_WEIGHTS)


@needs_weights
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.jpg")), ids=lambda path: path.name)
def test_shipped_weights_find_the_faces_of_the_examples(path, face_detector):
    image = cv2.imread(str(path))[..., ::-1]
    found = face_detector([image, image[:, ::-1]])
    faces = FACES.get(path.stem, 1)
    for boxes in found:
        assert faces <= len(boxes) <= faces + MEDALS.get(path.stem, 0)
        assert (boxes[:, 4] > FACE_CONF).all()
    mirrored = found[1][:, [2, 1, 0, 3]] * (-1, 1, -1, 1) + (image.shape[1], 0, image.shape[1], 0)
    overlap = iou_matrix(torch.from_numpy(found[0][:faces]), torch.from_numpy(mirrored))
    assert overlap.amax(1).min() > 0.5  # the same faces; the least is a turned one of 60 pixels


@needs_weights
@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="no examples")
def test_a_face_that_fills_the_frame_is_found_by_the_second_look(face_detector):
    image = cv2.imread(str(EXAMPLES / "eileen_collins.jpg"))[..., ::-1]
    x1, y1, x2, y2 = face_detector([image])[0][0, :4].astype(int)
    face = image[y1 - 8 : y2 + 8, x1 - 8 : x2 + 8]
    (found,) = face_detector([face])
    assert len(found) == 1
    truth = torch.tensor([[8.0, 8, 8 + x2 - x1, 8 + y2 - y1]])
    assert iou_matrix(torch.from_numpy(found), truth).item() > 0.7
    squares = [face_detector.preprocess(image)[0]]
    rows = face_detector._second_look(squares)
    assert (rows[..., 4][rows[..., 2:4].amax(-1) < SECOND_LOOK_FROM * face_detector.inp_dim] == 0).all()
