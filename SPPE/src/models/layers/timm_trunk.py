"""Trunks of the timm library by name, under the same PixelShuffle + DUC head as the SE-ResNet."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...utils.img import MEAN_RGB

PREFIX = "timm:"  # of --backbone
STRIDE = 32  # of the head's input, as the SE-ResNet's
LOOK = (1, 3, 96, 64)  # the small input by which a trunk's output is looked at
NAME_KEY = "preact.name"  # in a state dict


class TimmTrunk(nn.Module):
    """(B, 3, H, W) -> (B, out_channels, H / 32, W / 32) by the last stage of a timm network.

    Its state dict holds the network's name, so that a bare weights file says what it is of. The input, normalised as
    this project's crops are, is brought to the mean and deviation that timm's weights of that name were trained with.

    Args:
        backbone: "timm:NAME", NAME as `timm.list_models()` gives it.
        pretrained: a file of timm's own weights of that network (.safetensors, .pth, .bin); nothing is downloaded.
    Raises:
        ValueError: timm is not installed, has no such network, it cannot stand under the head, or the file is of
            another one. FileNotFoundError: no such file.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, backbone: str, pretrained: str | Path | None = None):
        super().__init__()
        self.backbone = backbone
        self.net = _create(backbone, pretrained)
        self.out_channels = _look(self.net, backbone)
        expects: Any = self.net.pretrained_cfg
        mean, deviation = (torch.tensor(expects[k]).view(3, 1, 1) for k in ("mean", "std"))
        ours = torch.tensor(MEAN_RGB).view(3, 1, 1)
        self.register_buffer("scale", 1 / deviation, persistent=False)
        self.register_buffer("offset", (ours - mean) / deviation, persistent=False)
        self.register_buffer("name", torch.tensor(list(backbone.encode("ascii")), dtype=torch.uint8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x * self.scale + self.offset)[0]


def backbone_of(state_dict: dict[str, torch.Tensor]) -> str | None:
    """The name of the timm trunk in a FastPose state dict; None for an SE-ResNet."""
    name = state_dict.get(NAME_KEY)
    return None if name is None else bytes(name.tolist()).decode("ascii")


def _create(backbone: str, pretrained: str | Path | None) -> nn.Module:
    if not backbone.startswith(PREFIX):
        raise ValueError(f"unknown backbone {backbone!r}; say {PREFIX}NAME, for example {PREFIX}mobilenetv4_conv_small")
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"{backbone} needs timm ({error}): pip install timm") from error
    name = backbone.removeprefix(PREFIX)
    if not timm.is_model(name):
        like = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:8]) or "see timm.list_models()"
        raise ValueError(f"timm {timm.__version__} has no network {name!r}; like it: {like}")
    if pretrained is not None and not Path(pretrained).is_file():
        raise FileNotFoundError(f"no weights at {pretrained}; name a file of timm's weights of {name}")
    source: dict[str, Any] = (
        {"pretrained": True, "pretrained_cfg_overlay": {"file": str(pretrained)}} if pretrained else {}
    )
    try:
        return timm.create_model(name, features_only=True, out_indices=(-1,), **source)
    except Exception as error:  # timm raises whatever its networks raise
        loading = f" with {pretrained}" if pretrained else ""
        raise ValueError(f"{backbone}{loading} cannot be made: {_first_line(error)}") from error


@torch.inference_mode()
def _look(net: nn.Module, backbone: str) -> int:
    """Channels of the trunk's output; a small input shows whether it is a 32nd of any input's sides."""
    try:
        (out,) = net.eval()(torch.zeros(LOOK))
    except Exception as error:  # as above: some networks take one size only
        raise ValueError(f"{backbone} takes no input of {LOOK[3]} x {LOOK[2]}: {_first_line(error)}") from error
    finally:
        net.train()
    if out.shape[2:] != (LOOK[2] // STRIDE, LOOK[3] // STRIDE) or out.shape[1] % 4:
        raise ValueError(
            f"{backbone} makes {tuple(out.shape)} of {LOOK}; needed: a 32nd of each side, channels divisible by 4"
        )
    return out.shape[1]


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
