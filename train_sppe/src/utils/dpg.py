"""DPG: training boxes that err as a detector errs (Fang et al., "RMPE", ICCV 2017, section 3.4).

A face network that only ever saw perfect boxes fails on a detector's. Stage 2 trains on boxes whose four edges are
moved by Gaussian errors, and on crops that show a part of the face.
"""

from dataclasses import dataclass

import numpy as np

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
    rate: float = 0.8
    partial: float = 0.1

    def __call__(self, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A box (4,) x1 y1 x2 y2 in image pixels -> another, same frame, never thinner than MIN_FRACTION of it."""
        draw = rng.random()
        size = np.tile(box[2:] - box[:2], 2)
        if draw < self.partial:
            return self._part(box, size[:2], rng)
        if draw > self.partial + self.rate:
            return box
        mean, deviation = np.array(self.edges, np.float32).T
        moved = box + size * rng.normal(mean, deviation).astype(np.float32)
        middle, half = (moved[:2] + moved[2:]) / 2, np.maximum(moved[2:] - moved[:2], MIN_FRACTION * size[:2]) / 2
        return np.concatenate([middle - half, middle + half])

    def _part(self, box: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        part = size * rng.uniform(*PART_RANGE, 2)
        corner = box[:2] + rng.random(2) * (size - part)
        return np.concatenate([corner, corner + part]).astype(np.float32)


DPG_KINDS = {"face": FACE_EDGES, "alphapose": ALPHAPOSE_EDGES}


def build_dpg(kind: str) -> DPG:
    """The box errors of that name.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in DPG_KINDS:
        raise ValueError(f"unknown --dpg {kind!r}; choose one of {', '.join(DPG_KINDS)}")
    return DPG(DPG_KINDS[kind])
