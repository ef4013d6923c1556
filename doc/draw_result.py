"""Draw doc/result.jpg, the picture at the top of the README: the shipped networks on example photographs.

python doc/draw_result.py
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

import cv2
import numpy as np

from fn import vis_frame
from predictor import FacePredictor
from SPPE.src.utils.imread import load_image

# Picture and the part of it (x0, y0, x1, y1, fractions) that is shown.
SHOWN = (
    ("eileen_collins", (0.15, 0.0, 0.8, 0.65)),
    ("grace_hopper", (0.1, 0.05, 0.9, 0.75)),
    ("barack_obama_speaking", (0.1, 0.02, 0.98, 0.6)),
    ("nikola_tesla", (0.0, 0.05, 1.0, 0.8)),
)
HEIGHT = 420


def main() -> None:
    predictor = FacePredictor()
    tiles = []
    for name, part in SHOWN:
        image = load_image(ROOT / "examples" / "imgs" / f"{name}.jpg")
        height, width = image.shape[:2]
        x0, y0, x1, y1 = (np.array(part) * (width, height, width, height)).astype(int)
        tile = image[y0:y1, x0:x1]
        tile = cv2.resize(tile, (round(HEIGHT * tile.shape[1] / tile.shape[0]), HEIGHT), interpolation=cv2.INTER_CUBIC)
        tiles.append(vis_frame(tile, predictor(tile)))
    path = ROOT / "doc" / "result.jpg"
    cv2.imwrite(str(path), cv2.cvtColor(np.hstack(tiles), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
