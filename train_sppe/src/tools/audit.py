"""Look for labels that are wrong, by a network's opinion of a training set; from train_sppe/src:

    python tools/audit.py --dataRoot ../data/faces68 --convention ibug --outdir ../exp/audit/faces68
    python train.py --dataRoot ../data/faces68 --exclude ../exp/audit/faces68/exclude.txt ...

Writes OUTDIR/audit.json (every face, the worst first), exclude.txt (utils/lists.py: a name a line, with the reason),
worst.jpg (labels green, the network's points red; residual, and in brackets the network's doubt) and duplicates.jpg.
What is looked for:

    residual   the network's points of the face, or of one part, lie far from the labels, while it agrees with itself on
               the mirrored crop. A network that does not even agree with itself says that the face is hard, not that
               its labels are wrong
    swap       the error of a part falls to a fraction when left and right change places in the labels, or when the
               labels are mirrored: a flip without its swap of indices, or the other way round
    outside    a label lies far beyond the picture
    duplicate  two faces look the same, cut out by their labels, and their labels agree: one is enough
    conflict   they look the same and their labels do not: the one that the network believes less goes
    leak       the same face is in another split (--against), whose figures it would flatter

A network that was trained on these faces has learnt some of their faults, but the few wrong ones among many still stand
out. Look at the sheets before you trust the list: it is a text, delete what should stay.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))  # train_sppe/src, before any other package named utils
sys.path.append(str(SOURCE.parents[1]))  # the repository root

from evaluation import (
    CONVENTIONS,
    FAILURE_BAR,
    add_data,
    add_speed,
    distances,
    face_means,
    in_convention,
    read_data,
    speed,
    write_json,
)
from SPPE.src.landmarks import FLIP_ORDER, NUM_POINTS, PARTS
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.img import apply_affines
from SPPE.src.utils.imread import load_image
from utils.command import complaints, one_of
from utils.dataset import build_dataset
from utils.dataset.base import SPLITS, Annotations, FaceDataset, make_loader
from utils.lists import names_of, numbers_of, write_list
from utils.sheet import contact_sheet, face_tile, write_picture

# A face or a part is doubted when its residual is above the bar and the network's own disagreement there is below this
# share of it. A part's bar: on faces68 a hundredth of the faces has a part that is worse.
SURE, PART_BAR = 0.5, 0.15

# A part is swapped when its error falls below this share of what it was, and was above SWAP_BAR (of the face's scale).
SWAP_FALL, SWAP_BAR = 0.5, 0.15

# What changes sides together. The contour's and lips' middle points keep their index, and do not count.
SIDES = {
    "face": tuple(range(NUM_POINTS)),
    "brows": PARTS["left_brow"] + PARTS["right_brow"],
    "eyes": PARTS["left_eye"] + PARTS["right_eye"] + PARTS["pupils"],
    "mouth": PARTS["outer_lip"] + PARTS["inner_lip"],
    "contour": PARTS["contour"],
}

# A label further out of its picture than this share of the face's scale is an error, not a chin below the frame.
OUTSIDE = 0.25

# Duplicates: grey thumbnails of THUMBNAIL**2 pixels correlate by LOOKS_SAME at least. Different pictures of one person
# stay below; two JPEGs of one picture do not. Labels agree when they differ by LABELS_SAME of the face's scale.
THUMBNAIL, LOOKS_SAME, LABELS_SAME = 24, 0.985, 0.05
BLOCK = 2000  # rows of the correlation matrix at a time: 2000 x 100,000 float32 are 0.8 GB

SHEET, COLUMNS, SIDE = 40, 8, 224
GREEN, RED = (60, 230, 60), (255, 60, 60)


@dataclass
class Opinion:
    """What a network says of N faces: points (N, 106, 2) image pixels; scale (N,) pixels; as shares of the scale errors
    and doubts (N, 106), how far it is from the labels and from what it says of the mirrored crop; their means (N,) over
    the annotated points, residual and doubt, and over the parts, (N, 9), part_residual and part_doubt.
    """

    points: np.ndarray
    scale: np.ndarray
    errors: np.ndarray
    residual: np.ndarray
    doubt: np.ndarray
    part_residual: np.ndarray
    part_doubt: np.ndarray

    def suspicion(self, bar: float) -> np.ndarray:
        """(N,): how many times the bar the face, or its part that is furthest off, is from the labels."""
        parts = np.nan_to_num(self.part_residual).max(axis=1) / PART_BAR
        return np.maximum(np.nan_to_num(self.residual) / bar, parts)


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    with complaints("audit.py"):
        one_of(opt, split=SPLITS)
        audit(opt)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_data(parser, "train")
    add("--weights", type=Path, default=WEIGHTS_FOLDER / "face106-lite.pth", help="whose opinion counts")
    add("--convention", default="lapa", help=f"of the labels' 68 points, one of {', '.join(CONVENTIONS)}")
    add("--bar", type=float, default=FAILURE_BAR, help="residual above which labels are doubted, of the eyes' distance")
    add("--against", nargs="*", help="splits that must not show the same faces; default all others that there are")
    add("--outdir", type=Path, help="default ../exp/audit/DATASET_SPLIT")
    add_speed(parser)
    return parser


def audit(opt: argparse.Namespace) -> None:
    """Ask, judge, write."""
    data, root = read_data(opt)
    outdir = opt.outdir or SOURCE.parent / "exp" / "audit" / f"{opt.dataset}_{opt.split}"
    names = names_of(data, root)
    numbers = numbers_of(names)
    opinion = ask(Estimator(opt.weights, NUM_POINTS, **speed(opt)), data, opt)
    reasons: list[dict[str, str]] = [{} for _ in names]
    sizes, thumbnails = look(data)
    judge_residual(reasons, data, opinion, opt.bar)
    judge_swaps(reasons, data, opinion, sizes)
    judge_outside(reasons, data, opinion, sizes)
    pairs = judge_duplicates(reasons, data, opinion, thumbnails, names)
    for split, other in others(opt, root, set(data.images)):
        judge_leaks(reasons, thumbnails, split, look(other)[1], names_of(other, root))
    order = np.argsort(-opinion.suspicion(opt.bar), kind="stable")
    outdir.mkdir(parents=True, exist_ok=True)
    excluded = [i for i in order if reasons[i]]
    remarks = [(names[i], numbers[i], "; ".join(reasons[i].values())) for i in excluded]
    write_list(outdir / "exclude.txt", remarks)
    faces = [{"image": names[i], "face": numbers[i], **figures(data, opinion, i), "reasons": reasons[i]} for i in order]
    write_json({"weights": str(opt.weights), "split": opt.split, "bar": opt.bar, "faces": faces}, outdir / "audit.json")
    draw_worst(outdir / "worst.jpg", data, opinion, names, reasons, order[:SHEET])
    if pairs:
        draw_pairs(outdir / "duplicates.jpg", data, opinion, names, pairs[: SHEET // 2])
    told = {kind: sum(kind in reason for reason in reasons) for kind in KINDS}
    print(f"{len(names)} faces: " + ", ".join(f"{count} {kind}" for kind, count in told.items()))
    print(f"written: {outdir}, {len(excluded)} faces in exclude.txt; look at worst.jpg and duplicates.jpg first")


KINDS = ("residual", "swap", "outside", "duplicate", "conflict", "leak")


def others(opt: argparse.Namespace, root: Path, own: set[Path]) -> Iterator[tuple[str, Annotations]]:
    """The splits of --against, each with its faces. Unless named, those that are not there, and those that hold all the
    audited pictures by their definition (300-W's test holds val), are passed by, and that is told.
    """
    for split in SPLITS if opt.against is None else opt.against:
        if split == opt.split:
            continue
        try:
            data = build_dataset(opt.dataset, root, split)
        except FileNotFoundError as error:
            if opt.against is not None:
                raise
            print(f"not looked at for leaks: {split} ({error})")
            continue
        if opt.against is None and own <= set(data.images):
            print(f"not looked at for leaks: {split}, which holds all of {opt.split}")
        elif len(data):
            yield split, data


def figures(data: Annotations, opinion: Opinion, row: int) -> dict:
    """Of one face: residual, doubt, the part that is furthest off and its error; shares of the face's scale."""
    worst = int(np.nan_to_num(opinion.part_residual[row], nan=-1).argmax())
    return {
        **{"residual": float(opinion.residual[row]), "doubt": float(opinion.doubt[row])},
        **{"worst_part": list(PARTS)[worst], "worst_part_residual": float(opinion.part_residual[row, worst])},
        "worst_part_doubt": float(opinion.part_doubt[row, worst]),
    }


# The network's opinion


def ask(estimator: Estimator, data: Annotations, opt: argparse.Namespace) -> Opinion:
    """Predict each face and its mirror image; where both agree their mean is what the network says."""
    loader = make_loader(FaceDataset(data, estimator.input_size, growth=estimator.growth), opt.batch, opt.nThreads)
    both = ([], [])
    for batch in tqdm(loader, "faces", disable=None, leave=False):
        crops, affines = batch["crop"].numpy(), batch["affine"].numpy()
        both[0].append(estimator(crops, affines)[0])
        mirrored = estimator(np.ascontiguousarray(crops[:, :, ::-1]), mirror_affines(affines, crops.shape[2]))[0]
        both[1].append(mirrored[:, list(FLIP_ORDER)])
    plain, mirrored = (np.concatenate(points) for points in both)
    points = in_convention((plain + mirrored) / 2, opt.convention)
    # the eyes may be the very labels that are wrong: the box's root is a length that one bad point hardly changes
    scale = robust_scale(data, points)
    errors = distances(points, data.points) / scale[:, None]
    doubts = distances(plain, mirrored) / scale[:, None]
    means = [face_means(values, data.visible) for values in (errors, doubts)]
    parts = [
        np.stack([face_means(v[:, p], data.visible[:, p]) for p in map(list, PARTS.values())], 1)
        for v in (errors, doubts)
    ]
    return Opinion(points, scale, errors, *means, *parts)


def mirror_affines(affines: np.ndarray, width: int) -> np.ndarray:
    """Affines (B, 2, 3) image -> crop, followed by a mirror of the crop."""
    mirrored = affines.copy()
    mirrored[:, 0] *= -1
    mirrored[:, 0, 2] += width - 1
    return mirrored


def robust_scale(data: Annotations, points: np.ndarray) -> np.ndarray:
    """The distance of the outer eye corners, (N,) pixels, as the box tells it: by the median ratio of the two."""
    roots = np.sqrt(np.prod(data.boxes[:, 2:] - data.boxes[:, :2], axis=1).astype(np.float64))
    return roots * np.median(distances(points[:, 66], points[:, 79]) / roots)


def look(data: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Every picture once: sizes (N, 2) width, height; thumbnails (N, THUMBNAIL**2), grey, mean 0, length 1.

    A thumbnail shows the labels' box, so it is the same for two cuts of one photograph.
    """
    sizes, thumbnails = np.zeros((len(data), 2)), np.zeros((len(data), THUMBNAIL**2), np.float32)
    rows_of: dict[Path, list[int]] = {}
    for row, path in enumerate(data.images):
        rows_of.setdefault(path, []).append(row)
    for path, rows in tqdm(rows_of.items(), "pictures", disable=None, leave=False):
        image = load_image(path)
        for row in rows:
            sizes[row] = image.shape[1::-1]
            thumbnails[row] = thumbnail(image, data.points[row], data.visible[row])
    return sizes, thumbnails


def thumbnail(image: np.ndarray, points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """The square about the annotated points (106, 2) as THUMBNAIL**2 grey values, mean 0, length 1 (or all 0)."""
    known = points[visible > 0]
    box = np.concatenate([known.min(axis=0), known.max(axis=0)])
    grey = cv2.cvtColor(face_tile(image, box, THUMBNAIL, margin=0)[0], cv2.COLOR_RGB2GRAY)
    values = grey.astype(np.float32).ravel() - grey.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


# Judgements: each adds its reason, kind -> words, to the faces it doubts


def judge_residual(reasons: list[dict], data: Annotations, opinion: Opinion, bar: float) -> None:
    sure = (opinion.part_residual > PART_BAR) & (opinion.part_doubt < SURE * opinion.part_residual)  # (N, 9)
    whole = (opinion.residual > bar) & (opinion.doubt < SURE * opinion.residual)
    for row in np.flatnonzero(whole | sure.any(axis=1)):
        off = np.nan_to_num(opinion.part_residual[row], nan=-1)
        part = int(np.where(sure[row], off + 100, off).argmax())  # of those that are sure, where there are such
        told = f"{list(PARTS)[part]} {100 * off[part]:.0f} %"
        reasons[row]["residual"] = f"residual {100 * opinion.residual[row]:.0f} %, {told}"


def judge_swaps(reasons: list[dict], data: Annotations, opinion: Opinion, sizes: np.ndarray) -> None:
    order = list(FLIP_ORDER)
    mirrored = data.points * (-1, 1)
    mirrored[..., 0] += sizes[:, None, 0] - 1
    changed = {  # what may have been done to the labels -> the labels with it undone, and their visibility
        "left and right swapped": (data.points[:, order], data.visible[:, order]),
        "of the mirrored picture": (mirrored[:, order], data.visible[:, order]),
        "mirrored, but no indices swapped": (mirrored, data.visible),
    }
    best = np.full(len(data), np.inf)  # the lowest error that an undoing gives, of those that explain a fault
    for words, (points, visible) in changed.items():
        errors = distances(opinion.points, points) / opinion.scale[:, None]
        for name, members in SIDES.items():
            members = [i for i in members if FLIP_ORDER[i] != i]
            mask = (data.visible[:, members] > 0) & (visible[:, members] > 0)
            now, then = face_means(opinion.errors[:, members], mask), face_means(errors[:, members], mask)
            for row in np.flatnonzero((now > SWAP_BAR) & (then < SWAP_FALL * now) & (then < best)):
                best[row] = then[row]
                told = f"{name}: {words}, error {100 * now[row]:.0f} % would be {100 * then[row]:.0f} %"
                reasons[row]["swap"] = told


def judge_outside(reasons: list[dict], data: Annotations, opinion: Opinion, sizes: np.ndarray) -> None:
    beyond = np.maximum(-0.5 - data.points, data.points - (sizes[:, None] - 0.5)).max(axis=2)  # (N, 106) pixels
    beyond = np.where(data.visible > 0, beyond, 0) / opinion.scale[:, None]
    for row in np.flatnonzero((beyond > OUTSIDE).any(axis=1)):
        point = int(beyond[row].argmax())
        reasons[row]["outside"] = f"point {point} is {100 * beyond[row, point]:.0f} % of the eye distance outside"


def judge_duplicates(
    reasons: list[dict], data: Annotations, opinion: Opinion, thumbnails: np.ndarray, names: list[str]
) -> list[tuple]:
    """-> pairs (row kept, row that goes, words), the most alike first; of many copies one stays."""
    pairs, gone = [], set()
    for first, second, alike in sorted(same_looks(thumbnails), key=lambda pair: -pair[2]):
        if first in gone or second in gone:
            continue
        off = label_difference(data, first, second)
        if off > LABELS_SAME and opinion.residual[first] > opinion.residual[second]:
            first, second = second, first
        words = f"{alike:.3f}, labels differ {100 * off:.1f} %"
        kind = "duplicate" if off <= LABELS_SAME else "conflict"
        reasons[second][kind] = f"{kind} of {names[first]} ({words})"
        gone.add(second)
        pairs.append((first, second, words))
    return pairs


def judge_leaks(reasons: list[dict], thumbnails: np.ndarray, split: str, theirs: np.ndarray, names: list[str]) -> None:
    for start in range(0, len(thumbnails), BLOCK):
        alike = thumbnails[start : start + BLOCK] @ theirs.T
        best = alike.argmax(axis=1)
        for row in np.flatnonzero(alike.max(axis=1) >= LOOKS_SAME):
            reasons[start + row]["leak"] = f"{names[best[row]]} of {split} is the same ({alike[row, best[row]]:.3f})"


def same_looks(thumbnails: np.ndarray) -> list[tuple[int, int, float]]:
    """Pairs i < j of rows (N, D), each of length 1, whose product is LOOKS_SAME or more."""
    pairs = []
    for start in range(0, len(thumbnails), BLOCK):
        alike = thumbnails[start : start + BLOCK] @ thumbnails[start:].T
        for i, j in np.argwhere(alike >= LOOKS_SAME):
            if i < j:
                pairs.append((start + int(i), start + int(j), float(alike[i, j])))
    return pairs


def label_difference(data: Annotations, first: int, second: int) -> float:
    """Mean distance of two faces' labels, each set to mean 0 and radius 1, as a share of the eyes' distance."""
    both = (data.visible[first] > 0) & (data.visible[second] > 0)
    if not both.any():
        return np.inf
    places = []
    for row in (first, second):
        points = data.points[row][both].astype(np.float64)
        centred = points - points.mean(axis=0)
        places.append(centred / max(np.sqrt((centred**2).sum(axis=1).mean()), 1e-6))
    # the root mean square radius of a face is close to the distance of its outer eye corners times 0.8
    return float(0.8 * distances(*places).mean())


# Sheets


def face_picture(data: Annotations, opinion: Opinion, row: int) -> np.ndarray:
    """One face with its labels (green) and the network's points (red), a line from each to the other."""
    known = data.visible[row] > 0
    both = np.concatenate([data.points[row][known], opinion.points[row][known]])
    box = np.concatenate([both.min(axis=0), both.max(axis=0)])
    tile, affine = face_tile(load_image(data.images[row]), box, SIDE, margin=0.2)
    labels, points = (apply_affines(affine, p[row][known].astype(np.float64)) for p in (data.points, opinion.points))
    for a, b in zip(np.rint(labels).astype(int).tolist(), np.rint(points).astype(int).tolist()):
        cv2.line(tile, a, b, (255, 255, 255), 1, cv2.LINE_AA)
        cv2.circle(tile, b, 1, RED, -1, cv2.LINE_AA)
        cv2.circle(tile, a, 2, GREEN, -1, cv2.LINE_AA)
    return tile


def draw_worst(path: Path, data: Annotations, opinion: Opinion, names: list[str], reasons, rows) -> None:
    tiles = [face_picture(data, opinion, row) for row in rows]
    captions = []
    for number, row in enumerate(rows):
        kinds, errors = "+".join(reasons[row]) or "hard", 100 * np.array([opinion.residual[row], opinion.doubt[row]])
        captions.append(f"{number} {errors[0]:.0f} % ({errors[1]:.0f}) {kinds} {Path(names[row]).stem[-14:]}")
    write_picture(path, contact_sheet(tiles, captions, COLUMNS))


def draw_pairs(path: Path, data: Annotations, opinion: Opinion, names: list[str], pairs: list[tuple]) -> None:
    tiles, captions = [], []
    for first, second, words in pairs:
        tiles += [face_picture(data, opinion, first), face_picture(data, opinion, second)]
        captions += [names[first], f"{words} {Path(names[second]).stem[-12:]}"]
    write_picture(path, contact_sheet(tiles, captions, COLUMNS))


if __name__ == "__main__":
    main()
