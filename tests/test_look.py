"""tools/look.py and tools/robustness.py: run on drawn faces and on a photograph."""

import json
import shutil
import sys

import cv2
import numpy as np
import pytest

from conftest import ROOT
from tiny import make_tiny_dataset, make_tiny_network

sys.path.append(str(ROOT / "train_sppe" / "src" / "tools"))
import look
import robustness

from utils.sheet import CAPTION_HEIGHT, contact_sheet, face_tile, write_picture


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(data set, weights)"""
    folder = tmp_path_factory.mktemp("files")
    return make_tiny_dataset(folder / "data", n=16), make_tiny_network(folder / "small.pth")


def test_a_tile_shows_the_box_and_maps_its_points():
    image = np.zeros((300, 400, 3), np.uint8)
    image[100:140, 200:240] = (255, 0, 0)
    tile, affine = face_tile(image, np.array([200.0, 100, 239, 139]), 80, margin=0.5)
    assert tile.shape == (80, 80, 3)
    assert affine @ (219.5, 119.5, 1) == pytest.approx([39.5, 39.5])
    assert tile[40, 40].tolist() == [255, 0, 0]
    assert tile[10, 10].tolist() == [0, 0, 0]


def test_a_sheet_keeps_order_and_size(tmp_path):
    tiles = [np.full((32, 32, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(tiles, ["a", "b" * 99, "c"], 2)
    assert sheet.shape == (2 * (32 + CAPTION_HEIGHT), 64, 3)
    assert [sheet[5, 5, 0], sheet[5, 40, 0], sheet[32 + CAPTION_HEIGHT + 5, 5, 0]] == [10, 20, 30]
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet([], [], 2)
    assert contact_sheet([np.zeros((40, 30, 3), np.uint8)] * 3, ["a"] * 3, 2).shape == (
        2 * (40 + CAPTION_HEIGHT),
        60,
        3,
    )
    write_picture(tmp_path / "new" / "sheet.png", sheet)
    assert (cv2.imread(str(tmp_path / "new" / "sheet.png"))[..., ::-1] == sheet).all()
    with pytest.raises(ValueError, match=r"no picture format '\.txt'"):
        write_picture(tmp_path / "sheet.txt", sheet)
    assert not (tmp_path / "sheet.txt").exists()


def test_look_at_listed_faces_beside_their_labels(files, tmp_path, capsys):
    root, weights = files
    (tmp_path / "list.txt").write_text("face_03.png\nface_11.png\n")
    given = ["--dataRoot", root, "--weights", weights, "--names", tmp_path / "list.txt", "--nThreads", 0]
    look.main([str(a) for a in [*given, "--truth", "--side", 64, "--columns", 3, "--out", tmp_path / "look.png"]])
    assert "4 pictures" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "look.png")).shape == (64 + CAPTION_HEIGHT, 4 * 64, 3)


def test_look_at_a_folder(tmp_path, capsys):
    """The whole pipeline; what is no picture is named, and the rest is drawn."""
    (tmp_path / "in").mkdir()
    shutil.copy(ROOT / "examples" / "imgs" / "grace_hopper.jpg", tmp_path / "in")
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    look.main(["--images", str(tmp_path / "in"), "--side", "128", "--out", str(tmp_path / "look.jpg")])
    told = capsys.readouterr()
    assert "broken.jpg" in told.err
    assert "1 pictures" in told.out
    assert cv2.imread(str(tmp_path / "look.jpg")).shape == (128 + CAPTION_HEIGHT, 128, 3)


def test_boxes_are_moved_and_sized_by_shares():
    boxes = np.array([[10.0, 20, 110, 220]])
    assert robustness.change_boxes(boxes, "shift_x", 20).tolist() == [[30, 20, 130, 220]]
    assert robustness.change_boxes(boxes, "shift_y", -10).tolist() == [[10, 0, 110, 200]]
    assert robustness.change_boxes(boxes, "size", -30).tolist() == [[25, 50, 95, 190]]
    assert robustness.change_boxes(boxes, "size", 0).tolist() == boxes.tolist()
    with pytest.raises(ValueError, match="unknown change 'turn'"):
        robustness.change_boxes(boxes, "turn", 5)


def test_robustness_of_two_weights(files, tmp_path, monkeypatch):
    root, weights = files
    monkeypatch.setattr(robustness, "CHANGES", {"shift_x": (-20, 0), "shift_y": (0, 20), "size": (-30, 0)})
    again = shutil.copy(weights, tmp_path / "again.pth")
    given = ["--dataRoot", root, "--weights", weights, again, "--names", "one", "two", "--nThreads", 0]
    robustness.main([str(a) for a in [*given, "--outdir", tmp_path / "out"]])
    results = json.loads((tmp_path / "out" / "robustness.json").read_text())["results"]
    assert results["one"] == results["two"]
    still = {next(r["nme"] for r in rows if r["change"] == 0) for rows in results["one"].values()}
    assert len(still) == 1
    moved = [r["nme"] for rows in results["one"].values() for r in rows if r["change"]]
    assert not still & set(moved)
    assert len(set(moved)) == 3
    assert (tmp_path / "out" / "robustness.png").is_file()
    assert "shift_x -20" in (tmp_path / "out" / "robustness.txt").read_text()


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        (look, ["--split", "dev"], "--split 'dev'"),
        (look, ["--images", ".", "--truth"], "--truth and --names are of a data set"),
        (look, ["--side", "0"], "--side 0 must be positive"),
        (look, ["--dataRoot", "nowhere"], "no data set at nowhere"),
        (robustness, ["--weights", "a.pth", "--names", "a", "b"], "2 different names for 1 weights"),
        (robustness, ["--weights", "a.pth", "--convention", "x"], "--convention 'x'"),
    ],
)
def test_commands_say_what_is_wrong(capsys, tool, arguments, told):
    with pytest.raises(SystemExit) as stop:
        tool.main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
