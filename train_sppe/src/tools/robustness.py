"""How much worse points get when the face's box is off: what stage 2 (DPG) buys; from train_sppe/src:

    python tools/robustness.py --dataRoot ../data/faces68 --convention ibug --outdir ../exp/robustness \
        --weights ../exp/coco/stg_1/model_best.pkl ../exp/coco/stg_2/model_best.pkl --names "stage 1" "stage 2"

Every annotated box of a split is moved by a share of its width (x) or height (y), or made larger or smaller about its
middle; all else stays. Writes OUTDIR/robustness.json, robustness.png and robustness.txt: NME and failure rate of each
weights at each change.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))  # train_sppe/src, before any other package named utils
sys.path.append(str(SOURCE.parents[1]))  # the repository root

from evaluation import (
    CONVENTIONS,
    NORMALISERS,
    add_data,
    add_speed,
    face_scale,
    failure_rate,
    in_convention,
    nme,
    predict,
    read_data,
    speed,
    write_json,
)
from plot import new_figure
from SPPE.src.landmarks import IBUG68, NUM_POINTS
from SPPE.src.main_fast_inference import Estimator
from utils.command import complaints, one_of
from utils.dataset.base import SPLITS, Annotations

# % of the box; 0 is measured once and stands in all three rows.
CHANGES = {
    "shift_x": (-20, -15, -10, -5, 0, 5, 10, 15, 20),
    "shift_y": (-20, -15, -10, -5, 0, 5, 10, 15, 20),
    "size": (-30, -20, -10, 0, 10, 20, 30),
}
TITLES = {"shift_x": "shift to the right, % of the box", "shift_y": "shift down, %", "size": "larger, %"}


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("robustness.py"):
        check(opt)
        measure(opt)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_data(parser)
    add("--weights", type=Path, nargs="+", required=True, help="shipped .pth or model_N.pkl files to compare")
    add("--names", nargs="+", help="what the legend calls them; default the files' names")
    add("--convention", default="lapa", help=f"of the labels' 68 points, one of {', '.join(CONVENTIONS)}")
    add("--normaliser", default="outer_eyes", help=f"of NME, one of {', '.join(NORMALISERS)}")
    add("--only68", action="store_true", help="NME over the iBUG-68 subset only")
    add("--outdir", type=Path, default=SOURCE.parent / "exp" / "robustness")
    add_speed(parser)
    return parser


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError naming the first option that makes no sense; fill in the names."""
    one_of(opt, split=SPLITS, convention=CONVENTIONS, normaliser=NORMALISERS)
    if not opt.names:
        stems = [path.stem for path in opt.weights]
        opt.names = stems if len(set(stems)) == len(stems) else [f"{p.parent.name}/{p.stem}" for p in opt.weights]
    if len(set(opt.names)) != len(opt.weights):
        raise ValueError(f"--names: {len(set(opt.names))} different names for {len(opt.weights)} weights")


def change_boxes(boxes: np.ndarray, kind: str, percent: float) -> np.ndarray:
    """Boxes (N, 4) x1 y1 x2 y2 -> the same, moved or sized by so many % of their width and height.

    Raises:
        ValueError: a kind that is not in CHANGES.
    """
    if kind not in CHANGES:
        raise ValueError(f"unknown change {kind!r}; choose one of {', '.join(CHANGES)}")
    sides, share = boxes[:, 2:] - boxes[:, :2], percent / 100
    if kind == "size":
        return np.concatenate([boxes[:, :2] - share * sides / 2, boxes[:, 2:] + share * sides / 2], axis=1)
    moved = np.zeros_like(sides)
    axis = ("shift_x", "shift_y").index(kind)
    moved[:, axis] = share * sides[:, axis]
    return boxes + np.concatenate([moved, moved], axis=1)


def measure(opt: argparse.Namespace) -> None:
    """Every weights at every change; then the files."""
    data, _ = read_data(opt)
    if np.isnan(face_scale(data.points, data.visible, opt.normaliser, data.boxes)).all():
        raise ValueError(
            f"--normaliser {opt.normaliser}: no face of {opt.dataRoot or opt.dataset} has those points annotated"
        )
    estimators = [Estimator(path, NUM_POINTS, **speed(opt)) for path in opt.weights]
    results = {name: rows(estimator, data, opt) for name, estimator in zip(opt.names, estimators)}
    report = {
        **{"dataset": opt.dataset, "split": opt.split, "faces": len(data), "convention": opt.convention},
        **{"normaliser": opt.normaliser, "normaliser_is": NORMALISERS[opt.normaliser], "only68": opt.only68},
        **{"weights": dict(zip(opt.names, map(str, opt.weights))), "results": results},
    }
    opt.outdir.mkdir(parents=True, exist_ok=True)
    write_json(report, opt.outdir / "robustness.json")
    (opt.outdir / "robustness.txt").write_text(table(report), encoding="utf-8")
    plot_robustness(report, opt.outdir / "robustness.png")
    print(table(report), f"written: {opt.outdir}", sep="")


def rows(estimator: Estimator, data: Annotations, opt: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Kind -> what each change of that kind gives."""
    untouched = figures(estimator, data, data.boxes, opt)
    return {
        kind: [
            {"change": c, **(figures(estimator, data, change_boxes(data.boxes, kind, c), opt) if c else untouched)}
            for c in changes
        ]
        for kind, changes in CHANGES.items()
    }


def figures(estimator: Estimator, data: Annotations, boxes: np.ndarray, opt: argparse.Namespace) -> dict[str, float]:
    """NME and failure rate with those boxes (N, 4); lengths are still those of the annotated ones."""
    points = in_convention(predict(estimator, replace(data, boxes=boxes), opt)[0], opt.convention)
    shown = IBUG68 if opt.only68 else range(NUM_POINTS)
    errors = nme(points, data.points, data.visible, opt.normaliser, data.boxes, shown)
    known = errors[~np.isnan(errors)]
    return {"nme": float(known.mean()) if known.size else np.nan, "failure_rate": failure_rate(errors)}


def table(report: dict) -> str:
    """NME (failure rate) in %, a line a change, a column a weights."""
    names = list(report["results"])
    lines = [f"NME over the {report['normaliser_is']} (failures), %; {report['faces']} faces", ""]
    lines.append(f"{'':16}" + "".join(f"{name[-18:]:>20}" for name in names))
    for kind, changes in CHANGES.items():
        for i, change in enumerate(changes):
            own = [report["results"][name][kind][i] for name in names]
            cells = [f"{100 * r['nme']:.2f} ({100 * r['failure_rate']:.1f})" for r in own]
            lines.append(f"{kind + f' {change:+d}':16}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines) + "\n"


def plot_robustness(report: dict, path: Path) -> None:
    """NME against each kind of change, a line a weights."""
    figure, all_axes = new_figure(11, 3.6, columns=len(CHANGES))
    for axes, kind in zip(all_axes, CHANGES):
        for name, results in report["results"].items():
            axes.plot(
                [r["change"] for r in results[kind]], [100 * r["nme"] for r in results[kind]], "o-", ms=3, label=name
            )
        axes.set(xlabel=TITLES[kind])
        axes.sharey(all_axes[0])
        axes.grid(alpha=0.3)
    worst = max(r["nme"] for results in report["results"].values() for rows in results.values() for r in rows)
    all_axes[0].set(ylabel="NME, %", ylim=(0, 110 * worst))
    all_axes[0].legend(fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    main()
