"""Dense upsampling convolution (Wang et al., "Understanding Convolution for Semantic Segmentation", WACV 2018, 3.1)."""

import torch
from torch import nn


class DUC(nn.Module):
    """3x3 conv, batch norm, ReLU, then channels become space: (B, in, H, W) -> (B, planes / r^2, rH, rW).

    Args:
        in_channels: channels of the input.
        planes: channels of the convolution, a multiple of upscale_factor squared.
        upscale_factor: r, the gain in each direction.
    """

    def __init__(self, in_channels: int, planes: int, upscale_factor: int = 2):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, planes, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.pixel_shuffle = nn.PixelShuffle(upscale_factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pixel_shuffle(self.relu(self.bn(self.conv(x))))
