"""Photometric augmentation of a batch of crops on its device; every sample draws its own changes."""

import torch
from torch.nn import functional as F

# Ranges that keep a face recognisable to a person who looks at the results (tensorboard shows them).
BRIGHTNESS = 0.25  # added, of the range [0, 1]
CONTRAST = 0.4  # factor 2 ** +-0.4
COLOUR = 0.12  # factor per channel 1 +- 0.12
GREY_RATE = 0.1
BLUR_RATE = 0.1
NOISE_RATE = 0.1
NOISE_DEVIATION = 0.06
OCCLUSION_RATE = 0.15
OCCLUSION_SIDE = (0.1, 0.45)  # of the crop's side


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crops (B, 3, H, W) float RGB in [0, 1] -> the same shape, changed; a CPU generator decides how."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return (low + (high - low) * torch.rand(shape, generator=generator)).to(x.device)

    def chance(rate: float) -> torch.Tensor:
        return uniform(0, 1, len(x), 1, 1, 1) < rate

    b, _, h, w = x.shape
    low_resolution = F.interpolate(F.avg_pool2d(x, 3, 2, 1), (h, w), mode="bilinear", align_corners=False)
    x = torch.where(chance(BLUR_RATE), low_resolution, x)
    grey = x.mean(1, keepdim=True)
    x = torch.where(chance(GREY_RATE), grey, x)
    gain = 2 ** uniform(-CONTRAST, CONTRAST, b, 1, 1, 1) * uniform(1 - COLOUR, 1 + COLOUR, b, 3, 1, 1)
    x = (x - 0.5) * gain + 0.5 + uniform(-BRIGHTNESS, BRIGHTNESS, b, 1, 1, 1)
    # only these draw numbers, and on the device: there are many, and a CPU draws them one after the other
    noisy = (torch.rand(b, generator=generator) < NOISE_RATE).nonzero().flatten().to(x.device)
    own = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    noise = torch.randn((len(noisy), 3, h, w), generator=own, device=x.device)
    x = x.index_add(0, noisy, noise, alpha=NOISE_DEVIATION)
    return _occlude(x.clamp(0, 1), uniform, chance(OCCLUSION_RATE))


def _occlude(x: torch.Tensor, uniform, chosen: torch.Tensor) -> torch.Tensor:
    """Cover one rectangle of the chosen samples with one colour (Zhong et al., "Random Erasing", AAAI 2020)."""
    b, _, h, w = x.shape
    size, middle = uniform(*OCCLUSION_SIDE, b, 2), uniform(0, 1, b, 2)
    columns = torch.arange(w, device=x.device) / w  # (W,)
    rows = torch.arange(h, device=x.device) / h
    in_x = (columns - middle[:, :1]).abs() < size[:, :1] / 2  # (B, W)
    in_y = (rows - middle[:, 1:]).abs() < size[:, 1:] / 2
    covered = in_y[:, None, :, None] & in_x[:, None, None, :] & chosen
    return torch.where(covered, uniform(0, 1, b, 3, 1, 1), x)
