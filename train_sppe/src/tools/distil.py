"""Make better labels of a face mesh's points and of people's (or a network's) together; from train_sppe/src:

    python tools/distil.py --labelled ../data/faces106 --out ../data/faces106t
    python tools/distil.py --labelled ../data/faces106 --unlabelled ../data/pseudo --out ../data/pseudo_t

Both data sets have a mesh.npz of tools/mesh.py. A ridge regression from the mesh to the 106 points, learnt on the
training split of --labelled, turns every mesh into points in the labels' own convention; its error on the validation
split is printed. The labelled training faces then get the mean of their labels and of those points (of a regression
that has not seen the face); the unlabelled ones (labelled by tools/pseudo.py) the mean of the network's points and
those. Where the two disagree by more than a bar, labels stay and unlabelled faces are left out.
"""

import argparse
import contextlib
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
sys.path.append(str(Path(__file__).resolve().parents[3]))

import numpy as np

from evaluation import nme
from SPPE.src.landmarks import FLIP_ORDER, NUM_POINTS, OUTER_EYES
from utils.command import complaints
from utils.dataset.base import Annotations, boxes_of, join, link_pictures, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME, load

# Ridge penalty: from 0.01 to 0.3 the validation error is the same to 0.01 %.
PENALTY = 0.1
FOLDS = 5

# Mesh vertices of the outer eye corners: the frame in which the regression works.
EYES = (33, 263)

# Fractions of the eye distance: a label and a mesh point further apart do not mean the same; views of a mesh further
# apart are no teacher; a face whose two teachers differ more on the mean is left out.
POINT_BAR, VIEW_BAR, FACE_BAR = 0.10, 0.05, 0.08


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--labelled", type=Path, required=True, help="data set with people's labels")
    add("--unlabelled", type=Path, help="data set of tools/pseudo.py; without it --labelled itself is improved")
    add("--out", type=Path, required=True, help="folder to write")
    opt = parser.parse_args(argv)
    with complaints("distil.py"):
        run(opt)


def run(opt: argparse.Namespace) -> None:
    if opt.out.resolve() in (root.resolve() for root in (opt.labelled, opt.unlabelled) if root):
        raise ValueError(f"--out {opt.out} would overwrite the labels that are read; choose another")
    train, val = (Taught(opt.labelled, split) for split in ("train", "val"))
    both = regression(train)
    found = val.points(both)
    known = np.isfinite(found[..., 0]) & (val.data.visible > 0)
    told = 100 * np.nanmean(nme(found, val.data.points, known))
    print(f"mesh to points: NME {told:.2f} % on {len(val.data)} validation faces")
    if opt.unlabelled:
        root, data = opt.unlabelled, improve_unlabelled(Taught(opt.unlabelled, "train"), both)
        split = np.full(len(data), "train")
    else:
        rest = {"val": val.data}
        with contextlib.suppress(FileNotFoundError):  # lists of faces that name no test
            rest["test"] = load(opt.labelled, "test")
        root, data = opt.labelled, join([improve_labelled(train), *rest.values()])
        split = np.repeat(["train", *rest], [len(train.data), *map(len, rest.values())])
    link_pictures(opt.out, root / "images")
    write_h5(opt.out / FILE_NAME, data.check(lambda row: f"{root}, row {row}"), root / "images", split)
    print(f"{opt.out / FILE_NAME}: {len(data)} faces")


class Taught:
    """One split of a data set and its meshes; a mirror image's mesh is kept as that of a face of its own."""

    def __init__(self, root: Path, split: str):
        path = root / "mesh.npz"
        if not path.is_file():
            raise FileNotFoundError(f"no {path}; tools/mesh.py makes it")
        self.data = load(root, split)
        with np.load(path) as file:
            vertices = file["vertices"].astype(np.float64)  # (all rows, 2, 478, 2)
        vertices[:, 1, :, 0] *= -1
        self.views = vertices[self.data_rows(root, len(vertices))]

    def data_rows(self, root: Path, count: int) -> np.ndarray:
        """Rows of the file that this split holds."""
        everything = load(root, None)
        if len(everything) != count:
            raise ValueError(f"{root}: {count} meshes for {len(everything)} faces; run tools/mesh.py again")
        place = {key: row for row, key in enumerate(zip(everything.images, map(tuple, everything.boxes)))}
        return np.array([place[key] for key in zip(self.data.images, map(tuple, self.data.boxes))])

    def targets(self) -> np.ndarray:
        """The labels as each view shows them: (N, 2, 106, 2)."""
        mirrored = self.data.points[:, list(FLIP_ORDER)] * (-1, 1)
        return np.stack([self.data.points, mirrored], axis=1).astype(np.float64)

    def points(self, weights: np.ndarray, rows=slice(None)) -> np.ndarray:
        """The regression's points (N, 106, 2), image pixels, the mean of both views; nan without or with odd meshes."""
        found = apply(weights, self.views[rows])  # (N, 2, 106, 2)
        found[:, 1] = (found[:, 1] * (-1, 1))[:, list(FLIP_ORDER)]
        with np.errstate(all="ignore"):
            apart = np.linalg.norm(found[:, 0] - found[:, 1], axis=2).mean(axis=1)
            known = np.isfinite(found[:, :, :1, :1])
            mean = np.where(known, found, 0).sum(axis=1) / known.sum(axis=1)
        mean[apart > VIEW_BAR * eye_distance(found[:, 0])] = np.nan
        return mean


def frames(views: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle (..., 1, 2), turn (..., 2, 2) of meshes (..., 478, 2): (points - middle) @ turn is upright, of size 1."""
    middle = views.mean(axis=-2, keepdims=True)
    scale = np.linalg.norm(views - middle, axis=-1).mean(axis=-1)
    along = views[..., EYES[1], :] - views[..., EYES[0], :]
    x, y = np.moveaxis(along / (np.linalg.norm(along, axis=-1) * scale)[..., None], -1, 0)
    return middle, np.stack([np.stack([x, -y], -1), np.stack([y, x], -1)], -2)


def regression(taught: Taught, rows=slice(None)) -> np.ndarray:
    """Ridge weights (1 + 956, 212), the first row constant, learnt on all views of (some rows of) a data set."""
    views, targets = taught.views[rows], taught.targets()[rows]
    labelled = (taught.data.visible[rows] > 0).all(axis=1)
    seen = np.isfinite(views[..., 0, 0]) & labelled[:, None]
    middle, turn = frames(views)
    x, y = (((places - middle) @ turn)[seen].reshape(seen.sum(), -1) for places in (views, targets))
    centre, level = x.mean(axis=0), y.mean(axis=0)
    weights = np.linalg.solve(
        (x - centre).T @ (x - centre) + PENALTY * np.eye(x.shape[1]), (x - centre).T @ (y - level)
    )
    return np.concatenate([(level - centre @ weights)[None], weights])


def apply(weights: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Meshes (..., 478, 2) -> points (..., 106, 2), same frame."""
    middle, turn = frames(views)
    x = ((views - middle) @ turn).reshape(*views.shape[:-2], -1)
    points = (weights[0] + x @ weights[1:]).reshape(*views.shape[:-2], NUM_POINTS, 2)
    return points @ np.linalg.inv(turn) + middle


def eye_distance(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, OUTER_EYES[0]] - points[:, OUTER_EYES[1]], axis=1)


def improve_labelled(train: Taught) -> Annotations:
    """Labels, half-way to the points of a regression that has not seen the face."""
    fold = np.random.default_rng(0).permutation(len(train.data)) % FOLDS
    points = train.data.points.astype(np.float64)
    for number in range(FOLDS):
        rows = np.flatnonzero(fold == number)
        found = train.points(regression(train, np.flatnonzero(fold != number)), rows)
        apart = np.linalg.norm(found - points[rows], axis=2) / eye_distance(points[rows])[:, None]
        points[rows] = np.where((apart < POINT_BAR)[..., None], (points[rows] + found) / 2, points[rows])
    data = train.data
    return Annotations(data.images, data.boxes, points.astype(np.float32), data.visible, data.attributes)


def improve_unlabelled(taught: Taught, weights: np.ndarray) -> Annotations:
    """The mean of the regression's and the network's points; faces where both agree."""
    data, found = taught.data, taught.points(weights)
    network, known = data.points.astype(np.float64), data.visible > 0
    apart = np.linalg.norm(found - network, axis=2) / eye_distance(found)[:, None]
    mean = np.where(known, apart, 0).sum(axis=1) / known.sum(axis=1)
    points = np.where(known[..., None], (found + network) / 2, found)
    kept = np.flatnonzero(mean < FACE_BAR)  # nan, no mesh, is not
    print(f"{len(kept)} of {len(data)} faces have a mesh that agrees with the network")
    visible = np.full_like(data.visible, 2)
    return Annotations(
        data.images, boxes_of(points.astype(np.float32), visible), points.astype(np.float32), visible
    ).take(kept)


if __name__ == "__main__":
    main()
