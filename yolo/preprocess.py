"""A photograph to the network's square input, and boxes back again."""

from typing import NamedTuple

import cv2
import numpy as np
import torch

from SPPE.src.utils.img import halve

# What Darknet fills the border with: half of 255.
GREY = 128


class Letterbox(NamedTuple):
    """How one image lies inside its square: x' = x * scale_x + left, y' = y * scale_y + top."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int  # of the image, pixels
    height: int


def letterbox(image, inp_dim):
    """image (H, W, 3) RGB uint8 -> ((inp_dim, inp_dim, 3) RGB uint8, Letterbox).

    The aspect is kept (to a pixel), the picture is centred, the border is grey. Shrinking averages areas, so that
    small faces keep their light; enlarging interpolates.
    """
    height, width = image.shape[:2]
    if height == 0 or width == 0:
        raise ValueError(f"an image of {width} × {height} pixels has nothing to detect in")
    scale = inp_dim / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (inp_dim - new_width) // 2, (inp_dim - new_height) // 2
    square = np.full((inp_dim, inp_dim, 3), GREY, np.uint8)
    inside = square[top : top + new_height, left : left + new_width]
    image, times = halve(image, scale)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    inside[:] = cv2.resize(image, (new_width, new_height), interpolation=interpolation)
    seen = times * image.shape[1], times * image.shape[0]  # the picture, but for what halving has cut away
    return square, Letterbox(new_width / seen[0], new_height / seen[1], left, top, width, height)


def unletterbox_boxes(boxes, transform):
    """boxes (N, 4+) x1, y1, x2, y2 in pixels of the square -> a float32 array in image pixels, cut to the image."""
    boxes = np.array(boxes, np.float32)
    boxes[:, 0:4:2] = np.clip((boxes[:, 0:4:2] - transform.left) / transform.scale_x, 0, transform.width)
    boxes[:, 1:4:2] = np.clip((boxes[:, 1:4:2] - transform.top) / transform.scale_y, 0, transform.height)
    return boxes


def to_input(squares, device="cpu", dtype=torch.float32):
    """Squares (B, S, S, 3) RGB uint8, list, array or tensor -> (B, 3, S, S) in [0, 1], channels_last, on the device."""
    batch = squares if isinstance(squares, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(squares))
    return batch.to(device).to(dtype).div_(255).permute(0, 3, 1, 2)  # in this order OpenVINO moves nothing
