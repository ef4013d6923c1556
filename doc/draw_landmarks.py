"""Draw doc/landmarks106.png, the picture that defines the 106 points, from the schema.

python doc/draw_landmarks.py
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from SPPE.src.landmarks import COLOURS, LINES, MEAN_FACE, NUM_POINTS, PART_OF, PARTS

# In the mean face 74 lies under 104 and 83 under 105 (LaPa draws them as one): shown side by side.
LABEL_SHIFT = {74: (0, 34), 83: (0, 34), 104: (0, -30), 105: (0, -30)}


def draw(path: Path) -> None:
    face = np.array(MEAN_FACE, float)
    figure, axis = plt.subplots(figsize=(11, 11.4), dpi=110)
    for part, lines in LINES.items():
        colour = tuple(0.75 * c / 255 for c in COLOURS[part])
        for a, b in lines:
            axis.plot(*face[[a, b]].T, color=colour, lw=1.2, zorder=1)
        axis.scatter(*face[list(PARTS[part])].T, s=16, color=colour, zorder=2, label=part_label(part))
    for i in range(NUM_POINTS):
        x, y = face[i] + label_place(i, face)
        axis.text(x, y, str(i), fontsize=8, ha="center", va="center", zorder=3)
    axis.set(aspect="equal", title='The 106 points, LaPa / JD order ("left" is the left of the picture)')
    axis.invert_yaxis()
    axis.axis("off")
    axis.legend(loc="upper center", ncols=3, fontsize=9, frameon=False)
    axis.set_ylim(1330, -520)
    figure.savefig(path, bbox_inches="tight")


def part_label(part: str) -> str:
    members = PARTS[part]
    return f"{members[0]}-{members[-1]} {part.replace('_', ' ')}"


def label_place(i: int, face: np.ndarray) -> np.ndarray:
    """Where a point's number stands relative to it: away from the middle of its part, the contour's outside."""
    if i in LABEL_SHIFT:
        return np.array(LABEL_SHIFT[i], float)
    part = PART_OF[i]
    if part == "nose" and i <= 54:
        return np.array([30.0, 0])
    middle = face[list(PARTS[part])].mean(axis=0) if part != "contour" else np.array([0.0, 300])
    away = face[i] - middle
    distance = -26 if part == "inner_lip" else 30
    return distance * away / max(np.linalg.norm(away), 1)


if __name__ == "__main__":
    draw(ROOT / "doc" / "landmarks106.png")
