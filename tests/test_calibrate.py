"""tools/calibrate.py learns what scores mean, SPPE/src/utils/confidence.py applies it."""

import json
import sys

import numpy as np
import pytest
import torch

from conftest import ROOT
from SPPE.src.landmarks import NUM_POINTS, PARTS
from SPPE.src.main_fast_inference import load_checkpoint
from SPPE.src.utils.confidence import HALF_AT, check_table, confidence, confidence_of, error_of, expected_error
from tiny import make_tiny_dataset, make_tiny_network

sys.path.append(str(ROOT / "train_sppe" / "src" / "tools"))
import calibrate

TABLE = {"all": [[0.2, 0.8], [10.0, 2.0]], "nose": [[0.5], [1.0]]}


def sample(n=300, seed=0, contour=1.0, name="set"):
    """Points err by 12 * (1 - score) on average, `contour` times that on the contour; low scores are hidden."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.2, 1, (n, NUM_POINTS)).astype(np.float32)
    mean = 12 * (1 - scores)
    mean[:, list(PARTS["contour"])] *= contour
    errors = mean * rng.uniform(0, 2, mean.shape)
    return calibrate.Sample(name, scores, errors, np.ones(errors.shape, bool), scores < 0.4)


def test_errors_lie_between_the_knots_and_end_with_them():
    scores = np.full((3, NUM_POINTS), [[0.1], [0.5], [0.9]], np.float32)
    errors = expected_error(scores, TABLE)
    other = np.setdiff1d(np.arange(NUM_POINTS), PARTS["nose"])
    assert errors[:, other[0]] == pytest.approx([10, 6, 2])
    assert (errors[:, other] == errors[:, other[:1]]).all()
    assert (errors[:, list(PARTS["nose"])] == 1).all()
    assert expected_error(np.array([0.5]), TABLE) == pytest.approx([6])  # a scheme of another number of points
    assert expected_error(np.zeros((0, NUM_POINTS)), TABLE).shape == (0, NUM_POINTS)


def test_confidence_falls_with_the_error_and_tells_it_again():
    assert confidence_of(np.array([0.0, HALF_AT])).tolist() == [1, 0.5]
    scores = np.linspace(0, 1, 50)
    assert (np.diff(confidence(scores, TABLE)) >= 0).all()
    assert error_of(confidence(scores, TABLE)) == pytest.approx(expected_error(scores, TABLE), rel=1e-4)
    assert np.isinf(error_of(np.array([0.0]))).all()


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([], 'has an entry "all"'),
        ({"nose": [[0.5], [1.0]]}, 'has an entry "all"'),
        ({**TABLE, "ear": [[0.5], [1.0]]}, "no part 'ear'; parts are contour"),
        ({"all": [[0.1, 0.2], [1.0]]}, "all is not two lists of numbers"),
        ({"all": [["high"], [1.0]]}, "all is not two lists of numbers"),
        ({"all": [[0.2, 0.1], [2.0, 1.0]]}, "needs rising scores"),
        ({"all": [[0.1, 0.2], [1.0, 2.0]]}, "errors that do not rise"),
    ],
)
def test_a_table_that_is_none_is_refused(table, told):
    with pytest.raises(ValueError, match=told):
        check_table(table)


def test_the_mean_error_at_each_score_is_learnt():
    table = check_table(calibrate.learn([sample()], []))
    scores = np.linspace(0.3, 0.95, 20)
    assert expected_error(scores, table) == pytest.approx(12 * (1 - scores), abs=0.5)
    assert len(table["all"][0]) <= calibrate.KNOTS


def test_a_part_gets_a_map_where_it_differs_and_only_there():
    assert calibrate.choose_parts([sample()]) == []
    assert "contour" in calibrate.choose_parts([sample(contour=2.0)])
    unlabelled = sample(contour=2.0)
    unlabelled.known[:, list(PARTS["contour"])] = False
    assert "contour" not in calibrate.choose_parts([unlabelled])


def test_sets_weigh_the_same():
    """A small set with twice the error pulls as much as a large one."""
    small, large = sample(60, 1), sample(600, 2)
    small.errors *= 2
    table = calibrate.learn([small, large], [])
    assert expected_error(np.array([0.5]), table)[0] == pytest.approx(1.5 * 6, rel=0.1)


def test_no_face_is_judged_by_a_table_that_it_made():
    """Errors that have nothing to do with scores: a table that had seen a face's own error would predict it."""
    own = sample(25)
    own.errors = np.repeat(np.random.default_rng(3).uniform(0, 20, (25, 1)), NUM_POINTS, axis=1)
    own.scores = np.repeat(np.linspace(0.2, 1, 25, dtype=np.float32)[:, None], NUM_POINTS, axis=1)
    (predicted,) = calibrate.cross_validate([own], [])
    for rows, others in calibrate.folds(25):
        assert not set(rows) & set(others)
        assert predicted[rows] == pytest.approx(
            expected_error(own.scores[rows], calibrate.learn([own.take(others)], []))
        )


def test_figures_of_a_calibrated_set():
    own = sample(400)
    (predicted,) = calibrate.cross_validate([own], [])
    figures = calibrate.judge(own, predicted)
    assert figures["gap"] < 0.3
    assert figures["mean_predicted"] == pytest.approx(figures["mean_error"], rel=0.05)
    assert figures["auc_hidden"] > 0.99
    assert figures["predicted_hidden"] > 2 * figures["predicted_visible"]
    off = calibrate.judge(own, predicted + 3)
    assert off["gap"] == pytest.approx(3, abs=0.3)


def test_the_command_writes_a_table_that_the_weights_keep(tmp_path, capsys):
    root, weights = make_tiny_dataset(tmp_path / "data", n=16), make_tiny_network(tmp_path / "small.pth")
    before = torch.load(weights, weights_only=True)["state_dict"]
    given = ["--weights", weights, "--dataRoot", f"{root}:ibug", root, "--outdir", tmp_path / "out", "--nThreads", 0]
    calibrate.main([str(argument) for argument in [*given, "--store"]])
    assert (tmp_path / "out" / "reliability.png").is_file()
    table = calibrate.read_table(tmp_path / "out" / "confidence.json")
    state, meta = load_checkpoint(weights)
    assert meta["confidence"] == table
    assert meta["input_size"] == (64, 64)
    assert all(torch.equal(before[name], state[name]) for name in before)
    judged = json.loads((tmp_path / "out" / "calibration.json").read_text())["sets"][str(root)]
    assert judged["points"] == 4 * NUM_POINTS
    assert judged["error_hidden"] is None
    assert "is set" in capsys.readouterr().out


def test_weights_without_meta_and_broken_tables_are_refused(tmp_path):
    path = tmp_path / "model_1.pkl"
    torch.save({"conv_out.bias": torch.zeros(NUM_POINTS)}, path)
    with pytest.raises(ValueError, match=r"bare state dict; make a weights file of it with tools/release\.py"):
        calibrate.store(path, TABLE)
    (tmp_path / "confidence.json").write_text("{}")
    with pytest.raises(ValueError, match=r"confidence\.json: a confidence table has"):
        calibrate.read_table(tmp_path / "confidence.json")
    with pytest.raises(FileNotFoundError, match=r"calibrate\.py writes it"):
        calibrate.read_table(tmp_path / "none.json")
