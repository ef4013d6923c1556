"""Learn what a point's score means: its expected error, in % of the face's size; from train_sppe/src:

    python tools/calibrate.py --weights ../../models/sppe/mine.pth --dataRoot ../data/synth106 ../data/faces68:ibug
    python tools/calibrate.py --weights ../../models/sppe/mine.pth --dataRoot ../data/synth106 --boxes detector --store

The error is a point's distance from its label over the square root of the box's area. It is learnt as a function of the
score alone that never rises (isotonic regression), for all points and, where that predicts unseen faces better, for a
part by itself. Faces are those of --split (val: no training has seen them), in the boxes that --boxes names,
`detector` being the case that users have. Each data set weighs the same. ROOT:ibug says that the labels of its 68
points follow iBUG.

Writes OUTDIR/confidence.json (SPPE/src/utils/confidence.py reads it), calibration.json (how good it is) and
reliability.png: the error that was predicted against the one that came, each face judged by a table that other faces
made (cross-validation by faces). --store writes the table into the weights' meta["confidence"] too.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))  # train_sppe/src, before any other package named utils
sys.path.append(str(SOURCE.parents[1]))  # the repository root

from evaluation import (
    BOXES,
    CONVENTIONS,
    add_speed,
    distances,
    face_scale,
    in_convention,
    predict_in_boxes,
    read_data,
    speed,
    write_json,
)
from plot import new_figure
from SPPE.src.landmarks import NUM_POINTS, PARTS
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.confidence import check_table, confidence_of, expected_error
from SPPE.src.utils.files import save_whole
from utils.command import complaints, one_of
from utils.dataset import READERS, SPLITS

# Points are first put together by equal counts into so many bins, of each group: few enough that each holds a mean.
BINS, LEAST_IN_BIN = 100, 40

# Knots of a table's entry: isotonic regression gives about so many steps; more would only be noise.
KNOTS = 24

# Parts of the cross-validation, and how much better (mean squared error) a part's own map must be to be kept.
FOLDS, WORTH = 5, 0.99

# An error above this, in % of the face's size, counts as this: how far off a lost point is says nothing.
CEILING = 40.0


@dataclass
class Sample:
    """Faces of one data set: scores, errors (% of the face's size), known (all (N, 106)), hidden (N, 106)."""

    name: str
    scores: np.ndarray
    errors: np.ndarray
    known: np.ndarray
    hidden: np.ndarray

    def take(self, rows: np.ndarray) -> "Sample":
        return Sample(self.name, self.scores[rows], self.errors[rows], self.known[rows], self.hidden[rows])


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("calibrate.py"):
        one_of(opt, split=SPLITS, boxes=BOXES)
        calibrate(opt)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="dt_fac_106_ldmks", help=f"one of {', '.join(READERS)}")
    add("--dataRoot", nargs="+", metavar="ROOT[:ibug]", required=True, help="folders of one or several such data sets")
    add("--split", default="val", help=f"one of {', '.join(SPLITS)}; default val")
    add("--weights", type=Path, default=WEIGHTS_FOLDER / "face106-lite.pth", help="a shipped .pth")
    add("--boxes", default="true", help="true: as annotated; dpg: with a detector's errors; detector: found by one")
    add("--detector", type=Path, help="weights for --boxes detector; default face106-det")
    add("--flip", action="store_true", help="learn the scores of the flip test")
    add("--outdir", type=Path, help="default ../exp/calibration/WEIGHTS")
    add("--store", action="store_true", help='write the table into the weights\' meta["confidence"]')
    add_speed(parser)
    return parser


def calibrate(opt: argparse.Namespace) -> None:
    """Predict, learn, judge on faces left out, write."""
    estimator = Estimator(opt.weights, NUM_POINTS, flip=opt.flip, **speed(opt))
    samples = [sample(estimator, root, opt) for root in opt.dataRoot]
    if len({own.name for own in samples}) < len(samples):
        for own, root in zip(samples, opt.dataRoot):
            own.name = root
    parts = choose_parts(samples)
    table = check_table(learn(samples, parts))
    predicted = cross_validate(samples, parts)
    outdir = opt.outdir or SOURCE.parent / "exp" / "calibration" / opt.weights.stem
    outdir.mkdir(parents=True, exist_ok=True)
    write_json(table, outdir / "confidence.json")
    judged = {own.name: judge(own, errors) for own, errors in zip(samples, predicted)}
    write_json({"weights": str(opt.weights), "boxes": opt.boxes, "sets": judged}, outdir / "calibration.json")
    plot_reliability(samples, predicted, outdir / "reliability.png")
    for name, figures in judged.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if value is not None))
    print(f"written: {outdir}; parts with a map of their own: {', '.join(parts) or 'none'}")
    if opt.store:
        store(opt.weights, table)
        print(f'{opt.weights}: meta["confidence"] is set')


def sample(estimator: Estimator, root: str, opt: argparse.Namespace) -> Sample:
    """Scores and errors of one data set's faces; those that the detector missed are left out."""
    folder, _, convention = root.rpartition(":")
    if not folder or convention not in CONVENTIONS:
        folder, convention = root, "lapa"
    own = copy(opt)
    own.dataRoot = Path(folder)
    data, place = read_data(own)
    points, scores, _ = predict_in_boxes(estimator, data, own)
    found = np.isfinite(points).all(axis=(1, 2))
    size = face_scale(data.points, data.visible, "box", data.boxes)[:, None]
    errors = np.minimum(100 * distances(in_convention(points, convention), data.points) / size, CEILING)
    known = (data.visible > 0) & np.isfinite(errors) & found[:, None]
    return Sample(place.resolve().name, scores, np.where(known, errors, 0), known, data.visible == 1).take(found)


# The map


def learn(samples: list[Sample], parts: list[str]) -> dict[str, list[list[float]]]:
    """The table: a map for all points, and one for each of those parts."""
    return {"all": fit(samples, range(NUM_POINTS))} | {part: fit(samples, PARTS[part]) for part in parts}


def choose_parts(samples: list[Sample]) -> list[str]:
    """Parts whose own map predicts faces that it has not seen better than the map for all points does."""
    losses = {part: np.zeros(2) for part in PARTS}  # with the common map, with its own
    for own, rows, rest in splits(samples):
        common = fit(rest, range(NUM_POINTS))
        for part, members in PARTS.items():
            known = own.known[rows][:, list(members)]
            scores, errors = (x[rows][:, list(members)][known] for x in (own.scores, own.errors))
            if known.any() and any(other.known[:, list(members)].any() for other in rest):
                maps = common, fit(rest, members)
                losses[part] += [((np.interp(scores, *knots) - errors) ** 2).mean() for knots in maps]
    return [part for part, (common, alone) in losses.items() if alone < WORTH * common]


def splits(samples: list[Sample]) -> Iterator[tuple[Sample, np.ndarray, list[Sample]]]:
    """(a data set, some of its rows, all that is left to learn from) until each face was left out once."""
    for own in samples:
        for rows, others in folds(len(own.scores)):
            yield own, rows, [other.take(others) if other is own else other for other in samples]


def folds(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows judged, rows learnt from) of each part; the data's own order is mixed, by a fixed seed."""
    parts = np.array_split(np.random.default_rng(0).permutation(count), min(FOLDS, max(count, 1)))
    return [(part, np.setdiff1d(np.arange(count), part)) for part in parts]


def fit(samples: list[Sample], points) -> list[list[float]]:
    """[scores, errors]: the mean error at each score, never rising; each data set weighs the same.

    Raises:
        ValueError: no point to learn from.
    """
    from scipy.optimize import isotonic_regression

    scores, errors, weights = [], [], []
    for own in samples:
        known = own.known[:, list(points)]
        scores.append(own.scores[:, list(points)][known])
        errors.append(own.errors[:, list(points)][known])
        weights.append(np.full(known.sum(), 1 / max(known.sum(), 1)))
    scores, errors, weights = (np.concatenate(kind) for kind in (scores, errors, weights))
    if not len(scores):
        raise ValueError("no annotated point to learn the confidence from")
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, int(np.clip(len(order) // LEAST_IN_BIN, 1, BINS)))
    means = np.array([[np.average(x[b], weights=weights[b]) for x in (scores, errors)] for b in bins])
    heights = isotonic_regression(means[:, 1], weights=[weights[b].sum() for b in bins], increasing=False).x
    return thin(means[:, 0], heights)


def thin(scores: np.ndarray, errors: np.ndarray) -> list[list[float]]:
    """At most KNOTS points of a curve, evenly in its order, ends included; scores that repeat are joined."""
    keep = np.unique(np.linspace(0, len(scores) - 1, KNOTS).round().astype(int))
    scores, errors = scores[keep].round(4), errors[keep].round(3)
    scores, first = np.unique(scores, return_index=True)
    return [scores.tolist(), errors[first].tolist()]


def cross_validate(samples: list[Sample], parts: list[str]) -> list[np.ndarray]:
    """For each data set the errors (N, 106) that tables made without each face predict for it."""
    predicted = {id(own): np.zeros(own.scores.shape, np.float32) for own in samples}
    for own, rows, rest in splits(samples):
        predicted[id(own)][rows] = expected_error(own.scores[rows], learn(rest, parts))
    return [predicted[id(own)] for own in samples]


# How good it is


def judge(own: Sample, predicted: np.ndarray) -> dict[str, float | None]:
    """Figures of a data set, on faces that the table was made without.

    mean_error, mean_predicted: % of the face's size. gap: mean distance of the two over bins of equal count, the
    calibration error. rank: Spearman correlation of predicted and actual error. error_visible, predicted_visible, ...:
    of points in sight and hidden; auc_hidden: how often a hidden point is told to be worse than one in sight.
    """
    from scipy.stats import rankdata, spearmanr

    known = own.known
    actual, said = own.errors[known], predicted[known]
    figures = {
        **{"points": float(known.sum()), "mean_error": float(actual.mean()), "mean_predicted": float(said.mean())},
        **{"gap": float(np.mean([abs(a - p) for p, a, *_ in reliability(own, predicted)]))},
        "rank": float(spearmanr(actual, said).statistic),
    }
    hidden = own.hidden[known]
    for name, rows in (("visible", ~hidden), ("hidden", hidden)):
        figures[f"error_{name}"] = float(actual[rows].mean()) if rows.any() else None
        figures[f"predicted_{name}"] = float(said[rows].mean()) if rows.any() else None
    figures["auc_hidden"] = None
    if hidden.any() and not hidden.all():
        ranks, count = rankdata(said), hidden.sum()
        area = (ranks[hidden].sum() - count * (count + 1) / 2) / (count * (~hidden).sum())
        figures["auc_hidden"] = float(area)
    return figures


def reliability(own: Sample, predicted: np.ndarray, bins: int = 12) -> list[tuple[float, float, float, float]]:
    """(mean predicted, mean actual error, their 25 and 75 % quantiles) of points in bins by what was predicted."""
    said, actual = predicted[own.known], own.errors[own.known]
    order = np.argsort(said, kind="stable")
    return [
        (float(said[b].mean()), float(actual[b].mean()), *np.quantile(actual[b], (0.25, 0.75)).tolist())
        for b in np.array_split(order, min(bins, len(order)))
    ]


def plot_reliability(samples: list[Sample], predicted: list[np.ndarray], path: Path) -> None:
    """Predicted against actual error, by bins, a panel a data set; and the confidence of points in sight and hidden."""
    some_hidden = [i for i, own in enumerate(samples) if (own.hidden & own.known).any()]
    figure, all_axes = new_figure(4 * (len(samples) + len(some_hidden)), 3.8, columns=len(samples) + len(some_hidden))
    all_axes = np.ravel(all_axes)
    for axes, own, said in zip(all_axes, samples, predicted):
        x, y, low, high = np.array(reliability(own, said)).T
        limit = 1.1 * max(x.max(), y.max(), high.max())
        axes.plot([0, limit], [0, limit], color="0.7", lw=1)
        axes.fill_between(x, low, high, alpha=0.2, label="half of the points")
        axes.plot(x, y, "o-", ms=4, label="mean")
        axes.set(xlim=(0, limit), ylim=(0, limit), title=f"{own.name}: {len(own.scores)} faces")
        axes.set(xlabel="predicted error, % of the face's size", ylabel="actual error, %")
        axes.legend(loc="upper left", fontsize=8)
    for axes, i in zip(all_axes[len(samples) :], some_hidden):
        told = confidence_of(predicted[i])
        for name, rows in (("in sight", ~samples[i].hidden), ("hidden", samples[i].hidden)):
            values = told[rows & samples[i].known]
            axes.hist(values, np.linspace(0, 1, 26), density=True, alpha=0.6, label=f"{name}: mean {values.mean():.2f}")
        axes.set(xlabel="confidence", yticks=[], title=f"{samples[i].name}: points")
        axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path)


# The weights


def store(weights: Path, table: dict) -> None:
    """Set meta["confidence"] of a shipped weights file; everything else in it stays, bit for bit.

    Raises:
        ValueError: a bare state dict, which has no meta.
    """
    content = torch.load(weights, map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or "meta" not in content:
        raise ValueError(f"--store: {weights} is a bare state dict; make a weights file of it with tools/release.py")
    content["meta"]["confidence"] = check_table(table)
    save_whole(content, weights)


def read_table(path: Path) -> dict:
    """A confidence.json; what release.py puts into the weights.

    Raises:
        FileNotFoundError, ValueError: it is missing or malformed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; tools/calibrate.py writes it")
    try:
        return check_table(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


if __name__ == "__main__":
    main()
