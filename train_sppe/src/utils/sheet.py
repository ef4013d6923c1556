"""Contact sheets: many small pictures with captions in one, for looking at results."""

from pathlib import Path

import cv2
import numpy as np

from SPPE.src.utils.files import write_whole
from SPPE.src.utils.img import warp_box

CAPTION_HEIGHT, CAPTION_SCALE = 18, 0.4


def face_tile(image: np.ndarray, box: np.ndarray, side: int, margin: float = 0.35) -> tuple[np.ndarray, np.ndarray]:
    """The square around a face, enlarged or shrunk to side x side.

    Args:
        image: (H, W, 3) uint8 RGB. box: (4,) x1 y1 x2 y2, image pixels. margin: added on each side, of the box's side.
    Returns:
        (side, side, 3) uint8 RGB, the crops' padding beyond the picture; the affine (2, 3) image -> tile.
    """
    half = (0.5 + margin) * max(float((box[2:] - box[:2]).max()), 1.0)
    scale = side / (2 * half)
    offset = (side - 1) / 2 - scale * (box[:2] + box[2:]) / 2
    affine = np.column_stack([scale * np.eye(2), offset])
    whole = np.array([0, 0, image.shape[1] - 1, image.shape[0] - 1])
    return warp_box(image, whole, affine, side, side), affine


def contact_sheet(tiles: list[np.ndarray], captions: list[str], columns: int) -> np.ndarray:
    """Equal (H, W, 3) uint8 pictures, row by row, a caption below each -> one picture."""
    if not tiles:
        raise ValueError("no pictures to put on a sheet")
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (height + CAPTION_HEIGHT), columns * width, 3), 255, np.uint8)
    for i, (tile, caption) in enumerate(zip(tiles, captions)):
        y, x = (i // columns) * (height + CAPTION_HEIGHT), (i % columns) * width
        sheet[y : y + height, x : x + width] = tile
        strip = sheet[y + height : y + height + CAPTION_HEIGHT, x : x + width]
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(strip, _fit(caption, width), (2, 13), font, CAPTION_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


def _fit(caption: str, width: int) -> str:
    """The end of a caption is what tells names apart: cut its beginning."""
    while caption and cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, CAPTION_SCALE, 1)[0][0] > width - 4:
        caption = caption[1:]
    return caption


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write an RGB picture; JPEG and PNG by the name.

    Raises:
        ValueError: a suffix that OpenCV does not write.
    """
    try:
        done, data = cv2.imencode(path.suffix or ".", image[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        raise ValueError(f"{path}: no picture format {path.suffix!r}; say .jpg or .png")
    write_whole(data.tobytes(), path)
