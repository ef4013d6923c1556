"""The measures by hand-computed values and invariants; the command on drawn faces."""

import json
from pathlib import Path

import numpy as np
import pytest

import evaluation
from conftest import ROOT
from evaluation import (
    PART_WEIGHTS,
    PPR_PIXELS,
    attribute_bands,
    auc,
    build_parser,
    build_report,
    detect,
    distances,
    face_scale,
    failure_rate,
    in_convention,
    main,
    make_detector,
    mean_face,
    mpd,
    nme,
    ppr,
    table,
)
from runtime import OnnxRuntime
from SPPE.src.landmarks import IBUG68, NUM_POINTS, OUTER_EYES, PARTS, PUPILS
from SPPE.src.main_fast_inference import Estimator
from SPPE.src.utils.imread import load_image
from tiny import face_shape, make_tiny_dataset, make_tiny_network
from utils.dataset.base import Annotations, boxes_of
from yolo.detector import Detector


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


def test_points_in_sight_are_told_apart():
    data = faces(2)
    pred = data.points.copy()
    pred[0, 5] += (12.4, 0)
    data.visible[0, 5] = 1
    report = build_report(pred, data)
    assert report["visible_only"]["points"] == report["all"]["points"] - 1
    assert report["visible_only"]["nme"] == 0 < report["all"]["nme"]
    assert "visible only" in table(report)
    data.visible[0, 5] = 2
    assert "visible only" not in table(build_report(pred, data))


def test_yaw_is_taken_from_the_pose():
    poses = ["yaw -75 pitch 3 roll 0", "yaw 30 pitch 0 roll 9", "yaw 0 pitch -60 roll 2", "yaw 45 pitch 0 roll 0"]
    data = faces(4, attributes={"pose": np.array(poses)})
    pred = data.points.copy()
    pred[0] += (12.4, 0)
    data.visible[0] = 1
    report = build_report(pred, data)
    assert {band: group["faces"] for band, group in report["yaw"].items()} == {
        "0-30": 2,
        "30-60": 1,
        "60-90": 1,
        "0-60": 3,
    }
    assert report["yaw"]["60-90"]["nme"] == pytest.approx(0.1, rel=1e-4)
    assert report["yaw"]["0-60"]["nme"] == 0
    assert report["visible_only_yaw"]["60-90"]["points"] == 0
    assert "pose" not in report["attributes"]
    assert "yaw 0-60, visible only" in table(report)
    assert build_report(data.points, faces(4, attributes={"pose": np.array(["left"] * 4)}))["yaw"] == {}


def test_an_attribute_of_many_values_is_put_in_bands():
    ages = np.arange(100).astype(str)
    bands = attribute_bands(ages)
    assert sum(rows.astype(int) for rows in bands.values()).tolist() == [1] * 100
    assert next(iter(bands)).startswith("0 to ")
    assert len(bands) == 4
    assert attribute_bands(np.array([f"person {i}" for i in range(100)])) == {}
    assert set(attribute_bands(np.array(["yes", "no", "yes"]))) == {"yes", "no"}
    data = faces(40, attributes={"name": np.array([f"person {i}" for i in range(40)])})
    assert "attribute name has 40 values" in table(build_report(data.points, data))


def test_bands_have_faces_and_names_of_their_own():
    """Quartiles beside a tie leave nothing between them; dates differ in their last digits."""
    ages = [*range(9), *[30] * 11, *range(31, 51)]
    bands = attribute_bands(np.array(ages).astype(str))
    assert all(rows.any() for rows in bands.values()) and sum(rows.sum() for rows in bands.values()) == len(ages)
    assert len(attribute_bands((20180101 + np.arange(40)).astype(str))) == 4


def test_faces_whose_attribute_is_not_told_have_a_band_of_their_own():
    bands = attribute_bands(np.array([*map(str, range(30)), "", "nan"]))
    assert np.flatnonzero(bands["unknown"]).tolist() == [30, 31] and sum(rows.sum() for rows in bands.values()) == 32


def test_a_missed_face_has_failed_and_has_no_distance():
    data = faces(4)
    pred = data.points + np.float32([3, 4])
    pred[1] = np.inf
    data.visible[1, 7] = 0
    data.points[1, 7] = np.nan  # what is not annotated may be anything
    report = build_report(pred, data)
    assert report["all"]["faces_missed"] == 1
    assert report["all"]["nme"] == pytest.approx(5 / 124, rel=1e-4)
    assert report["all"]["mpd"] == pytest.approx(5, rel=1e-4)
    assert report["all"]["failure_rate"] == 0.25
    assert report["all"]["auc"] == pytest.approx(0.75 * (1 - 0.5 / 1.24), rel=1e-3)
    assert report["all"]["ppr"]["10"] == pytest.approx(100 * 3 * 106 / (4 * 106 - 1), rel=1e-6)
    assert report["faces"]["missed"] == [False, True, False, False]
    assert [face["image"] for face in report["failures"]] == ["1.png"]
    assert max(report["points"]) == pytest.approx(5 / 124, rel=1e-4)
    assert "1 of 4 faces were missed" in table(report)
    assert "1.png  missed" in table(report)


def test_failures_are_the_faces_above_the_bar_worst_first():
    data = faces(3)
    pred = data.points.copy()
    pred[0] += (20, 0)
    pred[2] += (30, 0)
    report = build_report(pred, data, names=["a/0.png", "a/1.png", "a/2.png"])
    assert [face["image"] for face in report["failures"]] == ["a/2.png", "a/0.png"]
    assert report["failures"][0]["nme"] == pytest.approx(30 / 124, rel=1e-4)


def test_convention_moves_the_68_points_only(monkeypatch):
    monkeypatch.setattr(evaluation, "to_68", lambda points: points[..., list(IBUG68), :] + 7)
    pred = faces(3).points
    pred[1] = np.inf
    moved = in_convention(pred, "ibug")
    assert moved[0, list(IBUG68)] == pytest.approx(pred[0, list(IBUG68)] + 7)
    others = np.setdiff1d(np.arange(NUM_POINTS), IBUG68)
    assert (moved[0, others] == pred[0, others]).all()
    assert np.isinf(moved[1]).all()
    assert in_convention(pred, "lapa").tolist() == pred.tolist()
    with pytest.raises(ValueError, match="unknown --convention 'w300'"):
        in_convention(pred, "w300")


def test_the_box_that_overlaps_best_is_the_faces(tmp_path):
    """Two faces in one picture, each with a box of its own, and one whose box lies beside all that was found."""
    paths = [ROOT / "examples" / "imgs" / "grace_hopper.jpg"] * 3
    boxes = np.float32([[100, 100, 200, 200], [300, 100, 400, 200], [0, 300, 50, 350]])
    data = faces(3)
    data.images, data.boxes = paths, boxes
    found = np.float32([[290, 110, 390, 215, 0.9], [110, 100, 215, 200, 0.8], [100, 140, 200, 300, 0.7]])
    got, overlap = detect(data, lambda image: found[:, :4])
    assert got[:2].tolist() == found[[1, 0], :4].tolist()
    assert (overlap[:2] > 0.6).all()
    assert overlap[2] == 0
    _, overlap = detect(data, lambda image: found[:0, :4])
    assert overlap.tolist() == [0, 0, 0]


def test_the_projects_detector_finds_the_face_of_a_photograph():
    path = ROOT / "examples" / "imgs" / "grace_hopper.jpg"
    detector = Detector()
    box = detector([load_image(path)])[0][0, :4]
    side = box[2] - box[0]
    data = faces(2)
    data.images, data.boxes = [path, path], np.stack([box + 0.1 * side, box + 1.5 * side])
    got, overlap = detect(data, lambda image: detector([image])[0][:, :4])
    assert got[0] == pytest.approx(box)
    assert overlap[0] == pytest.approx(0.81 / (2 - 0.81), abs=0.03)
    assert overlap[1] == 0


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return make_tiny_network(tmp_path_factory.mktemp("weights") / "small.pth")


def test_command_writes_json_table_and_plots(tmp_path, network, capsys):
    root, out = make_tiny_dataset(tmp_path / "data", unannotated=(41,)), tmp_path / "out"
    main(["--dataRoot", str(root), "--weights", str(network), "--outdir", str(out), "--nThreads", "0", "--flip"])
    assert {p.name for p in out.iterdir()} == {
        *("evaluation.json", "table.txt", "failures.txt", "ppr.png", "ced.png", "points.png"),
    }
    report = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    assert report["all"]["faces"] == 3
    assert report["all"]["points"] == 3 * (NUM_POINTS - 1)
    assert report["points"][41] is None
    assert set(report["attributes"]["half"]) == {"first", "second"}
    assert "outer eye corners" in capsys.readouterr().out


def test_command_takes_a_detectors_boxes(tmp_path, network):
    root = make_tiny_dataset(tmp_path / "data", n=40)
    given = ["--dataRoot", str(root), "--weights", str(network), "--nThreads", "0"]
    kinds = ("true", "dpg", "detector")
    for boxes in kinds:
        main([*given, "--boxes", boxes, "--outdir", str(tmp_path / boxes)])
    true, dpg, found = (json.loads((tmp_path / boxes / "evaluation.json").read_text()) for boxes in kinds)
    assert true["all"]["nme"] != dpg["all"]["nme"]
    assert true["all"]["faces_missed"] == 0
    # whether a drawing is a face to the detector does not matter here: the counts agree either way
    assert found["all"]["faces_missed"] == sum(found["faces"]["missed"])
    assert (found["box_iou"] is None) == (found["all"]["faces_missed"] == found["all"]["faces"])


def test_the_detector_runs_in_the_runtime_that_is_named(network, monkeypatch):
    pytest.importorskip("onnxruntime")
    ran, real = [], OnnxRuntime.load
    monkeypatch.setattr(OnnxRuntime, "load", lambda self, data: ran.append(1) or real(self, data))
    opt = build_parser().parse_args(["--runtime", "onnx", "--precision", "fp32", "--weights", str(network)])
    find = make_detector(opt, Estimator(network, device="cpu"))
    assert len(ran) == 2 and find(np.zeros((64, 64, 3), np.uint8)).shape == (0, 4)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dataset", "celeba"], "unknown data set 'celeba'; choose one of dt_fac_106_ldmks, lapa, 300w"),
        (["--dataset", "coco"], "17 body joints"),
        (["--split", "dev"], "unknown --split 'dev'; choose one of train, val, test"),
        (["--decode", "argmax"], "unknown --decode 'argmax'; choose one of dark"),
        (["--normaliser", "ears"], "unknown --normaliser 'ears'; choose one of outer_eyes"),
        (["--boxes", "mine"], "unknown --boxes 'mine'; choose one of true, dpg, detector"),
        (["--convention", "mine"], "unknown --convention 'mine'; choose one of lapa, ibug"),
        (["--boxes", "detector", "--detector", "no.weights"], "no weights 'no.weights'"),
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
