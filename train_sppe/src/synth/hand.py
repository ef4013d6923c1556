"""A hand before the face: the base mesh's own, cut at the wrist, in the skin's texture; so both sources have it."""

import numpy as np

from .head import Anatomy, Head
from .source import BODY

# How far before the skin a hand is held (dm), and how far its fingers lean from straight up (degrees).
GAP, LEAN = (0.12, 0.5), 70.0


class Hand:
    """The left hand of a kit; `hold` puts it somewhere before a face."""

    def __init__(self, anatomy: Anatomy):
        self.part = anatomy.kit.surface(BODY, kind="hand")
        points = self.part.place(anatomy.mean)
        self.rest = points - points.mean(axis=0)
        _, _, axes = np.linalg.svd(self.rest, full_matrices=False)
        fingers, normal = axes[0] * np.sign(axes[0, 0]), axes[2]  # the arm leaves the body towards +x
        normal = normal * (-1 if normal[1] > 0 else 1)  # at rest the palm looks down
        self.axes = np.stack([np.cross(fingers, -normal), fingers, -normal])  # across, up the fingers, out of the back

    def hold(self, head: Head, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Vertices (n, 3) of the hand, at rest's axes; points: (106, 3) labels, one of which it covers."""
        lean = np.deg2rad(rng.uniform(-LEAN, LEAN))
        tilt = np.deg2rad(rng.uniform(-25, 25))
        across = rng.choice([-1.0, 1.0])  # a left or a right hand
        local = self.rest @ self.axes.T * (across, 1, 1) * (across if rng.random() < 0.3 else 1)
        turn = np.array([[np.cos(lean), np.sin(lean), 0], [-np.sin(lean), np.cos(lean), 0], [0, 0, 1]])
        tip = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
        target = points[33:][int(rng.integers(73))] + rng.normal(0, 0.25, 3) * (1, 1, 0)
        placed = local @ (tip @ turn).T * head.scale
        lowest = np.quantile(placed[:, 2], 0.02)
        return placed + target + (0, -0.3 * head.scale, rng.uniform(*GAP) - lowest)
