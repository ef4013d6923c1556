"""FastPose: SE-ResNet + PixelShuffle + two DUC + 3x3 convolution, one heatmap a point.

The network of AlphaPose's fast pose branch (Xiu et al., "Pose Flow", BMVC 2018; Fang et al., "RMPE", ICCV 2017).
`createModel(nClasses=106)` has its parameter names, so a `duc_se.pth` loads as it is; smaller networks are the same
code with other numbers, and `config_of` reads those numbers back from any state dict.
A trunk of the timm library (`backbone="timm:NAME"`) goes under the same head.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .layers.DUC import DUC
from .layers.SE_Resnet import BOTTLENECK_DEPTHS, STAGES, STEM_CHANNELS, SEResnet
from .layers.timm_trunk import TimmTrunk, backbone_of

HEATMAP_STRIDE = 4  # input pixels per heatmap pixel
INPUT_MULTIPLE = 32  # the trunk halves its input five times


class FastPose(nn.Module):
    """(B, 3, H, W) -> heatmaps (B, nClasses, H / 4, W / 4); H and W are multiples of 32.

    Args:
        nClasses: number of landmarks.
        depth, width: of the SE-ResNet trunk.
        duc: channels of the two DUC convolutions.
        backbone: "timm:NAME" instead of the SE-ResNet; depth and width then have no meaning.
        pretrained: a file of timm's weights for that trunk.
        lateral: add the trunk's first three stages to the maps of their size in the head, as a feature pyramid does
            (Lin et al., "Feature Pyramid Networks", CVPR 2017, figure 3). SE-ResNet only.
    Raises:
        ValueError, FileNotFoundError: unknown depth; see `TimmTrunk`.
    """

    def __init__(
        self,
        nClasses: int = 106,
        depth: int = 101,
        width: float = 1.0,
        duc: tuple[int, int] = (1024, 512),
        backbone: str | None = None,
        pretrained: str | Path | None = None,
        lateral: bool = False,
    ):
        super().__init__()
        if pretrained and not backbone:
            raise ValueError(f"pretrained {pretrained}: these are a timm trunk's weights; name it with backbone")
        channels = round(STEM_CHANNELS * width)  # whole, so that the weights' shapes tell the width again
        trunk = {"backbone": backbone} if backbone else {"depth": depth, "width": channels / STEM_CHANNELS}
        if lateral and backbone:
            raise ValueError(f"lateral connections are made for the SE-ResNet, not for {backbone}")
        self.config: dict[str, Any] = {"nClasses": nClasses, **trunk, "duc": tuple(duc)}
        self.preact = TimmTrunk(backbone, pretrained) if backbone else SEResnet(depth, width)
        self.suffle1 = nn.PixelShuffle(2)
        self.duc1 = DUC(self.preact.out_channels // 4, duc[0])
        self.duc2 = DUC(duc[0] // 4, duc[1])
        self.conv_out = nn.Conv2d(duc[1] // 4, nClasses, 3, padding=1)
        if lateral:
            self.config["lateral"] = True
            into = (duc[1] // 4, duc[0] // 4, self.preact.out_channels // 4)
            self.lateral = nn.ModuleList(map(_lateral, self.preact.channels, into))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "lateral" in self.config:
            fine, middle, coarse, x = self.preact.stages(x)
            x = self.suffle1(x) + self.lateral[2](coarse)
            x = self.duc1(x) + self.lateral[1](middle)
            x = self.duc2(x) + self.lateral[0](fine)
            return self.conv_out(x)
        x = self.suffle1(self.preact(x))  # (B, C/4, H/16, W/16)
        x = self.duc2(self.duc1(x))  # (B, duc[1]/4, H/4, W/4)
        return self.conv_out(x)


def _lateral(channels: int, planes: int) -> nn.Conv2d:
    """A 1x1 convolution that starts at zero: added to a trained network it changes nothing until it is trained."""
    conv = nn.Conv2d(channels, planes, 1)
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def createModel(nClasses: int = 106, **numbers) -> FastPose:
    """The published FastPose (59.67 M parameters at 106 classes), or one of other `numbers` (FastPose's arguments)."""
    return FastPose(nClasses, **numbers)


def sync_batch_norm(model: FastPose) -> nn.Module:
    """The network with its batch norms over all processes; timm's hold an activation too, which torch's would lose."""
    if "backbone" in model.config:
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(model)
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def config_of(state_dict: dict[str, torch.Tensor]) -> dict:
    """Read FastPose's arguments from a state dict: from its shapes, and the name that a timm trunk keeps in it.

    Raises:
        ValueError: the state dict is not one of FastPose.
    """
    try:
        head = {
            "nClasses": state_dict["conv_out.weight"].shape[0],
            "duc": (state_dict["duc1.conv.weight"].shape[0], state_dict["duc2.conv.weight"].shape[0]),
        }
        if "lateral.0.weight" in state_dict:
            head["lateral"] = True
        if backbone := backbone_of(state_dict):
            return {**head, "backbone": backbone}
        blocks = tuple(
            len({key.split(".")[2] for key in state_dict if key.startswith(f"preact.layer{stage}.")})
            for stage in (1, 2, 3, 4)
        )
        bottleneck = "preact.layer1.0.conv3.weight" in state_dict
        depth = next(d for d, b in STAGES.items() if b == blocks and (d in BOTTLENECK_DEPTHS) == bottleneck)
        return {**head, "depth": depth, "width": state_dict["preact.conv1.weight"].shape[0] / STEM_CHANNELS}
    except (KeyError, StopIteration) as error:
        raise ValueError(
            f"not the state dict of a FastPose network: {error!r} of its {len(state_dict)} keys"
        ) from error
