"""Heatmaps to points for a whole batch in a few tensor operations."""

import numpy as np
import torch
from torch.nn import functional as F

from .img import apply_affines, invert_affines
from .pose import heatmap_to_crop

# AlphaPose adds 0.2 to a peak's index counted from the heatmap's corner; ours counts from the first pixel's centre.
ALPHAPOSE_OFFSET = 0.2 - 0.5

# The window around the peak that `centroid` averages over: 5 x 5, about three sigmas of a target on either side.
CENTROID_RADIUS = 2

# DARK's logarithm needs a floor (Zhang et al. use 1e-10 after smoothing; ours is not smoothed, so a higher one).
DARK_FLOOR = 1e-3

EPSILON = 1e-6


def _windows(heatmaps: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Peak (B, K, 2) x y, score (B, K), and the (B, K, n, n) window around it, edges repeated."""
    b, k, h, w = heatmaps.shape
    score, index = heatmaps.flatten(2).max(dim=2)  # (B, K)
    peak = torch.stack([index % w, index // w], dim=-1)  # (B, K, 2)
    n = 2 * radius + 1
    offsets = torch.arange(-radius, radius + 1, device=heatmaps.device)
    x = (peak[..., 0:1] + offsets).clamp(0, w - 1)  # (B, K, n)
    y = (peak[..., 1:2] + offsets).clamp(0, h - 1)
    flat = y[..., :, None] * w + x[..., None, :]  # (B, K, n, n)
    window = heatmaps.flatten(2).gather(2, flat.flatten(2)).view(b, k, n, n)
    return peak.to(heatmaps.dtype), score, window


def _decode_alphapose(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The peak moved a quarter of a pixel towards the higher neighbour (Newell et al., ECCV 2016), AlphaPose's offset."""
    peak, score, window = _windows(heatmaps, 1)
    slope = torch.stack([window[..., 1, 2] - window[..., 1, 0], window[..., 2, 1] - window[..., 0, 1]], dim=-1)
    return peak + 0.25 * slope.sign() + ALPHAPOSE_OFFSET, score


def _decode_centroid(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The centre of mass of the positive part of a 5 x 5 window; it stays unbiased for a Gaussian that is cut evenly."""
    padded = F.pad(heatmaps, [CENTROID_RADIUS] * 4)
    peak, score, window = _windows(padded, CENTROID_RADIUS)
    weight = window.clamp(min=0)
    offsets = torch.arange(-CENTROID_RADIUS, CENTROID_RADIUS + 1, device=heatmaps.device, dtype=heatmaps.dtype)
    mass = weight.sum(dim=(2, 3)).clamp(min=EPSILON)
    shift = torch.stack([(weight.sum(2) * offsets).sum(-1), (weight.sum(3) * offsets).sum(-1)], dim=-1)
    return peak - CENTROID_RADIUS + shift / mass[..., None], score


def _decode_dark(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One Newton step on the log heatmap, exact for a Gaussian (Zhang et al., "DARK", CVPR 2020, equation 7)."""
    peak, score, window = _windows(heatmaps, 1)
    log = window.clamp(min=DARK_FLOOR).log()
    dx, dy = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    dxx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    dyy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    dxy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    det = dxx * dyy - dxy**2
    det = torch.where(det.abs() < EPSILON, torch.ones_like(det), det)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / det[..., None]
    return peak + step.clamp(-1, 1), score


DECODERS = {"centroid": _decode_centroid, "dark": _decode_dark, "alphapose": _decode_alphapose}
DEFAULT_DECODER = "centroid"


def decode_heatmaps(heatmaps: torch.Tensor, decode: str = DEFAULT_DECODER) -> tuple[torch.Tensor, torch.Tensor]:
    """Heatmaps (B, K, H, W) -> points (B, K, 2) x y in heatmap pixels, scores (B, K), the height of each peak.

    Args:
        decode: "centroid" (5 x 5 centre of mass), "dark" (Newton step on the log) or "alphapose" (quarter pixel).
    Raises:
        ValueError: unknown decode.
    """
    if decode not in DECODERS:
        raise ValueError(f"unknown decode {decode!r}; choose one of {', '.join(DECODERS)}")
    return DECODERS[decode](heatmaps.float())


def points_in_image(points: torch.Tensor, affines: np.ndarray, stride: float) -> np.ndarray:
    """Points (B, K, 2) in heatmap pixels -> float32 (B, K, 2) in image pixels, through affines (B, 2, 3) image -> crop."""
    crop = heatmap_to_crop(points.cpu().numpy().astype(np.float64), stride)
    return apply_affines(invert_affines(affines), crop).astype(np.float32)
