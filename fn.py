"""Drawing: points and the lines of each part in the part's own colour, sized by the face."""

import cv2
import numpy as np

from SPPE.src.landmarks import COLOURS, LINES, NUM_POINTS, PART_OF

# Sizes as fractions of the face's size (the longer side of its points), so that small faces stay visible.
POINT_SIZE = 0.008
LINE_SIZE = 0.004

OTHER_COLOUR = (86, 180, 233)  # points of a scheme that has no parts
SHIFT = 4  # OpenCV draws at 1/16 of a pixel


def vis_frame(image: np.ndarray, faces: list, boxes: bool = False, fast: bool = False) -> np.ndarray:
    """Draw faces on a copy of an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        faces: `predictor.Face`s; points that nothing has taught the network (`hollow`) are drawn as rings.
        boxes: draw each face's box too.
        fast: points only, without smoothing.
    """
    canvas = image.copy()
    for face in faces:
        points = face.landmarks
        size = float(np.ptp(points, axis=0).max())
        if len(points) == NUM_POINTS and not fast:
            _draw_lines(canvas, points, max(1, round(size * LINE_SIZE)))
        _draw_points(canvas, points, face.hollow, max(1.0, size * POINT_SIZE), cv2.LINE_8 if fast else cv2.LINE_AA)
        if boxes:
            _draw_box(canvas, face.box, max(1, round(size * LINE_SIZE)))
    return canvas


def _fixed(values: np.ndarray) -> np.ndarray:
    return np.round(np.asarray(values) * (1 << SHIFT)).astype(np.int32)


def _draw_lines(canvas: np.ndarray, points: np.ndarray, width: int) -> None:
    for part, segments in LINES.items():
        if segments:
            lines = _fixed(points[np.array(segments)])  # (S, 2, 2)
            cv2.polylines(canvas, list(lines), False, COLOURS[part], width, cv2.LINE_AA, SHIFT)


def _draw_points(canvas: np.ndarray, points: np.ndarray, hollow, radius: float, line: int) -> None:
    for i, (x, y) in enumerate(_fixed(points).tolist()):
        colour = COLOURS[PART_OF[i]] if len(points) == NUM_POINTS else OTHER_COLOUR
        ring = hollow is not None and bool(hollow[i])
        cv2.circle(canvas, (x, y), round(radius * (1 << SHIFT)), colour, 1 if ring else -1, line, SHIFT)


def _draw_box(canvas: np.ndarray, box: np.ndarray, width: int) -> None:
    (x1, y1), (x2, y2) = np.round(np.asarray(box).reshape(2, 2)).astype(int).tolist()
    cv2.rectangle(canvas, (x1, y1), (x2, y2), (255, 255, 255), width, cv2.LINE_AA)
