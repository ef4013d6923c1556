"""Heatmaps to points for a whole batch in a few tensor operations."""

from collections.abc import Callable

import torch

# DARK's logarithm needs a floor (Zhang et al. use 1e-10 after smoothing; ours is not smoothed, so a higher one).
DARK_FLOOR = 1e-3

EPSILON = 1e-6

# Times this, a heatmap trained with --crit dsnt is the logarithm of a distribution: its peak stays near 1.
SOFTMAX_GAIN = 10.0

# Spread (heatmap pixels) at which dsnt's score is 1 / e.
SPREAD_UNIT = 4.0


def _neighbourhoods(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Peak (B, K, 2) x y, where it has both neighbours (B, K, 2), its height (B, K), its 3 x 3 window (B, K, 3, 3)."""
    b, k, h, w = heatmaps.shape
    # the highest row, then its highest column: five times as fast on a CPU as one search that carries an index along
    score, y = heatmaps.amax(dim=3).max(dim=2)  # (B, K)
    x = heatmaps.gather(2, y[..., None, None].expand(b, k, 1, w)).argmax(dim=3)[..., 0]
    offsets = torch.arange(-1, 2, device=heatmaps.device)
    columns = (x[..., None] + offsets).clamp(0, w - 1)  # (B, K, 3)
    rows = (y[..., None] + offsets).clamp(0, h - 1)
    window = heatmaps.flatten(2).gather(2, (rows[..., :, None] * w + columns[..., None, :]).flatten(2)).view(b, k, 3, 3)
    inside = torch.stack([(x > 0) & (x < w - 1), (y > 0) & (y < h - 1)], dim=-1)
    return torch.stack([x, y], dim=-1), inside, score, window


def _alphapose(window: torch.Tensor) -> torch.Tensor:
    """A quarter pixel towards the higher neighbour (Newell et al., "Stacked Hourglass Networks", ECCV 2016, 3.3).

    AlphaPose then adds 0.2 to the index, counted from the heatmap's corner. Its training rounds labels down, so that a
    peak stands for the middle of its pixel, 0.5 from there: our frame, which counts from the middle, adds nothing.
    """
    slope = torch.stack([window[..., 1, 2] - window[..., 1, 0], window[..., 2, 1] - window[..., 0, 1]], dim=-1)
    return 0.25 * slope.sign()


def _dark(window: torch.Tensor) -> torch.Tensor:
    """One Newton step on the log heatmap, exact for a Gaussian (Zhang et al., "DARK", CVPR 2020, equation 7)."""
    log = window.clamp(min=DARK_FLOOR).log()
    dx, dy = (log[..., 1, 2] - log[..., 1, 0]) / 2, (log[..., 2, 1] - log[..., 0, 1]) / 2
    dxx = log[..., 1, 2] - 2 * log[..., 1, 1] + log[..., 1, 0]
    dyy = log[..., 2, 1] - 2 * log[..., 1, 1] + log[..., 0, 1]
    dxy = (log[..., 2, 2] - log[..., 2, 0] - log[..., 0, 2] + log[..., 0, 0]) / 4
    det = dxx * dyy - dxy**2
    det = torch.where(det.abs() < EPSILON, torch.ones_like(det), det)
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / det[..., None]
    return step.clamp(-1, 1)


def _from_peak(shift: Callable) -> Callable:
    """A decoder: the highest pixel, moved by what `shift` reads in its 3 x 3 window; the score is the peak's height."""

    def decode(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        peak, inside, score, window = _neighbourhoods(heatmaps)
        return peak.float() + shift(window.float()) * inside, score.float()

    return decode


def log_marginals(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Heatmaps (B, K, H, W) as distributions, softmax of SOFTMAX_GAIN times them.

    Returns:
        their logarithm (B, K, H, W), their marginals over x (B, K, W) and over y (B, K, H); float32.
    """
    flat = (SOFTMAX_GAIN * heatmaps.float()).flatten(2).log_softmax(2)
    log = flat.view(heatmaps.shape)
    mass = log.exp()
    return log, mass.sum(2), mass.sum(3)


def expectation(marginal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance (B, K) of a marginal (B, K, N) over the pixels 0 .. N - 1."""
    place = torch.arange(marginal.shape[2], device=marginal.device, dtype=marginal.dtype)
    mean = marginal @ place
    return mean, (marginal @ place**2 - mean**2).clamp(min=0)


def _dsnt(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the heatmap as a distribution (Nibali et al., "DSNT", 2018, equation 4); the score falls with its
    spread, 1 for a single pixel."""
    _, over_x, over_y = log_marginals(heatmaps)
    (x, spread_x), (y, spread_y) = expectation(over_x), expectation(over_y)
    return torch.stack([x, y], dim=-1), (-(spread_x + spread_y).sqrt() / SPREAD_UNIT).exp()


# Name -> heatmaps (B, K, H, W) to points (B, K, 2), heatmap pixels, and scores (B, K).
DECODERS = {"dark": _from_peak(_dark), "alphapose": _from_peak(_alphapose), "dsnt": _dsnt}
DEFAULT_DECODER = "dark"  # of weights that do not say what they were trained for


def decode_heatmaps(heatmaps: torch.Tensor, decode: str = DEFAULT_DECODER) -> tuple[torch.Tensor, torch.Tensor]:
    """Heatmaps (B, K, H, W) -> points (B, K, 2) x y in heatmap pixels, scores (B, K) in 0 .. 1.

    Args:
        decode: "dark" (Newton step on the log) or "alphapose" (quarter pixel), for heatmaps trained to be Gaussians;
            "dsnt" (mean of the softmax), for those trained with --crit dsnt.
    Raises:
        ValueError: unknown decode.
    """
    if decode not in DECODERS:
        raise ValueError(f"unknown decode {decode!r}; choose one of {', '.join(DECODERS)}")
    return DECODERS[decode](heatmaps)
