"""plot.py: several runs in one picture, from what evaluation.py and train.py wrote."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import plot
from conftest import ROOT
from evaluation import build_report, write_json
from SPPE.src.landmarks import NUM_POINTS
from tiny import face_shape
from utils.dataset.base import Annotations, boxes_of


@pytest.fixture
def runs(tmp_path):
    """Two evaluations of the same faces, one with a missed face, in folders of the same name."""
    points = np.tile(100 * face_shape() + 150, (5, 1, 1)).astype(np.float32)
    visible = np.full((5, NUM_POINTS), 2, np.uint8)
    visible[:, 3] = 0
    data = Annotations([Path(f"{i}.png") for i in range(5)], boxes_of(points, visible), points, visible)
    rng = np.random.default_rng(0)
    for name, spread in (("lite", 4), ("base", 2)):
        pred = points + rng.normal(0, spread, points.shape).astype(np.float32)
        if name == "lite":
            pred[2] = np.inf
        folder = tmp_path / name / "val"
        folder.mkdir(parents=True)
        write_json(build_report(pred, data), folder / "evaluation.json")
    return [tmp_path / "lite" / "val", tmp_path / "base" / "val"]


def draw(*arguments) -> None:
    plot.main([str(argument) for argument in arguments])


def fails(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as stop:
        draw(*arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("kind", ["ced", "ppr", "points"])
def test_two_runs_in_one_picture(runs, tmp_path, kind):
    draw(kind, *runs, "--out", tmp_path / "both.png")
    draw(kind, runs[0], "--out", tmp_path / "one.png")
    both, one = (cv2.imread(str(tmp_path / f"{name}.png")) for name in ("both", "one"))
    assert both.std() > 5
    assert both.shape != one.shape or (both != one).any()


def test_a_missed_face_is_never_reached_by_the_curve(runs):
    errors = plot.face_errors(plot.read_report(runs[0]))
    assert np.isinf(errors).tolist() == [False, False, True, False, False]
    assert (errors[[0, 1, 3, 4]] < 0.1).all()
    with pytest.raises(ValueError, match="no errors of single faces for 'nose'"):
        plot.face_errors(plot.read_report(runs[0]), "nose")


def test_names_tell_runs_apart(runs, capsys, tmp_path):
    opt = plot.build_parser().parse_args(["ced", *map(str, runs)])
    assert plot._labels(opt) == ["lite/val", "base/val"]
    assert "1 different names for 2 runs" in fails(capsys, "ced", *runs, "--names", "one", "--out", tmp_path / "x.png")
    assert "the same run twice" in fails(capsys, "ced", runs[0], runs[0], "--out", tmp_path / "x.png")


def test_runs_that_do_not_compare_are_refused(runs, capsys, tmp_path):
    report = json.loads((runs[1] / "evaluation.json").read_text())
    (runs[1] / "evaluation.json").write_text(json.dumps(report | {"normaliser": "box", "pixels": "of a face box"}))
    assert "over different lengths: box, outer_eyes" in fails(capsys, "ced", *runs, "--out", tmp_path / "x.png")
    assert "in different pixels" in fails(capsys, "ppr", *runs, "--out", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_what_cannot_be_read_is_named(runs, capsys, tmp_path):
    assert "evaluation.py writes it" in fails(capsys, "ced", tmp_path / "nowhere", "--out", tmp_path / "x.png")
    (runs[0] / "evaluation.json").write_text("{")
    assert "is not JSON" in fails(capsys, "ced", runs[0], "--out", tmp_path / "x.png")
    (runs[0] / "evaluation.json").write_text("{}")
    assert "lacks all, faces" in fails(capsys, "ced", runs[0], "--out", tmp_path / "x.png")
    assert "no group 'nose'" in fails(capsys, "ppr", runs[1], "--group", "nose", "--out", tmp_path / "x.png")


def test_curves_of_logs_whose_last_line_is_torn(tmp_path, capsys):
    for name, factor in (("stg_1", 1.0), ("stg_2", 0.5)):
        lines = [{"epoch": e, "train/loss": factor / e, "train/LR": 1e-4, "val/nme": factor / e} for e in range(1, 6)]
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 6, "tra'
        (tmp_path / name / "log.jsonl").write_text(text)
    draw("curves", tmp_path / "stg_1", tmp_path / "stg_2", "--out", tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 5
    assert len(plot.read_log(tmp_path / "stg_1")) == 5
    (tmp_path / "stg_1" / "log.jsonl").write_text("")
    assert "no epoch" in fails(capsys, "curves", tmp_path / "stg_1", "--out", tmp_path / "x.png")


def test_heat_lies_where_the_heatmap_is_high():
    crop, maps = np.full((64, 64, 3), 80, np.uint8), np.zeros((2, 16, 16), np.float32)
    maps[0, 4, 12] = 1
    first, second = plot.heat_tiles(crop, maps, {"a": [0], "b": [1]}, side=160)
    assert first[45, 125].sum() > 1.5 * first[125, 45].sum()
    assert first[125, 45].tolist() == second[45, 125].tolist()


def test_heatmaps_of_a_photograph(tmp_path, capsys):
    photo = ROOT / "examples" / "imgs" / "grace_hopper.jpg"
    draw("heatmaps", photo, "--points", 66, 79, "--columns", 2, "--out", tmp_path / "heat.png")
    assert cv2.imread(str(tmp_path / "heat.png")).shape[1] == 2 * plot.TILE
    assert "--points '106'" in fails(capsys, "heatmaps", photo, "--points", 106, "--out", tmp_path / "x.png")
    assert len(plot._heat_choice(["all"])) == NUM_POINTS
