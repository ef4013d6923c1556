"""Faces cut out of pictures: box growth, the affine of a crop and its inverse, normalisation.

Frames: *image* and *crop* coordinates are (x, y) with (0, 0) in the middle of the first pixel, so a picture of
width W spans -0.5 .. W - 0.5 and a mirrored point is W - 1 - x, in every frame alike.
"""

import cv2
import numpy as np
import torch

# AlphaPose's published networks expect RGB in [0, 1] minus this mean, without division by a deviation.
MEAN_RGB = (0.406, 0.457, 0.480)

# What lies outside the grown box is set to the mean, which is zero to the network.
PAD_COLOUR = tuple(round(255 * m) for m in MEAN_RGB)

# AlphaPose grows a detected box by 30 % (15 % a side) before cropping.
BOX_GROWTH = 0.3

# Bilinear warps read 2 x 2 pixels, so shrinking to less than half skips pixels: average first.
MIN_WARP_SCALE = 0.5

# A box thinner than this (image pixels) is widened, so that a degenerate box still has an affine.
MIN_SIDE = 1.0


def grow_boxes(boxes: np.ndarray, width: int, height: int, growth: float = BOX_GROWTH) -> np.ndarray:
    """Grow boxes (N, 4) x1 y1 x2 y2 (image frame) about their centres, clip them to the width x height image."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half = np.maximum(half * (1 + growth), MIN_SIDE / 2)
    limit = np.array([width - 1, height - 1], np.float32)
    low, high = np.clip(centre - half, 0, limit), np.clip(centre + half, 0, limit)
    return np.concatenate([low, high], axis=1)


def crop_affines(boxes: np.ndarray, out_h: int, out_w: int) -> np.ndarray:
    """Affines (N, 2, 3), float64, image -> crop, that show each box (N, 4) whole, centred and with its aspect kept."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], MIN_SIDE)
    scale = np.minimum(out_w / size[:, 0], out_h / size[:, 1])
    affines = np.zeros((len(boxes), 2, 3))
    affines[:, 0, 0] = affines[:, 1, 1] = scale
    affines[:, :, 2] = np.array([(out_w - 1) / 2, (out_h - 1) / 2]) - scale[:, None] * centre
    return affines


def invert_affines(affines: np.ndarray) -> np.ndarray:
    """Inverses (..., 2, 3) of affines (..., 2, 3)."""
    linear = np.linalg.inv(affines[..., :2])
    return np.concatenate([linear, -linear @ affines[..., 2:]], axis=-1)


def apply_affines(affines: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., K, 2) by affines (..., 2, 3)."""
    return points @ np.swapaxes(affines[..., :2], -1, -2) + affines[..., None, :, 2]


def halve(image: np.ndarray, scale: float) -> tuple[np.ndarray, int]:
    """Most of the way to a picture `scale` times the size: halved, each pixel the mean of four, until less than
    another halving is missing. OpenCV averages 20 times faster by twos than by other factors.

    Returns:
        the picture, a rest of less than a pixel at its right and lower edge cut away; how many times smaller it is.
    """
    times = 1
    while scale * times < MIN_WARP_SCALE and min(image.shape[:2]) > 1:
        h, w = image.shape[0] // 2, image.shape[1] // 2
        image = cv2.resize(image[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)
        times *= 2
    return image, times


def warp_box(image: np.ndarray, box: np.ndarray, affine: np.ndarray, out_h: int, out_w: int) -> np.ndarray:
    """Cut one box out of an image through an affine; outside the box is PAD_COLOUR.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) x1 y1 x2 y2 inside the image; nothing beyond it is shown.
        affine: (2, 3) image -> crop; any rotation, scale, mirror.
    Returns:
        (out_h, out_w, 3) uint8 RGB.
    """
    x1, y1 = np.floor(box[:2]).astype(int)
    x2, y2 = np.ceil(box[2:]).astype(int) + 1
    view = image[y1:y2, x1:x2]
    view, times = halve(view, np.sqrt(abs(np.linalg.det(affine[:, :2]))))
    affine = affine.copy()  # view -> crop
    affine[:, 2] += affine[:, :2] @ (x1 + (times - 1) / 2, y1 + (times - 1) / 2)
    affine[:, :2] *= times
    return cv2.warpAffine(
        view, affine, (out_w, out_h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=PAD_COLOUR
    )


def crop_boxes(
    image: np.ndarray, boxes: np.ndarray, out_h: int, out_w: int, growth: float = BOX_GROWTH
) -> tuple[np.ndarray, np.ndarray]:
    """Crop every detected box, grown.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) x1 y1 x2 y2, image frame.
        growth: by which part of their sides; what a network was trained with (`Estimator.crop` knows).
    Returns:
        crops (N, out_h, out_w, 3) uint8 RGB; affines (N, 2, 3) image -> crop.
    """
    height, width = image.shape[:2]
    grown = grow_boxes(boxes, width, height, growth)
    affines = crop_affines(grown, out_h, out_w)
    crops = np.empty((len(grown), out_h, out_w, 3), np.uint8)
    for i, (box, affine) in enumerate(zip(grown, affines)):
        crops[i] = warp_box(image, box, affine, out_h, out_w)
    return crops, affines


def normalise(crops: torch.Tensor) -> torch.Tensor:
    """uint8 RGB (N, H, W, 3) -> float32 (N, 3, H, W), [0, 1] minus MEAN_RGB, channels-last in memory."""
    mean = torch.tensor(MEAN_RGB, device=crops.device)
    return (crops.float().div_(255) - mean).permute(0, 3, 1, 2)
