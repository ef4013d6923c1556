"""How well a network finds the points of a data set; from train_sppe/src:

    python evaluation.py --dataset dt_fac_106_ldmks --split val --weights ../../models/sppe/face106-lite.pth
    python evaluation.py --dataset 300w --dataRoot 300w --split test --weights ../exp/coco/stg_2/model_best.pkl --flip
    python evaluation.py --split val --boxes detector --normaliser pupils --outdir ../exp/evaluation/detector_boxes
    python evaluation.py --dataRoot ../data/faces68 --convention ibug

Writes OUTDIR/evaluation.json, table.txt, failures.txt (utils/lists.py), ppr.png, ced.png and points.png; plot.py draws
several runs together. Measures, over the annotated points only:

    PPR   percentage of points right: within 1, 2, .. 10 pixels of the truth
    MPD   weighted mean pixel distance (PART_WEIGHTS)
    NME   normalised mean error of a face: its mean distance over a length of that face; then the mean over the faces
    failure rate, AUC: of the faces' NME, with FAILURE_BAR as the bar and as the end of the curve

A face without the points that its normaliser is taken between counts in PPR and MPD only; the report says how many.
A face that the detector missed (--boxes detector) has failed, and its points are wrong in PPR; as no distance is known,
it is not in NME and MPD. doc/metrics.md says how to read all this.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))

import plot
from predictor import DEFAULT_DETECTOR, FacePredictor
from runtime import load_runtime
from SPPE.src.landmarks import IBUG68, NUM_POINTS, OUTER_EYES, PART_OF, PARTS, PUPILS, to_68
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.eval import DECODERS
from SPPE.src.utils.files import write_whole
from SPPE.src.utils.imread import load_image
from utils.command import complaints, one_of
from utils.dataset import READERS, SPLITS, build_dataset
from utils.dataset.base import Annotations, FaceDataset, make_loader
from utils.dpg import build_dpg
from utils.lists import names_of, numbers_of, write_list
from yolo.bbox import iou_matrix

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

BOXES = ("true", "dpg", "detector")

# The detector's box is the annotated face's when they overlap by this much (IoU). Boxes drawn by two sensible rules
# around one face do, boxes around neighbours do not.
SAME_FACE = 0.3

# Whose places the labels follow where the two differ (upper jaw, lids, inner lips); predictions follow LaPa.
CONVENTIONS = ("lapa", "ibug")

# Degrees of yaw to either side, for faces with an attribute `pose` such as "yaw -13 pitch 4 roll 1".
YAW_BANDS = ((0, 30), (30, 60), (60, 90), (0, 60))
YAW = re.compile(r"\byaw (-?\d+(?:\.\d+)?)")

# An attribute with more values than this is cut into NUMBER_BANDS of equal count if they are numbers, else left out.
MOST_VALUES, NUMBER_BANDS = 20, 4

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


def in_convention(pred: np.ndarray, convention: str = "lapa") -> np.ndarray:
    """Predictions (N, 106, 2) moved to where labels of that convention lie; "ibug" moves its 68 points by `to_68`.

    Rows that are not finite (faces that were missed) stay as they are.

    Raises:
        ValueError: unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown --convention {convention!r}; choose one of {', '.join(CONVENTIONS)}")
    moved, rows = pred.copy(), np.isfinite(pred).all(axis=(1, 2))
    if convention == "ibug" and rows.any():
        moved[np.ix_(rows, list(IBUG68))] = to_68(pred[rows])
    return moved


# The report


def summarise(errors: np.ndarray, mask: np.ndarray, scale: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> dict:
    """All measures of some points of some faces.

    Args:
        errors, mask: (N, K); errors in image pixels, infinite for a face that was missed.
        scale: (N,) of `face_scale`.
        unit: (N,) image pixels in one pixel of PPR and MPD; ones for image pixels.
        weights: (K,).
    """
    face_nme, pixels = face_means(errors, mask) / scale, errors / unit[:, None]
    missed = np.isinf(errors).any(axis=1)
    return {
        "faces": len(errors),
        "faces_missed": int(missed.sum()),
        "faces_without_normaliser": int(np.isnan(scale).sum()),
        "points": int((mask > 0).sum()),
        "nme": _nan_mean(face_nme[~missed]),
        "failure_rate": failure_rate(face_nme),
        "auc": auc(face_nme),
        "mpd": mpd(pixels[~missed], mask[~missed], weights),
        "ppr": dict(zip(map(str, PPR_PIXELS), ppr(pixels, mask).tolist())),
    }


def build_report(
    pred: np.ndarray,
    data: Annotations,
    normaliser: str = "outer_eyes",
    face_size: float | None = None,
    names: Sequence[str] | None = None,
) -> dict:
    """The whole report on predictions (N, 106, 2), image pixels; those of a face that was missed are infinite.

    Args:
        normaliser: of NME, one of NORMALISERS.
        face_size: measure PPR and MPD as if each face's box had an area of face_size ** 2; None: in image pixels.
        names: of the pictures, default their file names.
    Returns:
        plain values and lists. Of `summarise` each: `all`, `ibug68`, `visible_only` (points that are in sight),
        `parts`, `attributes`, `yaw` and `visible_only_yaw` (bands of degrees). `faces`: each face's error, as columns.
        `points`, `mean_face`, `failures`, `worst`, ...
    """
    mask, errors = data.visible, distances(pred, data.points)
    scale = face_scale(data.points, mask, normaliser, data.boxes)
    unit = face_scale(data.points, mask, "box", data.boxes) / face_size if face_size else np.ones(len(data))
    in_sight = np.where(mask == 2, mask, 0)

    def summary(rows=slice(None), points=range(NUM_POINTS), mask=mask) -> dict:
        points = list(points)
        return summarise(errors[rows][:, points], mask[rows][:, points], scale[rows], unit[rows], POINT_WEIGHTS[points])

    yaw = yaw_bands(data)
    bands = {n: attribute_bands(values) for n, values in data.attributes.items() if not (yaw and n == "pose")}
    face_nme, face_68 = (face_means(errors[:, p], mask[:, p]) / scale for p in (range(NUM_POINTS), list(IBUG68)))
    names, missed = list(names or [path.name for path in data.images]), np.isinf(errors).any(axis=1)
    faces = {"image": names, "face": numbers_of(names), "missed": missed.tolist()}
    order = np.argsort(-np.nan_to_num(face_nme, nan=-1))
    told = [{"image": names[i], "face": faces["face"][i], "nme": float(face_nme[i])} for i in order]
    return {
        "normaliser": normaliser,
        "normaliser_is": NORMALISERS[normaliser],
        "pixels": f"of a face box of {face_size:g} x {face_size:g}" if face_size else "of the image",
        "failure_bar": FAILURE_BAR,
        "weights_of_mpd": PART_WEIGHTS,
        "all": summary(),
        "ibug68": summary(points=IBUG68),
        "visible_only": summary(mask=in_sight),
        "parts": {part: summary(points=points) for part, points in PARTS.items()},
        "yaw": {band: summary(rows) for band, rows in yaw.items()},
        "visible_only_yaw": {band: summary(rows, mask=in_sight) for band, rows in yaw.items()},
        "attributes": {name: {band: summary(rows) for band, rows in own.items()} for name, own in bands.items() if own},
        "attributes_left_out": {n: len(np.unique(data.attributes[n])) for n, own in bands.items() if not own},
        "points": _point_means(errors[~missed], mask[~missed], scale[~missed]).tolist(),
        "mean_face": mean_face(data).tolist(),
        "failures": [face for face, i in zip(told, order) if face_nme[i] > FAILURE_BAR],
        "worst": told[:WORST],
        "faces": faces | {"nme": face_nme.tolist(), "nme_ibug68": face_68.tolist()},
    }


def _point_means(errors: np.ndarray, mask: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Mean normalised error of each point, (K,); faces without a normaliser do not count."""
    return face_means((errors / scale[:, None]).T, (mask * ~np.isnan(scale)[:, None]).T)


def mean_face(data: Annotations) -> np.ndarray:
    """Mean of the annotated points (106, 2), each face about its box's middle, box area 1; nan: none annotated."""
    low, high = data.boxes[:, None, :2], data.boxes[:, None, 2:]  # (N, 1, 2)
    places = (data.points - (low + high) / 2) / np.sqrt(np.prod(high - low, axis=2, keepdims=True))
    return np.stack([face_means(places[..., axis].T, data.visible.T) for axis in (0, 1)], axis=1)


def yaw_bands(data: Annotations) -> dict[str, np.ndarray]:
    """Faces (N,) bool of each of YAW_BANDS, from the attribute `pose`; {} where no pose tells the yaw."""
    found = [YAW.search(pose) for pose in data.attributes.get("pose", ())]
    if not any(found):
        return {}
    yaw = np.abs([float(match[1]) if match else np.nan for match in found])
    # a turn that lies on a bar belongs to the band below, 0 to the first
    return {f"{low}-{high}": (yaw > low if low else yaw >= 0) & (yaw <= high) for low, high in YAW_BANDS}


def attribute_bands(values: np.ndarray) -> dict[str, np.ndarray]:
    """Faces (N,) bool of each value of an attribute (N,); of bands if there are many numbers; {} for many words."""
    different = np.unique(values)
    if len(different) <= MOST_VALUES:
        return {str(value): values == value for value in different}
    try:
        numbers = np.where(values == "", "nan", values).astype(float)
    except ValueError:
        return {}
    known = np.isfinite(numbers)
    if not known.any():
        return {}
    bars = np.unique(np.quantile(numbers[known], np.linspace(0, 1, NUMBER_BANDS + 1)))
    bands = [(low, high, (numbers > low) & (numbers <= high)) for low, high in pairwise(bars)]
    bands[0][2][numbers == bars[0]] = True
    named = {f"{numbers[rows].min():.10g} to {numbers[rows].max():.10g}": rows for _, _, rows in bands if rows.any()}
    return named if known.all() else {**named, "unknown": ~known}


def table(report: dict) -> str:
    """The report as text, a line a group."""
    shown = [str(p) for p in PPR_PIXELS]
    lines = [
        f"NME, over the {report['normaliser_is']},",
        f"failure rate (NME above {100 * report['failure_bar']:g} %) and AUC (up to there) in %;",
        f"MPD, and PPR at 1 .. 10, in pixels {report['pixels']}",
    ]
    without, missed = report["all"]["faces_without_normaliser"], report["all"]["faces_missed"]
    if without:
        lines.append(f"{without} of {report['all']['faces']} faces lack the normaliser's points: not in NME, fail, AUC")
    if missed:
        lines.append(f"{missed} of {report['all']['faces']} faces were missed: failed, and not in NME, MPD")
    for name, count in report["attributes_left_out"].items():
        lines.append(f"attribute {name} has {count} values, too many for a line each")
    head = f"{'':24}{'faces':>7}{'NME':>7}{'fail':>7}{'AUC':>7}{'MPD':>7}  " + "".join(f"{s:>6}" for s in shown)
    lines += ["", head]
    for name, group in groups(report):
        figures = [100 * group["nme"], 100 * group["failure_rate"], 100 * group["auc"], group["mpd"]]
        cells = "".join(f"{_figure(v, 2):>7}" for v in figures)
        rights = "".join(f"{_figure(group['ppr'][s], 1):>6}" for s in shown)
        lines.append(f"{name:24}{group['faces']:>7}{cells}  {rights}")
    if report["failures"]:
        lines += ["", f"failures: {len(report['failures'])} of {report['all']['faces']} faces, the worst first"]
        lines += [f"    {face['image']}  {_told(face)}" for face in report["failures"][:WORST]]
    return "\n".join(lines) + "\n"


def groups(report: dict) -> list[tuple[str, dict]]:
    """(name, summary) of every group of a report; those that repeat another's points or hold no face are left out."""
    named = [("all", report["all"]), ("iBUG-68 subset", report["ibug68"])]
    some_hidden = report["visible_only"]["points"] < report["all"]["points"]
    named += [("visible only", report["visible_only"])] if some_hidden else []
    named += report["parts"].items()
    named += [(f"yaw {band}", group) for band, group in report["yaw"].items()]
    if some_hidden:
        named += [(f"yaw {band}, visible only", group) for band, group in report["visible_only_yaw"].items()]
    for name, values in report["attributes"].items():
        named += [(f"{name}: {value}", group) for value, group in values.items()]
    return [(name, group) for name, group in named if group["faces"]]


def _figure(value: float, digits: int) -> str:
    return "-" if np.isnan(value) else f"{value:.{digits}f}"


def _told(face: dict) -> str:
    return "missed" if np.isinf(face["nme"]) else f"NME {100 * face['nme']:.1f} %"


# The command


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("evaluation.py"):
        check(opt)
        run(opt)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_data(parser)
    add("--weights", type=Path, default=WEIGHTS_FOLDER / "face106-lite.pth", help="a shipped .pth or a model_N.pkl")
    add("--outdir", type=Path, help="default ../exp/evaluation/DATASET_SPLIT")
    add("--flip", action="store_true", help="flip test: the mean over each crop and its mirror image")
    add("--decode", help=f"heatmaps to points, one of {', '.join(DECODERS)}; default: what the weights say")
    add("--boxes", default="true", help="true: as annotated; dpg: with a detector's errors; detector: found by one")
    add("--detector", type=Path, help="weights for --boxes detector, with yolo/cfg/NAME.cfg; default face106-det")
    add("--convention", default="lapa", help="of the labels' 68 points: lapa, or ibug: predictions go through to_68")
    add("--normaliser", default="outer_eyes", help=f"of NME, one of {', '.join(NORMALISERS)}")
    add("--faceSize", type=float, help="measure PPR and MPD as if each face box were so many pixels wide and high")
    add("--inputResH", type=int, help="height of the crops; default: what the weights say, else 256")
    add("--inputResW", type=int, help="width of the crops; default: what the weights say, else 256")
    add("--seed", type=int, default=0, help="of --boxes dpg")
    add_speed(parser)
    return parser


def add_data(parser: argparse.ArgumentParser, split: str = "val") -> None:
    """The options that name faces; the tools have them too."""
    add = parser.add_argument
    add("--dataset", default="dt_fac_106_ldmks", help=f"one of {', '.join(READERS)}")
    add("--dataRoot", type=Path, help="folder of the data set; default ../data/DATASET")
    add("--split", default=split, help=f"one of {', '.join(SPLITS)}; default {split}")


def add_speed(parser: argparse.ArgumentParser) -> None:
    """The options of how to compute; the tools have them too."""
    add = parser.add_argument
    add("--batch", type=int, default=64, help="faces at a time")
    add("--nThreads", type=int, default=2, help="worker processes that load pictures; no more than there are cores")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto, fp32, bf16, fp16; int8 with --runtime")
    add("--runtime", default="pytorch", help="pytorch, or on the CPU onnx or openvino (doc/export.md)")


def speed(opt: argparse.Namespace) -> dict:
    """What `add_speed`'s options say to an `Estimator`.

    Raises:
        ValueError: as `load_runtime`.
    """
    runtime = load_runtime(opt.runtime, opt.precision, opt.device)
    return {"device": opt.device, "precision": opt.precision, "runtime": runtime}


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError naming the first option that makes no sense, its value and the choices."""
    one_of(opt, split=SPLITS, decode=DECODERS, boxes=BOXES, normaliser=NORMALISERS, convention=CONVENTIONS)
    if (opt.inputResH is None) != (opt.inputResW is None):
        raise ValueError("--inputResH and --inputResW go together; give both or neither")
    for name in ("batch", "inputResH", "inputResW", "faceSize"):
        value = getattr(opt, name)
        if value is not None and value <= 0:
            raise ValueError(f"--{name} {value} must be positive")


def run(opt: argparse.Namespace) -> None:
    """Predict, measure, print, write."""
    data, root = read_data(opt)
    outdir = opt.outdir or HERE.parent / "exp" / "evaluation" / f"{opt.dataset}_{opt.split}"
    size = (opt.inputResH, opt.inputResW) if opt.inputResH else None
    estimator = Estimator(opt.weights, NUM_POINTS, size, flip=opt.flip, decode=opt.decode, **speed(opt))
    pred, _, overlap = predict_in_boxes(estimator, data, opt)
    names = names_of(data, root)
    report = {
        **{"dataset": opt.dataset, "split": opt.split, "weights": str(opt.weights), "boxes": opt.boxes},
        **{"input_size": list(estimator.input_size), "flip": opt.flip, "decode": estimator.decode},
        **{"convention": opt.convention, "box_iou": overlap},
        **build_report(in_convention(pred, opt.convention), data, opt.normaliser, opt.faceSize, names),
    }
    text = f"{opt.dataset} {opt.split}, {len(data)} faces, {opt.weights}, boxes {opt.boxes}\n{table(report)}"
    outdir.mkdir(parents=True, exist_ok=True)
    write_plots(report, outdir)
    (outdir / "table.txt").write_text(text, encoding="utf-8")
    write_list(outdir / "failures.txt", [(f["image"], f["face"], _told(f)) for f in report["failures"]])
    write_json(report, outdir / "evaluation.json")
    print(text, f"written: {outdir}", sep="")


def write_plots(report: dict, outdir: Path) -> None:
    """The pictures of one run, by plot.py, which draws several runs as well."""
    shown = {"all": "all", "iBUG-68 subset": "ibug68"}
    plot.ppr({name: (report, group) for name, group in shown.items()}, outdir / "ppr.png")
    plot.ced({name: (report, group) for name, group in shown.items()}, outdir / "ced.png")
    plot.points({"": report}, outdir / "points.png")


def read_data(opt: argparse.Namespace) -> tuple[Annotations, Path]:
    """The faces that the options name, and the data set's folder.

    Raises:
        FileNotFoundError, ValueError: as `build_dataset`, or no face.
    """
    root = opt.dataRoot or HERE.parent / "data" / opt.dataset
    data = build_dataset(opt.dataset, root, opt.split)
    if not len(data):
        raise ValueError(f"{root} has no {opt.split} samples")
    return data, root


def predict_in_boxes(
    estimator: Estimator, data: Annotations, opt: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Points (N, 106, 2), image pixels, and scores (N, 106) of every face, in the boxes that --boxes names.

    A face that the detector missed has infinite points, and scores of 0. The third is the mean IoU of the detector's
    boxes with the annotated ones, None without a detector.
    """
    if opt.boxes != "detector":
        dpg = build_dpg("face") if opt.boxes == "dpg" else None
        return *predict(estimator, data, opt, dpg), None
    boxes, overlap = detect(data, make_detector(opt, estimator))
    found = np.flatnonzero(overlap)
    points = np.full((len(data), NUM_POINTS, 2), np.inf, np.float32)
    scores = np.zeros((len(data), NUM_POINTS), np.float32)
    if len(found):
        points[found], scores[found] = predict(estimator, replace(data, boxes=boxes).take(found), opt)
    return points, scores, float(overlap[found].mean()) if len(found) else None


def make_detector(opt: argparse.Namespace, estimator: Estimator) -> Callable[[np.ndarray], np.ndarray]:
    """The whole pipeline as a detector: a picture (H, W, 3) uint8 RGB -> the boxes of its faces (K, 4)."""
    predictor = FacePredictor(
        opt.weights,
        opt.detector or DEFAULT_DETECTOR,
        nClasses=NUM_POINTS,
        input_size=estimator.input_size,
        flip=opt.flip,
        decode=estimator.decode,
        **{name: getattr(opt, name) for name in ("device", "precision", "runtime")},
    )
    return lambda image: np.array([face.box for face in predictor(image)], np.float32).reshape(-1, 4)


def detect(data: Annotations, detector: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Of the boxes found in each face's picture the one that overlaps the annotated box best.

    Returns:
        boxes (N, 4) image pixels; their IoU with the annotated ones (N,), 0 where none reaches SAME_FACE: missed.
    Raises:
        UnreadableImage: a picture cannot be read.
    """
    boxes, overlap = data.boxes.copy(), np.zeros(len(data))
    rows_of: dict[Path, list[int]] = {}
    for row, path in enumerate(data.images):
        rows_of.setdefault(path, []).append(row)
    for path, rows in tqdm(rows_of.items(), "detector", disable=None, leave=False):
        found = torch.from_numpy(detector(load_image(path)))
        if not len(found):
            continue
        best, which = iou_matrix(torch.from_numpy(data.boxes[rows]).float(), found.float()).max(1)
        same = best.numpy() >= SAME_FACE
        boxes[rows] = np.where(same[:, None], found.numpy()[which.numpy()], boxes[rows])
        overlap[rows] = np.where(same, best.numpy(), 0)
    return boxes, overlap


def predict(
    estimator: Estimator, data: Annotations, opt: argparse.Namespace, dpg=None
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 106, 2), image pixels, and scores (N, 106) of every face in its annotated box, or moved by `dpg`."""
    faces = FaceDataset(data, estimator.input_size, dpg=dpg, seed=getattr(opt, "seed", 0), growth=estimator.growth)
    loader = make_loader(faces, opt.batch, opt.nThreads)
    results = [
        estimator(batch["crop"].numpy(), batch["affine"].numpy())
        for batch in tqdm(loader, "faces", disable=None, leave=False)
    ]
    points, scores = (np.concatenate(kind) for kind in zip(*results))
    return points, scores


def write_json(report: dict, path: Path) -> None:
    """As `write_whole`; what is not known, or infinite, becomes null."""
    write_whole(json.dumps(_finite(report), indent=1, ensure_ascii=False).encode(), path)


def _finite(value):
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


if __name__ == "__main__":
    main()
