"""Squeeze-and-excitation (Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018, section 3)."""

import torch
from torch import nn


class SELayer(nn.Module):
    """Scale each channel by a gate computed from the picture-wide mean of all channels.

    Args:
        channels: number of input and output channels C.
        reduction: the hidden layer has C // reduction units (1 in AlphaPose's networks).
    """

    def __init__(self, channels: int, reduction: int = 1):
        super().__init__()
        hidden = channels // reduction
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.fc(x.mean(dim=(2, 3)))  # (B, C)
        return x * gate[:, :, None, None]
