"""DPG: training boxes that err as a detector errs (Fang et al., "RMPE", ICCV 2017, section 3.4).

A face network that only ever saw perfect boxes fails on a detector's. Stage 2 trains on boxes whose four edges are
moved by Gaussian errors, and on crops that show a part of the face.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.cluster.vq import kmeans2

# A box that shrank more than this shows too little of a face to learn from.
MIN_FRACTION = 0.4

# Width and height of a partial-face box as fractions of the box. The crop then grows like any other (30 %), so it shows
# from a quarter less than the face to all of it without its margin.
PART_RANGE = (0.6, 0.9)

# The errors AlphaPose publishes for its person detector on COCO (x1, y1, x2, y2).
ALPHAPOSE_EDGES = ((-0.0142, 0.1158), (0.0043, 0.068), (0.0154, 0.1337), (-0.0013, 0.0711))

# Two public face detectors differ from the landmarks' own box (`yolo.bbox.face_box`) on 502 faces of faces68 by
# deviations of 0.034, 0.070, 0.028 and 0.030; taken half as large again, so that worse detectors are covered too.
FACE_EDGES = ((0.0, 0.05), (0.0, 0.10), (0.0, 0.05), (0.0, 0.05))


@dataclass(frozen=True)
class DPG:
    """Perturbs a box with probability `rate`, or cuts a part of it with probability `partial`.

    edges: (mean, deviation) of the error of x1, y1, x2, y2, as fractions of the box's width (x) and height (y).
    """

    edges: tuple[tuple[float, float], ...]
    rate: float = 0.5
    partial: float = 0.1

    def __call__(
        self, box: np.ndarray, points: np.ndarray, rng: np.random.Generator, known: np.ndarray | None = None
    ) -> np.ndarray:
        """A box (4,) x1 y1 x2 y2 -> another, never thinner than MIN_FRACTION of it.

        points (106, 2) of its face, of which known (106,) bool are annotated (None: all). All in image pixels.
        """
        draw = rng.random()
        size = np.tile(box[2:] - box[:2], 2)
        if draw < self.partial:
            return self._part(box, size[:2], rng)
        if draw > self.partial + self.rate:
            return box
        moved = box + size * self.errors(box, points, rng, known).astype(np.float32)
        middle, half = (moved[:2] + moved[2:]) / 2, np.maximum(moved[2:] - moved[:2], MIN_FRACTION * size[:2]) / 2
        return np.concatenate([middle - half, middle + half])

    def errors(self, box, points, rng: np.random.Generator, known: np.ndarray | None = None) -> np.ndarray:
        """One draw of the four edges' errors, (4,), as fractions of the box."""
        return rng.normal(*np.array(self.edges, np.float32).T)

    def _part(self, box: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        part = size * rng.uniform(*PART_RANGE, 2)
        corner = box[:2] + rng.random(2) * (size - part)
        return np.concatenate([corner, corner + part]).astype(np.float32)


@dataclass(frozen=True)
class LearntDPG(DPG):
    """Errors drawn as a detector made them on faces of the same pose (RMPE's P(box | atomic pose)).

    centres: (C, 212) `describe`d faces in the middle of each cluster of poses; means (C, 4), covariances (C, 4, 4) of
    the errors there.
    """

    centres: np.ndarray = None
    means: np.ndarray = None
    covariances: np.ndarray = None

    def errors(self, box, points, rng: np.random.Generator, known: np.ndarray | None = None) -> np.ndarray:
        apart = (self.centres - describe(points[None], box[None])) ** 2  # (C, 212)
        if known is not None:
            apart = apart[:, np.repeat(known, 2)]
        cluster = apart.sum(axis=1).argmin()
        return rng.multivariate_normal(self.means[cluster], self.covariances[cluster])


def describe(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Faces as vectors that tell their pose: points (N, 106, 2) in units of their boxes (N, 4) -> (N, 212)."""
    size = boxes[:, None, 2:] - boxes[:, None, :2]
    return ((points - boxes[:, None, :2]) / size - 0.5).reshape(len(points), -1)


def fit(points: np.ndarray, boxes: np.ndarray, found: np.ndarray, clusters: int, seed: int = 0) -> dict:
    """Learn a detector's errors.

    Args:
        points: (N, 106, 2) of the faces; boxes: (N, 4) true; found: (N, 4) the detector's; one frame each.
        clusters: of poses.
    Returns:
        plain lists: what `build_dpg` reads from a JSON file.
    """
    errors = (found - boxes) / np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    vectors = describe(points, boxes)
    centres, labels = kmeans2(vectors, clusters, minit="++", rng=seed)
    kept = [c for c in range(clusters) if (labels == c).sum() > 2 * errors.shape[1]]
    members = [errors[labels == c] for c in kept]
    return {
        "centres": np.round(centres[kept], 4).tolist(),
        "means": [np.round(m.mean(axis=0), 5).tolist() for m in members],
        "covariances": [np.round(np.cov(m.T), 7).tolist() for m in members],
        "faces": [len(m) for m in members],
    }


DPG_KINDS = {"face": FACE_EDGES, "alphapose": ALPHAPOSE_EDGES}


def build_dpg(kind: str) -> DPG:
    """The box errors of that name, or those that tools/dpg.py wrote into a .json file.

    Raises:
        ValueError: unknown kind, or not such a file. FileNotFoundError: no such file.
    """
    if kind in DPG_KINDS:
        return DPG(DPG_KINDS[kind])
    if not kind.endswith(".json"):
        raise ValueError(f"unknown --dpg {kind!r}; choose one of {', '.join(DPG_KINDS)}, or a .json of tools/dpg.py")
    path = Path(kind)
    if not path.is_file():
        raise FileNotFoundError(f"--dpg: no file at {path}; tools/dpg.py writes it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        learnt = {key: np.array(content[key], float) for key in ("centres", "means", "covariances")}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--dpg {path} is not a file of tools/dpg.py: {error!r}") from error
    return LearntDPG((), **learnt)
