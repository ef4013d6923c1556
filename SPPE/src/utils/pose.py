"""Landmarks as heatmaps: the crop <-> heatmap frames, Gaussian targets, mirroring.

Pixel centres are whole numbers in both frames, so with a stride of 4 heatmap pixel h covers crop pixels 4h .. 4h + 3
and its centre lies at 4h + 1.5: mirroring a crop mirrors its heatmaps exactly, which the flip test needs
(Huang et al., "The Devil is in the Details", CVPR 2020, section 3).
"""

import torch

from ..landmarks import FLIP_ORDER, NUM_POINTS


def crop_to_heatmap(points, stride: float):
    """(..., 2) crop pixels -> heatmap pixels, array or tensor."""
    return (points + 0.5) / stride - 0.5


def heatmap_to_crop(points, stride: float):
    """(..., 2) heatmap pixels -> crop pixels, array or tensor; inverse of `crop_to_heatmap`."""
    return (points + 0.5) * stride - 0.5


def draw_gaussians(points: torch.Tensor, height: int, width: int, sigma: float) -> torch.Tensor:
    """Targets of height 1: points (B, K, 2) in heatmap pixels -> (B, K, height, width), sub-pixel, on their device."""
    x = torch.arange(width, device=points.device, dtype=points.dtype)
    y = torch.arange(height, device=points.device, dtype=points.dtype)
    gauss_x = torch.exp(-((x - points[..., 0:1]) ** 2) / (2 * sigma**2))  # (B, K, W)
    gauss_y = torch.exp(-((y - points[..., 1:2]) ** 2) / (2 * sigma**2))  # (B, K, H)
    return gauss_y[..., :, None] * gauss_x[..., None, :]


def mirror_points(points, width: float):
    """Mirror (..., 106, 2) in a frame of that width and swap left with right; its own inverse. Array or tensor."""
    mirrored = points[..., list(FLIP_ORDER), :] * 1  # a copy, for arrays and tensors alike
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored


def mirror_heatmaps(heatmaps: torch.Tensor) -> torch.Tensor:
    """Mirror (B, 106, H, W) and swap left with right; its own inverse.

    Raises:
        ValueError: not 106 points, whose pairs are not known.
    """
    if heatmaps.shape[1] != NUM_POINTS:
        raise ValueError(f"the flip test knows the pairs of {NUM_POINTS} points, not of {heatmaps.shape[1]}")
    return heatmaps.flip(3)[:, list(FLIP_ORDER)]
