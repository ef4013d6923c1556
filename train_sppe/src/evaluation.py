"""How well a network finds the points of a data set; from train_sppe/src:

    python evaluation.py --dataset dt_fac_106_ldmks --split val --weights ../../models/sppe/face106-lite.pth
    python evaluation.py --dataset 300w --dataRoot 300w --split test --weights ../exp/coco/stg_2/model_best.pkl --flip
    python evaluation.py --split val --boxes dpg --normaliser pupils --outdir ../exp/evaluation/detector_boxes

Writes OUTDIR/evaluation.json, table.txt, ppr.png, ced.png and points.png. Measures, over the annotated points only:

    PPR   percentage of points right: within 1, 2, .. 10 pixels of the truth
    MPD   weighted mean pixel distance (PART_WEIGHTS)
    NME   normalised mean error of a face: its mean distance over a length of that face; then the mean over the faces
    failure rate, AUC: of the faces' NME, with FAILURE_BAR as the bar and as the end of the curve

A face without the points that its normaliser is taken between counts in PPR and MPD only; the report says how many.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from torch.utils.data import DataLoader

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))

from SPPE.src.landmarks import IBUG68, LINES, NUM_POINTS, OUTER_EYES, PART_OF, PARTS, PUPILS
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.eval import DECODERS, DEFAULT_DECODER
from utils.dataset import READERS, SPLITS, build_dataset
from utils.dataset.base import Annotations, FaceDataset, sentence
from utils.dpg import build_dpg

# Pixel distances at which PPR is taken.
PPR_PIXELS = tuple(range(1, 11))

# Weight of a point in MPD. On the contour, people who label the same face differ most, since nothing there says where
# along the outline a point belongs; on the brows' ends less so; eyes, nose and lips are well defined, and what users
# of a face look at (Sagonas et al., "300 Faces In-The-Wild Challenge", 2016, figure 5, shows the labels' spread).
PART_WEIGHTS = dict.fromkeys(PARTS, 1.0) | {"contour": 0.5, "left_brow": 0.75, "right_brow": 0.75}
POINT_WEIGHTS = np.array([PART_WEIGHTS[part] for part in PART_OF])

# A face whose NME is above this has failed (300-W's and LaPa's usual bar).
FAILURE_BAR = 0.10

NORMALISERS = {
    "outer_eyes": f"distance of the outer eye corners, points {OUTER_EYES[0]} and {OUTER_EYES[1]}",
    "pupils": f"distance of the pupils, points {PUPILS[0]} and {PUPILS[1]}",
    "box": "square root of the area of the annotated box",
}
_ENDS = {"outer_eyes": OUTER_EYES, "pupils": PUPILS}

BOXES = ("true", "dpg")

# Area in square points (matplotlib's `s`) of the disc of the worst point: its neighbours on the eyes stay visible.
LARGEST_DISC = 120

# How many of the worst faces the report names.
WORST = 10


# Measures: pure functions of arrays. pred, truth (N, 106, 2) in image pixels; mask (N, 106), > 0 where annotated.


def distances(pred: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, K, 2) twice -> (N, K)."""
    return np.linalg.norm(np.asarray(pred, np.float64) - truth, axis=-1)


def face_scale(
    truth: np.ndarray, mask: np.ndarray, normaliser: str = "outer_eyes", boxes: np.ndarray | None = None
) -> np.ndarray:
    """The length that a face's errors are divided by, (N,) pixels; nan where its points are not annotated.

    Args:
        boxes: (N, 4) x1 y1 x2 y2, needed for the normaliser "box".
    Raises:
        ValueError: unknown normaliser.
    """
    if normaliser == "box":
        scale = np.sqrt(np.prod(np.asarray(boxes, np.float64)[:, 2:] - boxes[:, :2], axis=1))
    elif normaliser in _ENDS:
        a, b = _ENDS[normaliser]
        scale = distances(truth[:, a], truth[:, b])
        scale = np.where((mask[:, a] > 0) & (mask[:, b] > 0), scale, np.nan)
    else:
        raise ValueError(f"unknown normaliser {normaliser!r}; choose one of {', '.join(NORMALISERS)}")
    return np.where(scale > 0, scale, np.nan)


def face_means(errors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean over the annotated points of each face: (N, K) -> (N,); nan where there are none."""
    known = mask > 0
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, errors, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def nme(
    pred: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray,
    normaliser: str = "outer_eyes",
    boxes: np.ndarray | None = None,
    points: Sequence[int] = range(NUM_POINTS),
) -> np.ndarray:
    """Normalised mean error of each face over the annotated ones of `points`: (N,), 0.04 is 4 %; nan where not known.

    `normaliser` and `boxes` are `face_scale`'s, and so are the errors.
    """
    points = list(points)
    errors = distances(pred[:, points], truth[:, points])
    return face_means(errors, mask[:, points]) / face_scale(truth, mask, normaliser, boxes)


def ppr(errors: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Percentage of the annotated points (N, K) whose error is at most PPR_PIXELS: (10,); nan without any point."""
    known = errors[mask > 0]
    if not known.size:
        return np.full(len(PPR_PIXELS), np.nan)
    return 100 * (known[:, None] <= PPR_PIXELS).mean(axis=0)


def mpd(errors: np.ndarray, mask: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the annotated points' errors (N, K), weighted by (K,); nan without any point."""
    weights = weights * (mask > 0)
    return float(np.where(mask > 0, errors * weights, 0).sum() / weights.sum()) if weights.sum() else np.nan


def failure_rate(face_nme: np.ndarray, bar: float = FAILURE_BAR) -> float:
    """Fraction of the faces (N,) above the bar; nan entries do not count."""
    return _nan_mean(np.where(np.isnan(face_nme), np.nan, face_nme > bar))


def auc(face_nme: np.ndarray, bar: float = FAILURE_BAR) -> float:
    """Area under the cumulative error distribution of (N,) from 0 to the bar, 1 for a perfect network.

    A face of error e is counted from e on, so it adds (bar - e) / bar: the area is exact, not a sum over steps.
    """
    return _nan_mean(np.maximum(1 - face_nme / bar, 0))


def _nan_mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


# The report


def summarise(errors: np.ndarray, mask: np.ndarray, scale: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> dict:
    """All measures of some points of some faces.

    Args:
        errors, mask: (N, K); errors in image pixels.
        scale: (N,) of `face_scale`.
        unit: (N,) image pixels in one pixel of PPR and MPD; ones for image pixels.
        weights: (K,).
    """
    face_nme, pixels = face_means(errors, mask) / scale, errors / unit[:, None]
    return {
        "faces": len(errors),
        "faces_without_normaliser": int(np.isnan(scale).sum()),
        "points": int((mask > 0).sum()),
        "nme": _nan_mean(face_nme),
        "failure_rate": failure_rate(face_nme),
        "auc": auc(face_nme),
        "mpd": mpd(pixels, mask, weights),
        "ppr": dict(zip(map(str, PPR_PIXELS), ppr(pixels, mask).tolist())),
    }


def build_report(
    pred: np.ndarray, data: Annotations, normaliser: str = "outer_eyes", face_size: float | None = None
) -> dict:
    """The whole report on predictions (N, 106, 2), image pixels.

    Args:
        normaliser: of NME, one of NORMALISERS.
        face_size: measure PPR and MPD as if each face's box had an area of face_size ** 2; None: in image pixels.
    Returns:
        plain values and lists: `all`, `ibug68`, `parts`, `attributes` (each of `summarise`), `points`, `worst`, ...
    """
    mask, errors = data.visible, distances(pred, data.points)
    scale = face_scale(data.points, mask, normaliser, data.boxes)
    unit = face_scale(data.points, mask, "box", data.boxes) / face_size if face_size else np.ones(len(data))

    def summary(rows=slice(None), points=range(NUM_POINTS)) -> dict:
        points = list(points)
        return summarise(errors[rows][:, points], mask[rows][:, points], scale[rows], unit[rows], POINT_WEIGHTS[points])

    face_nme = face_means(errors, mask) / scale
    worst = np.argsort(-np.nan_to_num(face_nme, nan=-1))[:WORST]
    return {
        "normaliser": normaliser,
        "normaliser_is": NORMALISERS[normaliser],
        "pixels": f"of a face box of {face_size:g} x {face_size:g}" if face_size else "of the image",
        "failure_bar": FAILURE_BAR,
        "weights_of_mpd": PART_WEIGHTS,
        "all": summary(),
        "ibug68": summary(points=IBUG68),
        "parts": {part: summary(points=points) for part, points in PARTS.items()},
        "attributes": {
            name: {str(value): summary(values == value) for value in np.unique(values)}
            for name, values in data.attributes.items()
        },
        "points": face_means((errors / scale[:, None]).T, (mask * ~np.isnan(scale)[:, None]).T).tolist(),
        "worst": [{"image": data.images[i].name, "nme": float(face_nme[i])} for i in worst],
    }


def table(report: dict) -> str:
    """The report as text, a line a group."""
    shown = [str(p) for p in PPR_PIXELS]
    lines = [
        f"NME, over the {report['normaliser_is']},",
        f"failure rate (NME above {100 * report['failure_bar']:g} %) and AUC (up to there) in %;",
        f"MPD, and PPR at 1 .. 10, in pixels {report['pixels']}",
    ]
    without = report["all"]["faces_without_normaliser"]
    if without:
        lines.append(f"{without} of {report['all']['faces']} faces lack the normaliser's points: not in NME, fail, AUC")
    head = f"{'':24}{'faces':>7}{'NME':>7}{'fail':>7}{'AUC':>7}{'MPD':>7}  " + "".join(f"{s:>6}" for s in shown)
    lines += ["", head]
    for name, group in groups(report):
        figures = [100 * group["nme"], 100 * group["failure_rate"], 100 * group["auc"], group["mpd"]]
        cells = "".join(f"{_figure(v, 2):>7}" for v in figures)
        rights = "".join(f"{_figure(group['ppr'][s], 1):>6}" for s in shown)
        lines.append(f"{name:24}{group['faces']:>7}{cells}  {rights}")
    return "\n".join(lines) + "\n"


def groups(report: dict) -> list[tuple[str, dict]]:
    """(name, summary) of every group of a report."""
    named = [("all", report["all"]), ("iBUG-68 subset", report["ibug68"]), *report["parts"].items()]
    for name, values in report["attributes"].items():
        named += [(f"{name}: {value}", group) for value, group in values.items()]
    return named


def _figure(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


# Plots; matplotlib is imported where it is needed, and its global state left alone.


def plot_ppr(report: dict, path: Path) -> None:
    """Bars: percentage of points right within 1 .. 10 pixels, all points and the iBUG-68 subset."""
    figure, axes = _new_figure(7, 4)
    x = np.array(PPR_PIXELS)
    for shift, (name, group) in zip((-0.2, 0.2), groups(report)[:2]):
        bars = axes.bar(x + shift, group["ppr"].values(), 0.4, label=name)
        axes.bar_label(bars, fmt="%.0f", fontsize=7)
    axes.set(xlabel=f"pixels {report['pixels']}", ylabel="points right, %", xticks=x, ylim=(0, 105))
    axes.legend(loc="upper left")
    figure.savefig(path)


def plot_ced(face_nme: dict[str, np.ndarray], report: dict, path: Path) -> None:
    """Cumulative error distribution of the faces' NME, name -> (N,), up to the failure bar."""
    figure, axes = _new_figure(6, 4)
    bar = 100 * report["failure_bar"]
    for name, values in face_nme.items():
        values = np.sort(values[~np.isnan(values)])
        share = 100 * np.arange(len(values) + 1) / max(len(values), 1)
        label = f"{name}: AUC {100 * auc(values):.1f} %, failures {100 * failure_rate(values):.1f} %"
        axes.step(np.concatenate([[0], 100 * values]), share, where="post", label=label)
    axes.set(xlabel=f"NME, % of the {_length(report)}", ylabel="faces, %")
    axes.set(xlim=(0, bar), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)


def plot_points(report: dict, data: Annotations, path: Path) -> None:
    """The mean face, each point's disc as large and as bright as its mean error; points without truth are left out."""
    figure, axes = _new_figure(8, 7)
    face, errors = mean_face(data), 100 * np.array(report["points"])
    for segment in (segment for part in LINES.values() for segment in part):
        axes.plot(*face[list(segment)].T, color="0.8", lw=1, zorder=0)
    known = ~np.isnan(errors) & ~np.isnan(face).any(axis=1)
    size = LARGEST_DISC * errors[known] / max(errors[known], default=1)
    discs = axes.scatter(*face[known].T, s=size, c=errors[known], cmap="plasma", edgecolors="black", lw=0.4)
    for i in np.flatnonzero(known):
        axes.annotate(str(i), face[i], xytext=(4, 4), textcoords="offset points", fontsize=5)
    figure.colorbar(discs, label=f"mean error, % of the {_length(report)}", shrink=0.8)
    axes.set_aspect("equal")
    axes.invert_yaxis()
    axes.axis("off")
    figure.savefig(path)


def _length(report: dict) -> str:
    return report["normaliser_is"].split(",")[0]


def mean_face(data: Annotations) -> np.ndarray:
    """Mean of the annotated points (106, 2), each face about its box's middle, box area 1; nan: none annotated."""
    low, high = data.boxes[:, None, :2], data.boxes[:, None, 2:]  # (N, 1, 2)
    places = (data.points - (low + high) / 2) / np.sqrt(np.prod(high - low, axis=2, keepdims=True))
    return np.stack([face_means(places[..., axis].T, data.visible.T) for axis in (0, 1)], axis=1)


def _new_figure(width: float, height: float):
    from matplotlib.figure import Figure  # not pyplot: nothing global, no display

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.add_subplot()


# The command


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    try:
        check(opt)
        run(opt)
    except (ValueError, FileNotFoundError) as error:
        print(f"evaluation.py: {sentence(error)}", file=sys.stderr)
        sys.exit(2)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--dataset", default="dt_fac_106_ldmks", help=f"one of {', '.join(READERS)}")
    add("--dataRoot", type=Path, help="folder of the data set; default ../data/DATASET")
    add("--split", default="val", help=f"one of {', '.join(SPLITS)}")
    add("--weights", type=Path, default=WEIGHTS_FOLDER / "face106-lite.pth", help="a shipped .pth or a model_N.pkl")
    add("--outdir", type=Path, help="default ../exp/evaluation/DATASET_SPLIT")
    add("--flip", action="store_true", help="flip test: the mean over each crop and its mirror image")
    add("--decode", default=DEFAULT_DECODER, help=f"heatmaps to points, one of {', '.join(DECODERS)}")
    add("--boxes", default="true", help="true: as annotated; dpg: with a detector's errors")
    add("--normaliser", default="outer_eyes", help=f"of NME, one of {', '.join(NORMALISERS)}")
    add("--faceSize", type=float, help="measure PPR and MPD as if each face box were so many pixels wide and high")
    add("--inputResH", type=int, help="height of the crops; default: what the weights say, else 256")
    add("--inputResW", type=int, help="width of the crops; default: what the weights say, else 256")
    add("--batch", type=int, default=64, help="faces at a time")
    add("--nThreads", type=int, default=2, help="worker processes that load pictures; no more than there are cores")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto, fp32, bf16 or fp16")
    add("--seed", type=int, default=0, help="of --boxes dpg")
    return parser


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError naming the first option that makes no sense, its value and the choices."""
    choices = {"split": SPLITS, "decode": DECODERS, "boxes": BOXES, "normaliser": NORMALISERS}
    for name, allowed in choices.items():
        value = getattr(opt, name)
        if value not in allowed:
            raise ValueError(f"unknown --{name} {value!r}; choose one of {', '.join(allowed)}")
    if (opt.inputResH is None) != (opt.inputResW is None):
        raise ValueError("--inputResH and --inputResW go together; give both or neither")
    for name in ("batch", "inputResH", "inputResW", "faceSize"):
        value = getattr(opt, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name} {value} must be positive")


def run(opt: argparse.Namespace) -> None:
    """Predict, measure, print, write."""
    root = opt.dataRoot or HERE.parent / "data" / opt.dataset
    outdir = opt.outdir or HERE.parent / "exp" / "evaluation" / f"{opt.dataset}_{opt.split}"
    data = build_dataset(opt.dataset, root, opt.split)
    if not len(data):
        raise ValueError(f"{root} has no {opt.split} samples")
    size = (opt.inputResH, opt.inputResW) if opt.inputResH else None
    estimator = Estimator(opt.weights, NUM_POINTS, size, opt.device, opt.precision, opt.flip, opt.decode)
    pred = predict(estimator, data, opt)
    report = {
        **{"dataset": opt.dataset, "split": opt.split, "weights": str(opt.weights), "boxes": opt.boxes},
        **{"input_size": list(estimator.input_size), "flip": opt.flip, "decode": opt.decode},
        **build_report(pred, data, opt.normaliser, opt.faceSize),
    }
    text = f"{opt.dataset} {opt.split}, {len(data)} faces, {opt.weights}\n{table(report)}"
    outdir.mkdir(parents=True, exist_ok=True)
    plot_ppr(report, outdir / "ppr.png")
    arrays = pred, data.points, data.visible, opt.normaliser, data.boxes
    curves = {"all": range(NUM_POINTS), "iBUG-68 subset": IBUG68}
    plot_ced({name: nme(*arrays, points) for name, points in curves.items()}, report, outdir / "ced.png")
    plot_points(report, data, outdir / "points.png")
    (outdir / "table.txt").write_text(text, encoding="utf-8")
    write_json(report, outdir / "evaluation.json")
    print(text, f"written: {outdir}", sep="")


def predict(estimator: Estimator, data: Annotations, opt: argparse.Namespace) -> np.ndarray:
    """Points (N, 106, 2), image pixels, of every face."""
    dpg = build_dpg("face") if opt.boxes == "dpg" else None
    faces = FaceDataset(data, estimator.input_size, dpg=dpg, seed=opt.seed)
    workers = min(opt.nThreads, os.cpu_count() or 1)
    loader = DataLoader(faces, opt.batch, num_workers=workers, worker_init_fn=_one_thread)
    return np.concatenate([estimator(batch["crop"].numpy(), batch["affine"].numpy())[0] for batch in loader])


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism


def write_json(report: dict, path: Path) -> None:
    """Write under a temporary name, then rename; what is not known becomes null."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(_no_nan(report), indent=1, ensure_ascii=False), encoding="utf-8")
    temporary.replace(path)


def _no_nan(value):
    if isinstance(value, dict):
        return {key: _no_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_no_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


if __name__ == "__main__":
    main()
