"""What --smooth does to a still face (jitter) and to a moving one (lag); figures for doc/video.md.

    python bench/bench_smooth.py

Every example photograph becomes two short videos of its best face: *still*, each frame with noise and JPEG compression
of its own; and *moving*, half a face size a second to the right, compressed likewise. Jitter
is the root mean square of a point's way from its mean place; lag how far it trails behind the truth along the motion.
Both in % of the face's size (square root of the box's area), medians over the photographs.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from predictor import FacePredictor
from SPPE.src.utils.imread import find_images, load_image
from tracking import OneEuro

RATE, FRAMES, SETTLED = 30, 60, 20  # frames a second, of a video, and left out while the filter settles
SPEED = 0.5  # of the moving face, sizes a second
NOISE, QUALITY = 4.0, 85  # grey levels; of JPEG


def main() -> None:
    predictor, rng = FacePredictor(), np.random.default_rng(0)
    rows = []
    for name in find_images(ROOT / "examples" / "imgs"):
        image = load_image(ROOT / "examples" / "imgs" / name)
        face = predictor(image)[0]
        size = float(np.sqrt(np.prod(face.box[2:] - face.box[:2])))
        still = follow(predictor, image, face.box, np.zeros((FRAMES, 2)), rng)
        path = np.arange(FRAMES)[:, None] / RATE * SPEED * size * (1, 0)
        moving = follow(predictor, image, face.box, path, rng)
        rows.append((100 * jitter(still) / size, 100 * lag(moving) / size))
    print(f"{len(rows)} faces, {RATE} frames a second; median in % of the face's size, plain and smoothed")
    for label, values in zip(("jitter of a still face", f"lag at {SPEED} sizes a second"), zip(*rows)):
        print(f"  {label:28} {np.median(values, axis=0).round(3)}")


def follow(predictor, image: np.ndarray, box: np.ndarray, path: np.ndarray, rng) -> np.ndarray:
    """Points less the true shift, plain and smoothed, (2, FRAMES - SETTLED, 106, 2) pixels; path: (FRAMES, 2)."""
    height, width = image.shape[:2]
    plain, smooth, filtered = [], [], OneEuro()
    for number, shift in enumerate(path):
        matrix = np.float64([[1, 0, shift[0]], [0, 1, shift[1]]])
        frame = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        frame = np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8)
        frame = cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1], cv2.IMREAD_COLOR)
        found = predictor(frame, boxes=[box + np.tile(shift, 2)])
        points = found[0].landmarks.astype(float)
        plain.append(points - shift)
        smooth.append(filtered(points, number / RATE) - shift)
    return np.array([plain, smooth])[:, SETTLED:]


def jitter(points: np.ndarray) -> np.ndarray:
    """(2, F, 106, 2) -> (2,) root mean square distance from the mean place."""
    away = points - points.mean(axis=1, keepdims=True)
    return np.sqrt((away**2).sum(axis=-1).mean(axis=(1, 2)))


def lag(points: np.ndarray) -> np.ndarray:
    """(2, F, 106, 2) -> (2,) how far the smoothed points trail the plain ones along x."""
    return (points[:1] - points)[..., 0].mean(axis=(1, 2))


if __name__ == "__main__":
    main()
