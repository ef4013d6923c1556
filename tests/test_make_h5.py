"""tools/make_h5.py: every format to the HDF5 file and back; every malformed thing named, and nothing written."""

import csv
import json
import sys

import cv2
import numpy as np
import pytest

from conftest import ROOT
from SPPE.src.convention import LAPA_FROM_IBUG
from SPPE.src.landmarks import IBUG68, NAMES, NUM_POINTS, to_insightface
from tiny import face_shape
from utils.dataset import build_dataset
from utils.dataset.base import read_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME

sys.path.append(str(ROOT / "train_sppe" / "src" / "tools"))
from complete106 import complete_by_geometry
from make_h5 import main, split_by_tail

POINTS = np.round(20 * face_shape() + 32, 3)  # in a picture of 64 x 64
BOX = [12, 10, 52, 56]


@pytest.fixture
def folder(tmp_path):
    """Four pictures, one in a folder below; names of any script."""
    for name in ("a.png", "b.png", "c.png", "脸/d.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1])
    return tmp_path


def run(folder, form, annotations, *more):
    given = ["--format", form, "--images", folder / "images", "--annotations", annotations, "--out", folder / "out"]
    main([str(argument) for argument in [*given, *more]])
    return folder / "out"


def fails(capsys, folder, *arguments):
    """The one sentence that the command says before it ends with exit code 2, having written nothing."""
    with pytest.raises(SystemExit) as stop:
        run(folder, *arguments)
    assert stop.value.code == 2
    assert not (folder / "out").exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def write_csv(folder, header, rows):
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / "labels.csv"


def columns(count, letters="xy"):
    return [f"{letter}{i}" for i in range(count) for letter in letters]


def everything(out, split="train"):
    return build_dataset("dt_fac_106_ldmks", out, split)


# The formats


def test_csv_of_106_points(folder):
    rows = [[name, *POINTS.ravel()] for name in ("a.png", "b.png", "c.png", "脸/d.png")]
    out = run(folder, "csv", write_csv(folder, ["image", *columns(106)], rows), "--val-tail", "0.25")
    train, val = everything(out), everything(out, "val")
    assert [p.name for p in train.images] == ["a.png", "b.png", "c.png"]
    assert [p.name for p in val.images] == ["d.png"]
    assert train.points[0] == pytest.approx(POINTS, abs=1e-4)
    assert (train.visible == 2).all()


def test_csv_of_68_points_with_sources_and_attributes(folder):
    header = ["image", "source", "attr:pose", *columns(68)]
    rows = [[name, "afw", "side", *POINTS[list(IBUG68)].ravel()] for name in ("a.png", "b.png")]
    out = run(folder, "csv", write_csv(folder, header, rows), "--val-tail", "0.5")
    data = everything(out)
    assert (data.visible[0] > 0).nonzero()[0].tolist() == sorted(IBUG68)
    assert data.points[0, list(IBUG68)] == pytest.approx(POINTS[list(IBUG68)], abs=1e-4)
    assert {k: v.tolist() for k, v in data.attributes.items()} == {"source": ["afw"], "pose": ["side"]}


def test_68_points_are_moved_to_lapas_places(folder):
    """The guide's command for one's own data: curves give what lies between, and what is not known stays masked."""
    labels = write_csv(folder, ["image", *columns(68)], [["a.png", *POINTS[list(IBUG68)].ravel()]])
    data = everything(run(folder, "csv", labels, "--ibug-to-lapa"), "test")
    assert (data.visible[0] > 0).sum() == 88 and set(np.flatnonzero(data.visible[0])) > set(IBUG68)
    known = complete_by_geometry(POINTS[list(IBUG68)])[0]
    there = data.visible[0] == 2
    assert there.sum() == 88  # what a curve gives is not hidden
    assert data.points[0][there] == pytest.approx((LAPA_FROM_IBUG @ np.nan_to_num(known))[there], abs=1e-3)


def test_a_missing_one_of_68_points_masks_its_own_line_only(folder):
    row = [["a.png", *POINTS[list(IBUG68)].ravel()], ["b.png", *POINTS[list(IBUG68)].ravel()]]
    lip = list(IBUG68).index(85)
    row[1][1 + 2 * lip : 3 + 2 * lip] = ["", ""]
    labels = write_csv(folder, ["image", *columns(68)], row)
    out = run(folder, "csv", labels, "--ibug-to-lapa")
    data = read_h5(out / FILE_NAME, out / "images")
    whole, partly = data.visible > 0
    assert set(np.flatnonzero(whole & ~partly)) <= set(range(84, 91)) and not partly[85]
    assert data.points[1][partly] == pytest.approx(data.points[0][partly])


def test_csv_with_where_points_come_from(folder):
    numbers = np.column_stack([POINTS, np.arange(106) % 4])
    numbers[::4, :2] = 0
    out = run(
        folder, "csv", write_csv(folder, ["image", "source", *columns(106, "xys")], [["a.png", "x", *numbers.ravel()]])
    )
    data = everything(out, "test")  # one face, by the published proportions
    assert data.visible[0].tolist() == [0 if i % 4 == 0 else 2 for i in range(NUM_POINTS)]


def test_an_empty_cell_is_not_annotated(folder):
    cells = [*map(str, POINTS.ravel())]
    cells[10] = ""
    out = run(folder, "csv", write_csv(folder, ["image", *columns(106)], [["a.png", *cells]]))
    assert (everything(out, "test").visible[0] == 0).nonzero()[0].tolist() == [5]


def test_another_order_is_converted(folder):
    rows = [["a.png", *to_insightface(POINTS).ravel()]]
    annotations = write_csv(folder, ["image", *columns(106)], rows)
    out = run(folder, "csv", annotations, "--order", "insightface")
    assert everything(out, "test").points[0] == pytest.approx(POINTS, abs=1e-4)


def test_lapa_folder(folder):
    (folder / "labels" / "脸").mkdir(parents=True)
    for name in ("a.txt", "脸/d.txt"):
        text = "106\n" + "".join(f"{x} {y}\n" for x, y in POINTS)
        (folder / "labels" / name).write_text(text, encoding="utf-8")
    data = everything(run(folder, "lapa", folder / "labels", "--val-tail", "0.5"), "val")
    assert data.images[0].as_posix().endswith("images/脸/d.png")
    assert data.points[0] == pytest.approx(POINTS, abs=1e-4)


@pytest.mark.parametrize("count", [68, 106])
@pytest.mark.parametrize("base", [0, 1])
def test_pts_folder(folder, count, base):
    (folder / "labels").mkdir()
    indices = list(IBUG68) if count == 68 else list(range(106))
    lines = "".join(f"{x} {y}\n" for x, y in POINTS[indices] + base)
    (folder / "labels" / "b.pts").write_text(f"version: 1\nn_points: {count}\n{{\n{lines}}}", encoding="utf-8")
    data = everything(run(folder, "pts", folder / "labels", "--pts-base", base), "test")
    assert data.points[0, indices] == pytest.approx(POINTS[indices], abs=1e-4)
    assert (data.visible > 0).sum() == count


def coco(folder, **changes):
    keypoints = np.column_stack([POINTS, np.full(106, 2)])
    keypoints[7] = 0
    keypoints[8, 2] = 1
    annotation = {"image_id": 5, "keypoints": keypoints.ravel().tolist(), "bbox": [12, 10, 40, 46]} | changes
    annotation = {key: value for key, value in annotation.items() if value is not None}
    content = {"images": [{"id": 5, "file_name": "c.png"}], "annotations": [annotation]}
    (folder / "labels.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "labels.json"


def test_coco_keeps_visibility_and_box(folder):
    data = everything(run(folder, "coco", coco(folder)), "test")
    assert data.visible[0, 6:10].tolist() == [2, 0, 1, 2]
    assert data.boxes[0].tolist() == BOX
    assert data.points[0, 9] == pytest.approx(POINTS[9], abs=1e-4)


def test_coco_points_are_known_by_their_names(folder):
    path = coco(folder)
    content = json.loads(path.read_text())
    order = np.random.default_rng(0).permutation(NUM_POINTS)
    (own,) = content["annotations"]
    own["keypoints"] = np.array(own["keypoints"]).reshape(-1, 3)[order].ravel().tolist()
    own["category_id"] = 3
    content["categories"] = [{"id": 3, "keypoints": [NAMES[i] for i in order]}]
    path.write_text(json.dumps(content))
    data = everything(run(folder, "coco", path), "test")
    assert data.points[0, 9] == pytest.approx(POINTS[9], abs=1e-4) and data.visible[0, 6:10].tolist() == [2, 0, 1, 2]


def test_coco_without_a_box_takes_it_from_the_points(folder):
    height = POINTS[16, 1] - POINTS[35, 1]
    expected = [12, POINTS[35, 1] - 0.333 * height, 52, POINTS[16, 1]]
    data = everything(run(folder, "coco", coco(folder, bbox=None)), "test")
    assert data.boxes[0] == pytest.approx(expected, abs=1e-3)
    data = everything(run(folder, "coco", coco(folder), "--boxes-from-points"), "test")
    assert data.boxes[0] == pytest.approx(expected, abs=1e-3)


# Splits and pictures


def test_the_tail_is_taken_from_each_source_and_keeps_pictures_whole():
    sources = np.array(["x"] * 10 + ["y"] * 5)
    names = [f"x{9 - i}" for i in range(10)] + ["y0", "y1", "y1", "y1", "y2"]
    split = split_by_tail(0.2, sources, names)
    assert [name for name, s in zip(names, split) if s == "val"] == ["x9", "x8", "y2"]
    split = split_by_tail(0.5, sources[10:], names[10:])
    assert split.tolist() == ["train", "val", "val", "val", "val"]


def test_split_files(folder):
    rows = [[name, *POINTS.ravel()] for name in ("a.png", "b.png", "c.png")]
    annotations = write_csv(folder, ["image", *columns(106)], rows)
    (folder / "train.txt").write_text("b.png\n", encoding="utf-8")
    (folder / "val.txt").write_text("a.png\n", encoding="utf-8")
    out = run(folder, "csv", annotations, "--split-files", folder)
    assert [[p.name for p in everything(out, s).images] for s in ("train", "val", "test")] == [["b.png"], ["a.png"], []]


@pytest.mark.parametrize(
    ("listing", "told"),
    [
        ("a.png\nz.png\n", "val.txt, line 2: 'z.png' is not in the annotations"),
        ("b.png\n", "'b.png' is in train.txt too"),
    ],
)
def test_malformed_split_files_are_named(folder, capsys, listing, told):
    rows = [[name, *POINTS.ravel()] for name in ("a.png", "b.png")]
    annotations = write_csv(folder, ["image", *columns(106)], rows)
    (folder / "train.txt").write_text("b.png\n", encoding="utf-8")
    (folder / "val.txt").write_text(listing, encoding="utf-8")
    assert told in fails(capsys, folder, "csv", annotations, "--split-files", folder)


def test_pictures_are_linked_or_copied(folder, capsys):
    annotations = write_csv(folder, ["image", *columns(106)], [["a.png", *POINTS.ravel()]])
    out = run(folder, "csv", annotations)
    assert (out / "images").is_symlink()
    assert (out / "images").resolve() == (folder / "images").resolve()
    out = run(folder, "csv", annotations, "--copy")
    assert not (out / "images").is_symlink()
    assert [p.name for p in (out / "images").iterdir()] == ["a.png"]  # what has no points is not needed
    assert len(everything(out, "test")) == 1
    with pytest.raises(SystemExit):
        run(folder, "csv", annotations)
    assert "holds other pictures" in capsys.readouterr().err


def test_pictures_are_copied_where_links_cannot_be_made(folder, monkeypatch):
    def refuse(*_, **__):
        raise OSError("not here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    annotations = write_csv(folder, ["image", *columns(106)], [["a.png", *POINTS.ravel()]])
    assert not (run(folder, "csv", annotations) / "images").is_symlink()


# What bad use gets


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        (["image", *columns(68)], ["a.png", *[1] * 135], "labels.csv, row 2: 135 numbers, expected 136"),
        (["image", *columns(68)], ["a.png", *[1] * 135, "l"], "labels.csv, row 2: y67 is 'l', not a number"),
        (["image", *columns(68)], ["z.png", *range(136)], "labels.csv, row 2: no picture at"),
        (["image", *columns(68)], ["a.png", *[""] * 136], "labels.csv, row 2 has no annotated point"),
        (["image", *columns(68)], ["a.png", *[1] * 136], "labels.csv, row 2 has a box that is not x1 < x2"),
        (["image", *columns(68)], ["a.png", "inf", *range(135)], "labels.csv, row 2 has a point that is not a finite"),
        (
            ["image", *columns(106, "xys")],
            ["a.png", *[7] * 318],
            "labels.csv, row 2: s0 is 7, expected 0 or 1 or 2 or 3",
        ),
        (["image", *columns(98)], ["a.png"], "row 1: columns for 98 points, expected 68 or 106"),
        (["image", "x0", "x1"], ["a.png"], "row 1: column 'x1' is out of place"),
        (["file", *columns(68)], ["a.png"], "row 1: no column `image`"),
        ([], [], "row 1: no column `image`"),
        (["image", *columns(68)], [], "labels.csv holds no annotated face"),
    ],
)
def test_malformed_csv_is_named(folder, capsys, header, row, told):
    assert told in fails(capsys, folder, "csv", write_csv(folder, header, [row]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"keypoints": [1, 2, 2]}, "annotation 0: 3 numbers in keypoints, expected 3 x 68 or 106"),
        ({"keypoints": None}, "annotation 0: no keypoints"),
        ({"image_id": 6}, "annotation 0: image_id 6 is not in `images`"),
        ({"keypoints": [1, 2, 3] * 106}, "annotation 0: a keypoint's v is neither 0, 1 nor 2"),
        ({"keypoints": [1, "2", 2] * 106}, "annotation 0, keypoints: '2' is not a finite number"),
        ({"bbox": [1, 2, 3]}, "annotation 0: bbox has 3 numbers, expected 4"),
        ({"bbox": [1, 2, 0, 3]}, "annotation 0 has a box that is not x1 < x2, y1 < y2"),
        ({"keypoints": [0, 0, 0] * 106}, "holds no annotated face"),
    ],
)
def test_malformed_coco_is_named(folder, capsys, changes, told):
    assert told in fails(capsys, folder, "coco", coco(folder, **changes))


@pytest.mark.parametrize(
    ("text", "told"), [("{", "is not JSON"), ("[]", "not COCO-style"), ('{"images": [{}]}', "'id'")]
)
def test_what_is_no_coco_is_named(folder, capsys, text, told):
    (folder / "labels.json").write_text(text, encoding="utf-8")
    assert told in fails(capsys, folder, "coco", folder / "labels.json")


def test_unreadable_pictures_are_named(folder, capsys):
    (folder / "images" / "b.png").write_bytes(b"")
    annotations = write_csv(folder, ["image", *columns(106)], [[n, *POINTS.ravel()] for n in ("a.png", "b.png")])
    told = fails(capsys, folder, "csv", annotations)
    assert "unreadable pictures, 1 in all" in told
    assert "b.png: the file is empty" in told
    run(folder, "csv", annotations, "--trust-pictures")


def test_bad_options_are_named(folder, capsys):
    annotations = write_csv(folder, ["image", *columns(106)], [["a.png", *POINTS.ravel()]])
    for arguments, told in (
        (("voc", annotations), "unknown --format 'voc'; choose one of lapa, pts, csv, coco"),
        (("csv", annotations, "--order", "dlib"), "unknown --order 'dlib'; choose one of lapa, insightface"),
        (("csv", folder / "none.csv"), "--annotations: nothing at"),
        (("csv", folder), "--format csv needs a file"),
        (("pts", annotations), "--format pts needs a folder"),
        (("pts", folder / "images"), "no .pts files in"),
        (("csv", annotations, "--val-tail", "10"), "--val-tail 10.0 is not between 0 and 1"),
        (("csv", annotations, "--val-tail", "0.1", "--split-files", folder), "exclude each other"),
        (("csv", annotations, "--split-files", folder), "no train.txt, val.txt or test.txt"),
        (("csv", annotations, "--images", folder / "none"), "--images: no folder at"),
    ):
        assert told in fails(capsys, folder, *arguments)
