"""SE-ResNet trunk: ResNet (He et al., CVPR 2016) with squeeze-and-excitation in the first block of each stage."""

import torch
from torch import nn
from torch.nn import functional as F

from .SE_module import SELayer

# Depth -> blocks in each of the four stages (He et al., table 1; 22 is ours, 18 and one more in the last two stages).
STAGES = {18: (2, 2, 2, 2), 22: (2, 2, 3, 3), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
BOTTLENECK_DEPTHS = (50, 101)

STEM_CHANNELS = 64  # at width 1.0


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `se` gates the residual when the block opens a stage."""

    expansion = 1

    def __init__(self, in_channels: int, planes: int, stride: int = 1, se: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        _add_se_and_shortcut(self, in_channels, planes, stride, se)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.se(self.residual(x)) + self.downsample(x), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(self, in_channels: int, planes: int, stride: int = 1, se: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        _add_se_and_shortcut(self, in_channels, planes * self.expansion, stride, se)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.se(self.residual(x)) + self.downsample(x), inplace=True)


def _add_se_and_shortcut(block: nn.Module, in_channels: int, out_channels: int, stride: int, se: bool) -> None:
    block.se = SELayer(out_channels) if se else nn.Identity()
    block.downsample = nn.Identity()
    if stride != 1 or in_channels != out_channels:
        conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        block.downsample = nn.Sequential(conv, nn.BatchNorm2d(out_channels))


def goes_on_in(depth: int, deeper: int) -> bool:
    """Whether a trunk of `depth` has no block that one of `deeper` lacks."""
    same = (depth in BOTTLENECK_DEPTHS) == (deeper in BOTTLENECK_DEPTHS)
    return same and all(less <= more for less, more in zip(STAGES[depth], STAGES[deeper]))


class SEResnet(nn.Module):
    """(B, 3, H, W) -> (B, out_channels, H / 32, W / 32), or the outputs of all stages (`stages`).

    A stage's first block carries SE when it has a projection shortcut (as in AlphaPose). In the shallow networks the
    first stage keeps its size and so has neither. The other blocks start as the identity (Goyal et al., "Accurate,
    Large Minibatch SGD", 2017, 5.1), so that a trained network can go on with more of them.

    Args:
        depth: 18, 22, 34 (basic blocks), 50 or 101 (bottlenecks).
        width: factor on every channel count; 1.0 is the published network.
    Raises:
        ValueError: unknown depth.
    """

    def __init__(self, depth: int = 101, width: float = 1.0):
        super().__init__()
        if depth not in STAGES:
            raise ValueError(f"SE-ResNet of depth {depth} is not known; choose one of {sorted(STAGES)}")
        block = Bottleneck if depth in BOTTLENECK_DEPTHS else BasicBlock
        channels = round(STEM_CHANNELS * width)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        in_channels = channels
        for stage, blocks in enumerate(STAGES[depth]):
            planes, stride = channels * 2**stage, 1 if stage == 0 else 2
            se = stride != 1 or in_channels != planes * block.expansion
            first = block(in_channels, planes, stride, se)
            in_channels = planes * block.expansion
            rest = [block(in_channels, planes) for _ in range(blocks - 1)]
            for more in rest:
                nn.init.zeros_(more.get_parameter("bn3.weight" if depth in BOTTLENECK_DEPTHS else "bn2.weight"))
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.channels = tuple(channels * 2**stage * block.expansion for stage in range(4))
        self.out_channels = in_channels

    def stages(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(B, 3, H, W) -> four maps (B, channels[i], H / 2^(i+2), W / 2^(i+2))."""
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)  # (B, C, H/2, W/2)
        maps = [self.layer1(self.maxpool(x))]
        for layer in (self.layer2, self.layer3, self.layer4):
            maps.append(layer(maps[-1]))
        return maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x)[-1]
