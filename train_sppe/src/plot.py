"""Pictures of what evaluation.py and train.py wrote, several runs together; from train_sppe/src:

    python plot.py ced      ../exp/evaluation/lite ../exp/evaluation/base --out ced.png
    python plot.py ppr      ../exp/evaluation/lite ../exp/evaluation/base --out ppr.png --group visible_only
    python plot.py points   ../exp/evaluation/lite ../exp/evaluation/base --out points.png
    python plot.py curves   ../exp/coco/stg_1 ../exp/coco/stg_2 --out curves.png
    python plot.py heatmaps ../../examples/imgs/grace_hopper.jpg --weights face106-lite --out heatmaps.png

ced       cumulative error distribution: the share of faces whose NME is at most x, from each run's evaluation.json
ppr       bars: the percentage of points right within 1 .. 10 pixels
points    each point's mean error on the mean face
curves    loss, accuracy, NME and learning rate by epoch, from each run's log.jsonl
heatmaps  of the best face of a photograph, a tile a part (or --points 66 79 ..., or --points all), over its crop

It stands beside evaluation.py, which draws one run by the same functions: a figure is written once, for one run or
many. A run is a folder or its file; --names says what the legend calls each, default the folder's name. NME is a share
of what the run was normalised by: runs with different normalisers are refused.
"""

import argparse
import json
import sys
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))

from SPPE.src.landmarks import LINES, NAMES, NUM_POINTS, PARTS
from utils.command import complaints

# Area in square points (matplotlib's `s`) of the disc of the worst point: its neighbours on the eyes stay visible.
LARGEST_DISC = 120

# Side of a heatmap's tile, pixels; how strongly heat covers the picture.
TILE, HEAT = 256, 0.65

# Which figures of a log are drawn, in this order, and how the axis is called; what a log lacks is left out.
CURVES = {"loss": "loss", "accuracy": "accuracy, %", "nme": "NME, %", "LR": "learning rate"}

# The halves of a log and how their lines are drawn.
HALVES = {"train": "--", "val": "-"}

# Groups whose faces' own errors evaluation.json holds.
FACE_GROUPS = {"all": "nme", "ibug68": "nme_ibug68"}


# Figures: data in, a file out. matplotlib is imported where it is needed, and its global state left alone.


def ced(runs: dict[str, tuple[dict, str]], path: Path) -> None:
    """Cumulative error distributions up to the failure bar: label -> (report, "all" or "ibug68")."""
    figure, axes = new_figure(6, 4)
    report = _one_normaliser([report for report, _ in runs.values()])
    for label, (own, group) in runs.items():
        values, summary = face_errors(own, group), own[group]
        values = np.sort(values[~np.isnan(values)])
        share = 100 * np.arange(len(values) + 1) / max(len(values), 1)
        figures = f"AUC {_percent(summary['auc'])} %, failures {_percent(summary['failure_rate'])} %"
        axes.step(np.concatenate([[0], 100 * values]), share, where="post", label=f"{label}: {figures}")
    axes.set(xlabel=f"NME, % of the {_length(report)}", ylabel="faces, %")
    axes.set(xlim=(0, 100 * report["failure_bar"]), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path)


def face_errors(report: dict, group: str = "all") -> np.ndarray:
    """NME of each face of a report (N,), its JSON or fresh: nan where not known, inf where the face was missed.

    Raises:
        ValueError: a group whose faces' errors are not kept.
    """
    if group not in FACE_GROUPS:
        raise ValueError(f"no errors of single faces for {group!r}; choose one of {', '.join(FACE_GROUPS)}")
    return np.where(report["faces"]["missed"], np.inf, numbers(report["faces"][FACE_GROUPS[group]]))


def ppr(runs: dict[str, tuple[dict, str]], path: Path) -> None:
    """Bars: percentage of points right within 1 .. 10 pixels: label -> (report, group)."""
    pixels = {report["pixels"] for report, _ in runs.values()}
    if len(pixels) > 1:
        raise ValueError(f"PPR of these runs is in different pixels: {'; '.join(sorted(pixels))}")
    figure, axes = new_figure(max(7, 2 + 2.5 * len(runs)), 4)
    width = 0.8 / len(runs)
    for i, (label, (report, group)) in enumerate(runs.items()):
        right = {int(pixel): share for pixel, share in report[group]["ppr"].items()}
        shift = (i - (len(runs) - 1) / 2) * width
        bars = axes.bar(np.array(list(right)) + shift, numbers(list(right.values())), width, label=label)
        axes.bar_label(bars, fmt="%.0f", fontsize=7 if len(runs) < 3 else 5)
        axes.set_xticks(list(right))
    axes.set(xlabel=f"pixels {pixels.pop()}", ylabel="points right, %", ylim=(0, 105))
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path)


def points(runs: dict[str, dict], path: Path) -> None:
    """The mean face, each point's disc as large and as bright as its mean error; one scale for all runs."""
    figure, all_axes = new_figure(8 if len(runs) == 1 else 6 * len(runs), 7, columns=len(runs))
    report = _one_normaliser(list(runs.values()))
    worst = max((np.nanmax(numbers(own["points"]), initial=0) for own in runs.values()), default=0) * 100 or 1
    for axes, (label, own) in zip(np.ravel(all_axes), runs.items()):
        face, errors = numbers(own["mean_face"]), 100 * numbers(own["points"])
        for segment in (segment for part in LINES.values() for segment in part):
            axes.plot(*face[list(segment)].T, color="0.8", lw=1, zorder=0)
        known = ~np.isnan(errors) & ~np.isnan(face).any(axis=1)
        how = {"s": LARGEST_DISC * errors[known] / worst, "c": errors[known], "cmap": "plasma", "vmin": 0}
        discs = axes.scatter(*face[known].T, **how, vmax=worst, edgecolors="black", lw=0.4)
        for i in np.flatnonzero(known):
            axes.annotate(str(i), face[i], xytext=(4, 4), textcoords="offset points", fontsize=5)
        axes.set_title(label)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.axis("off")
    figure.colorbar(discs, ax=all_axes, label=f"mean error, % of the {_length(report)}", shrink=0.8)
    figure.savefig(path)


def curves(logs: dict[str, list[dict]], path: Path) -> None:
    """What each epoch gave, label -> the lines of a log.jsonl: validation drawn through, training dashed.

    Raises:
        ValueError: no epoch in any log.
    """
    told = {name for log in logs.values() for line in log for name in line}
    shown = [name for name in CURVES if any(f"{half}/{name}" in told for half in HALVES)]
    if not shown:
        raise ValueError("no epoch in these logs yet")
    figure, all_axes = new_figure(3.6 * len(shown), 3.4, columns=len(shown))
    for axes, name in zip(np.ravel(all_axes), shown):
        for i, (label, log) in enumerate(logs.items()):
            for half, style in HALVES.items():
                lines = [line for line in log if line.get(f"{half}/{name}") is not None]
                factor = 100 if CURVES[name].endswith("%") else 1
                epochs, values = [line["epoch"] for line in lines], [factor * line[f"{half}/{name}"] for line in lines]
                if lines:
                    marker = "." if len(lines) == 1 else None
                    axes.plot(epochs, values, style, color=f"C{i}", marker=marker, lw=1.2, label=f"{label}, {half}")
        axes.set(xlabel="epoch", title=CURVES[name])
        if name == "loss":  # runs may have losses of different kinds
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    lines, labels = np.ravel(all_axes)[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(path)


def heat_tiles(
    crop: np.ndarray, heatmaps: np.ndarray, tiles: dict[str, list[int]], side: int = TILE
) -> list[np.ndarray]:
    """A crop once for each tile, under the heat of that tile's points (their highest at each place).

    Args:
        crop: (H, W, 3) uint8 RGB. heatmaps: (K, h, w) of that crop. tiles: name -> points.
    Returns:
        pictures (side, side * W / H, 3) uint8 RGB; the grid of the heatmap's pixels is drawn in.
    """
    width = round(side * crop.shape[1] / crop.shape[0])
    face = cv2.resize(crop, (width, side), interpolation=cv2.INTER_LINEAR)
    pictures = []
    for own in tiles.values():
        heat = np.clip(heatmaps[own].max(axis=0), 0, 1)  # (h, w)
        strength = HEAT * cv2.resize(heat, (width, side), interpolation=cv2.INTER_NEAREST)[..., None]
        colour = cv2.applyColorMap((255 * heat).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        colour = cv2.resize(colour, (width, side), interpolation=cv2.INTER_NEAREST)
        picture = (face * (1 - HEAT / 2) * (1 - strength) + colour * np.maximum(strength, 0.1)).clip(0, 255)
        rows, columns = (np.linspace(0, n, count + 1)[1:-1].astype(int) for n, count in zip((side, width), heat.shape))
        picture[rows] = 0.85 * picture[rows] + 20
        picture[:, columns] = 0.85 * picture[:, columns] + 20
        pictures.append(picture.astype(np.uint8))
    return pictures


def new_figure(width: float, height: float, columns: int = 1):
    """-> a figure and its axes, an array of them for several columns."""
    from matplotlib.figure import Figure  # not pyplot: nothing global, no display

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots(1, columns)


def numbers(values: list) -> np.ndarray:
    """A list (of lists) of numbers and None -> float array with nan."""
    return np.array(values, dtype=float)


def _one_normaliser(reports: list[dict]) -> dict:
    """The first report; ValueError where the others divide by another length."""
    different = sorted({report["normaliser"] for report in reports})
    if len(different) > 1:
        raise ValueError(f"these runs' NME is over different lengths: {', '.join(different)}")
    return reports[0]


def _length(report: dict) -> str:
    return report["normaliser_is"].split(",")[0]


def _percent(share: float | None) -> str:
    return "-" if share is None or np.isnan(share) else f"{100 * share:.1f}"


# The command


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("plot.py"):
        opt.out.parent.mkdir(parents=True, exist_ok=True)
        opt.draw(opt)
    print(f"written: {opt.out}")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    for figure, read in ((ced, _groups), (ppr, _groups), (points, _reports), (curves, _logs)):
        kind = figure.__name__
        own = kinds.add_parser(kind, help=(figure.__doc__ or "").split("\n")[0])
        own.add_argument("runs", type=Path, nargs="+", help="folders that a run wrote, or the file in them")
        own.add_argument("--names", nargs="+", help="what the legend calls the runs")
        own.add_argument("--out", type=Path, default=Path(f"{kind}.png"), help="picture to write, .png, .svg or .pdf")
        if kind in ("ced", "ppr"):
            own.add_argument("--group", default="all", help="all, ibug68" + (", visible_only" if kind == "ppr" else ""))
        own.set_defaults(draw=lambda opt, figure=figure, read=read: figure(read(opt), opt.out))
    own = kinds.add_parser("heatmaps", help="Heatmaps of the best face of a photograph, over its crop.")
    own.add_argument("picture", type=Path)
    own.add_argument("--weights", default="face106-lite", help="a name in models/sppe or a file")
    own.add_argument("--detector", default="face106-det", help="a name in models/yolo or a file")
    own.add_argument("--points", nargs="+", help="a tile for each of these points, or `all`; default a tile a part")
    own.add_argument("--columns", type=int, default=5)
    own.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    own.add_argument("--out", type=Path, default=Path("heatmaps.png"), help="picture to write, .png or .jpg")
    own.set_defaults(draw=_draw_heatmaps)
    return parser


def _labels(opt: argparse.Namespace) -> list[str]:
    """One label a run: --names, else the folders' names, with more of the path where these are the same."""
    if opt.names:
        if len(set(opt.names)) != len(opt.runs):
            raise ValueError(f"--names: {len(set(opt.names))} different names for {len(opt.runs)} runs")
        return opt.names
    folders = [(run if run.is_dir() else run.parent).resolve() for run in opt.runs]
    for depth in range(1, max(len(folder.parts) for folder in folders) + 1):
        labels = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(labels)) == len(labels):
            return labels
    raise ValueError("the same run twice")


def read_report(run: Path) -> dict:
    """The evaluation.json of a run.

    Raises:
        FileNotFoundError: there is none. ValueError: it is not whole, or older than `faces` in it.
    """
    path = run / "evaluation.json" if run.is_dir() else run
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; evaluation.py writes it")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); run evaluation.py again") from error
    missing = {"faces", "points", "mean_face", "all", "ibug68"} - set(report if isinstance(report, dict) else ())
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; run evaluation.py again")
    return report


def read_log(run: Path) -> list[dict]:
    """The lines of a run's log.jsonl; a last line that a kill tore is left out.

    Raises:
        FileNotFoundError: there is none.
    """
    path = run / "log.jsonl" if run.is_dir() else run
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; train.py writes it")
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _reports(opt: argparse.Namespace) -> dict[str, dict]:
    return {label: read_report(run) for label, run in zip(_labels(opt), opt.runs)}


def _logs(opt: argparse.Namespace) -> dict[str, list[dict]]:
    return {label: read_log(run) for label, run in zip(_labels(opt), opt.runs)}


def _groups(opt: argparse.Namespace) -> dict[str, tuple[dict, str]]:
    runs = _reports(opt)
    for label, report in runs.items():
        if not isinstance(report.get(opt.group), dict) or "ppr" not in report[opt.group]:
            raise ValueError(f"{label} has no group {opt.group!r}; choose all, ibug68 or visible_only")
    return {label: (report, opt.group) for label, report in runs.items()}


def _draw_heatmaps(opt: argparse.Namespace) -> None:
    from predictor import FacePredictor
    from SPPE.src.utils.imread import load_image
    from utils.sheet import contact_sheet, write_picture

    tiles = _heat_choice(opt.points)
    predictor = FacePredictor(opt.weights, opt.detector, nClasses=NUM_POINTS, device=opt.device)
    image = load_image(opt.picture)
    faces = predictor(image)
    if not faces:
        raise ValueError(f"no face in {opt.picture}")
    crops, _ = predictor.estimator.crop(image, faces[0].box[None])
    heatmaps = predictor.estimator.heatmaps(crops)[0].cpu().numpy()
    captions = [f"{name}, peak {heatmaps[own].max(axis=(1, 2)).mean():.2f}" for name, own in tiles.items()]
    write_picture(opt.out, contact_sheet(heat_tiles(crops[0], heatmaps, tiles), captions, opt.columns))


def _heat_choice(wanted: list[str] | None) -> dict[str, list[int]]:
    """Name -> points of each tile; ValueError for what is no point."""
    if not wanted:
        return {"all": list(range(NUM_POINTS))} | {part: list(members) for part, members in PARTS.items()}
    numbers = range(NUM_POINTS) if wanted == ["all"] else [int(word) if word.isdigit() else -1 for word in wanted]
    wrong = [word for word, number in zip(wanted, numbers) if not 0 <= number < NUM_POINTS]
    if wrong and wanted != ["all"]:
        raise ValueError(f"--points {wrong[0]!r}: points are 0 to {NUM_POINTS - 1}, or say all")
    return {f"{number} {NAMES[number]}": [number] for number in numbers}


if __name__ == "__main__":
    main()
