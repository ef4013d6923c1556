"""The measures by hand-computed values and invariants; the command on drawn faces."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import (
    PART_WEIGHTS,
    PPR_PIXELS,
    auc,
    build_report,
    distances,
    face_scale,
    failure_rate,
    main,
    mean_face,
    mpd,
    nme,
    ppr,
    table,
)
from SPPE.src.landmarks import IBUG68, NUM_POINTS, OUTER_EYES, PARTS, PUPILS
from SPPE.src.models.FastPose import createModel
from tiny import face_shape, make_tiny_dataset
from utils.dataset.base import Annotations, boxes_of


def faces(n: int = 4, **changes) -> Annotations:
    """n faces of 200 pixels' width, all points annotated."""
    points = np.tile(100 * face_shape() + 150, (n, 1, 1)).astype(np.float32)
    visible = np.full((n, NUM_POINTS), 2, np.uint8)
    return Annotations([Path(f"{i}.png") for i in range(n)], boxes_of(points, visible), points, visible, **changes)


def test_distances_are_euclidean():
    assert distances(np.array([[[3.0, 4.0]]]), np.zeros((1, 1, 2))).tolist() == [[5.0]]


def test_ppr_counts_points_within_each_distance():
    errors = np.array([[0.5, 1.0, 1.5, 99.0]])
    got = ppr(errors, np.ones((1, 4)))
    assert got[:2].tolist() == [50.0, 75.0]  # a point at the distance itself is right
    assert got[-1] == 75.0
    assert len(got) == len(PPR_PIXELS) == 10


def test_ppr_leaves_masked_points_out():
    errors, mask = np.array([[0.5, 1.0, 1.5, 99.0]]), np.array([[2, 0, 0, 1]])
    assert ppr(errors, mask).tolist() == [50.0] * 10
    assert np.isnan(ppr(errors, 0 * mask)).all()


def test_mpd_is_the_weighted_mean():
    errors, weights = np.array([[1.0, 3.0], [5.0, 7.0]]), np.array([1.0, 3.0])
    assert mpd(errors, np.ones((2, 2)), weights) == pytest.approx((1 + 9 + 5 + 21) / 8)
    assert mpd(errors, np.array([[1, 0], [0, 2]]), weights) == pytest.approx((1 + 21) / 4)
    assert np.isnan(mpd(errors, np.zeros((2, 2)), weights))


def test_the_contour_weighs_least():
    assert set(PART_WEIGHTS) == set(PARTS)
    assert PART_WEIGHTS["contour"] == min(PART_WEIGHTS.values()) < PART_WEIGHTS["left_eye"]


def test_nme_of_points_moved_by_a_known_length():
    data = faces(2)
    pred = data.points + np.array([3, 4])  # 5 pixels everywhere
    eyes = 2 * 62  # the drawn corners lie at x = -0.62 and 0.62
    assert nme(pred, data.points, data.visible) == pytest.approx(5 / eyes, rel=1e-5)
    pupils = nme(pred, data.points, data.visible, "pupils")
    assert pupils == pytest.approx(5 / (2 * 42), rel=1e-5)
    width, height = (data.boxes[0, 2:] - data.boxes[0, :2]).tolist()
    box = nme(pred, data.points, data.visible, "box", data.boxes)
    assert box == pytest.approx(5 / (width * height) ** 0.5, rel=1e-5)


def test_nme_counts_annotated_points_only():
    data = faces(1)
    pred = data.points.copy()
    pred[0, 0] += (1000, 0)
    data.visible[0, 0] = 0
    assert nme(pred, data.points, data.visible).tolist() == [0.0]
    data.points[0, 0] = np.nan  # what is not annotated may be anything
    assert nme(pred, data.points, data.visible).tolist() == [0.0]


def test_nme_of_a_subset():
    data = faces(1)
    pred = data.points.copy()
    pred[:, 1] += (12.4, 0)  # a point that iBUG lacks
    assert nme(pred, data.points, data.visible, points=IBUG68).tolist() == [0.0]
    assert nme(pred, data.points, data.visible)[0] == pytest.approx(0.1 / NUM_POINTS, rel=1e-4)


@pytest.mark.parametrize("normaliser", ["outer_eyes", "pupils", "box"])
def test_nme_does_not_change_with_the_picture(normaliser):
    """Scaled and shifted with its picture, a face keeps its NME."""
    data, rng = faces(3), np.random.default_rng(0)
    pred = data.points + rng.normal(0, 3, data.points.shape)
    arrays = pred, data.points, data.visible, normaliser, data.boxes
    moved = 2.5 * pred + 40, 2.5 * data.points + 40, data.visible, normaliser, 2.5 * data.boxes + 40
    assert nme(*moved) == pytest.approx(nme(*arrays), rel=1e-4)


@pytest.mark.parametrize(("normaliser", "ends"), [("outer_eyes", OUTER_EYES), ("pupils", PUPILS)])
def test_a_face_without_the_normalisers_points_has_no_nme(normaliser, ends):
    data = faces(3)
    data.visible[1, ends[0]] = 0
    data.points[2, ends[0]] = data.points[2, ends[1]]  # no length to divide by
    assert np.isnan(nme(data.points, data.points, data.visible, normaliser)).tolist() == [False, True, True]


def test_unknown_normaliser_is_named():
    data = faces(1)
    with pytest.raises(ValueError, match="'ears'; choose one of outer_eyes, pupils, box"):
        face_scale(data.points, data.visible, "ears")


def test_failure_rate_and_auc():
    values = np.array([0.0, 0.05, 0.10, 0.20, np.nan])
    assert failure_rate(values, 0.1) == 0.25  # a face at the bar has not failed
    assert auc(values, 0.1) == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert np.isnan(failure_rate(np.array([np.nan])))
    assert np.isnan(auc(np.array([])))


def test_auc_is_the_area_under_the_curve():
    values = np.abs(np.random.default_rng(0).normal(0.05, 0.03, 500))
    bars = np.linspace(0, 0.1, 100_001)
    share = np.searchsorted(np.sort(values), bars, side="right") / len(values)
    assert auc(values, 0.1) == pytest.approx(np.trapezoid(share, bars) / 0.1, abs=1e-4)


def test_report_of_parts_subset_and_attributes():
    data = faces(4, attributes={"pose": np.array(["side", "front", "front", "front"])})
    pred = data.points.copy()
    pred[0, list(PARTS["left_eye"])] += (0, 12.4)  # a tenth of the eye distance
    report = build_report(pred, data)
    assert report["parts"]["left_eye"]["nme"] == pytest.approx(0.1 / 4, rel=1e-4)
    assert report["parts"]["right_eye"]["nme"] == 0
    assert report["parts"]["left_eye"]["ppr"]["10"] == 75.0
    assert report["attributes"]["pose"]["front"]["nme"] == 0
    assert report["attributes"]["pose"]["side"]["faces"] == 1
    assert report["attributes"]["pose"]["side"]["nme"] == pytest.approx(0.1 * 9 / NUM_POINTS, rel=1e-4)
    assert report["ibug68"]["points"] == 4 * 68
    assert report["points"][66] == pytest.approx(0.1 / 4, rel=1e-4)
    assert report["worst"][0]["image"] == "0.png"


def test_face_size_states_pixels_of_a_face():
    data = faces(2)
    pred = data.points + np.array([3, 4])
    side = face_scale(data.points, data.visible, "box", data.boxes)[0]
    report = build_report(pred, data, face_size=2 * side)
    assert report["all"]["mpd"] == pytest.approx(10, rel=1e-5)
    assert build_report(pred, data)["all"]["mpd"] == pytest.approx(5, rel=1e-5)


def test_table_says_what_was_left_out():
    data = faces(3)
    data.visible[0, list(OUTER_EYES)] = 0
    text = table(build_report(data.points, data))
    assert "outer eye corners" in text
    assert "1 of 3 faces lack" in text
    assert "lack" not in table(build_report(data.points, data, "box"))


def test_mean_face_of_equal_faces_is_the_face():
    data = faces(2)
    data.visible[:, 5] = 0
    mean = mean_face(data)
    assert np.isnan(mean).any(axis=1).nonzero()[0].tolist() == [5]
    size = face_scale(data.points, data.visible, "box", data.boxes)[0]
    assert (mean[8] - mean[16]) * size == pytest.approx(data.points[0, 8] - data.points[0, 16], abs=1e-3)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    model = createModel(NUM_POINTS, depth=18, width=0.125, duc=(32, 32))
    torch.save({"state_dict": model.state_dict(), "meta": {"input_size": (64, 64)}}, path)
    return path


def test_command_writes_json_table_and_plots(tmp_path, network, capsys):
    root, out = make_tiny_dataset(tmp_path / "data", unannotated=(41,)), tmp_path / "out"
    main(["--dataRoot", str(root), "--weights", str(network), "--outdir", str(out), "--nThreads", "0", "--flip"])
    assert {p.name for p in out.iterdir()} == {"evaluation.json", "table.txt", "ppr.png", "ced.png", "points.png"}
    report = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert report["all"]["faces"] == 3
    assert report["all"]["points"] == 3 * (NUM_POINTS - 1)
    assert report["points"][41] is None
    assert set(report["attributes"]["half"]) == {"first", "second"}
    assert "outer eye corners" in capsys.readouterr().out


def test_command_takes_a_detectors_boxes(tmp_path, network):
    root = make_tiny_dataset(tmp_path / "data", n=4)
    given = ["--dataRoot", str(root), "--weights", str(network), "--nThreads", "0"]
    for boxes in ("true", "dpg"):
        main([*given, "--boxes", boxes, "--outdir", str(tmp_path / boxes)])
    reports = [json.loads((tmp_path / boxes / "evaluation.json").read_text()) for boxes in ("true", "dpg")]
    assert reports[0]["all"]["nme"] != reports[1]["all"]["nme"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dataset", "celeba"], "unknown data set 'celeba'; choose one of dt_fac_106_ldmks, lapa, 300w"),
        (["--dataset", "coco"], "17 body joints"),
        (["--split", "dev"], "unknown --split 'dev'; choose one of train, val, test"),
        (["--decode", "argmax"], "unknown --decode 'argmax'; choose one of dark"),
        (["--normaliser", "ears"], "unknown --normaliser 'ears'; choose one of outer_eyes"),
        (["--boxes", "mine"], "unknown --boxes 'mine'; choose one of true, dpg"),
        (["--batch", "0"], "--batch 0 must be positive"),
        (["--inputResH", "128"], "go together"),
        (["--dataRoot", "nowhere"], "no data set at nowhere"),
        (["--weights", "nothing.pth"], "no weights at nothing.pth"),
        (["--split", "test"], "has no test samples"),
    ],
)
def test_command_says_what_is_wrong(tmp_path, network, capsys, arguments, told):
    root = make_tiny_dataset(tmp_path / "data", n=4)
    given = ["--dataRoot", str(root), "--weights", str(network), "--outdir", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main([*given, *arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
