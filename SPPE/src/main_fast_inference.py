"""Weights in, crops to points: loading FastPose and running it over batches of faces, with a flip test on request.

estimator = Estimator("models/sppe/face106-lite.pth")
points, scores = estimator(*estimator.crop(image, boxes))
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .models.FastPose import HEATMAP_STRIDE, INPUT_MULTIPLE, FastPose, config_of
from .utils.device import autocast, choose_device, choose_precision
from .utils.eval import DECODERS, DEFAULT_DECODER, decode_heatmaps
from .utils.img import BOX_GROWTH, apply_affines, crop_boxes, invert_affines, normalise
from .utils.pose import heatmap_to_crop, mirror_heatmaps

WEIGHTS_FOLDER = Path(__file__).resolve().parents[2] / "models" / "sppe"

# The published networks' input; a bare state dict does not say which size it was trained at.
DEFAULT_INPUT_SIZE = (256, 256)


def load_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Read a weights file: a bare state dict (AlphaPose's .pth, our model_N.pkl) or {"state_dict", "meta"} (shipped).

    Returns:
        the state dict in fp32 and the meta data ({} for a bare one): input_size (h, w), sigma, data, licence, ...
    Raises:
        FileNotFoundError: no such file.
        ValueError: not a weights file of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}; models/README.md says what goes where")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the broken bytes led it to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} cannot be read as a weights file ({reason}); fetch or write it anew") from error
    meta = content.get("meta", {}) if isinstance(content, dict) else {}
    meta = meta or _meta_of_training(path)
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not all(isinstance(v, torch.Tensor) for v in state_dict.values()):
        raise ValueError(f"{path} holds no state dict; expected tensors by name")
    # networks saved from DataParallel or DDP carry a prefix
    state_dict = {k.removeprefix("module."): v.float() if v.is_floating_point() else v for k, v in state_dict.items()}
    return state_dict, meta


def _meta_of_training(path: Path) -> dict:
    """What the option.json that train.py writes beside a model_N.pkl says of it; {} when there is none."""
    options = path.with_name("option.json")
    if not options.is_file():
        return {}
    opt = json.loads(options.read_text(encoding="utf-8"))
    return {
        "input_size": (opt["inputResH"], opt["inputResW"]),
        "decode": opt.get("decode") or DEFAULT_DECODER,
        "growth": opt.get("growth", BOX_GROWTH),
    }


def load_model(path: str | Path, nClasses: int | None = None) -> tuple[FastPose, dict]:
    """Build the FastPose that a weights file describes, load it, and return it in eval mode with its meta data.

    Raises:
        FileNotFoundError, ValueError: as `load_checkpoint`, or not FastPose, or not of nClasses points.
    """
    state_dict, meta = load_checkpoint(path)
    try:
        config = config_of(state_dict)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if nClasses is not None and config["nClasses"] != nClasses:
        raise ValueError(
            f"{path} was trained for {config['nClasses']} points, not {nClasses}; "
            f"say --nClasses {config['nClasses']} or choose other weights"
        )
    model = FastPose(**config)
    try:
        model.load_state_dict(state_dict)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise ValueError(f"{path} does not fit FastPose {config}: {reason}") from error
    return model.eval(), meta


class InferenNet_fast(nn.Module):
    """AlphaPose's name for the plain network: (B, 3, H, W) normalised crops -> heatmaps (B, nClasses, H/4, W/4).

    `kernel_size` and `dataset` are taken as AlphaPose's callers give them, and not needed.
    """

    def __init__(
        self,
        kernel_size: int = 5,
        dataset=None,
        weights: str | Path = WEIGHTS_FOLDER / "duc_se.pth",
        nClasses: int | None = None,
    ):
        super().__init__()
        self.pyranet, self.meta = load_model(weights, nClasses)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pyranet(x)


class InferenNet(InferenNet_fast):
    """The network with its flip test: the mean of the heatmaps of a crop and of its mirror image, mirrored back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        plain, mirrored = self.pyranet(torch.cat([x, x.flip(3)])).chunk(2)
        return (plain + mirror_heatmaps(mirrored)) / 2


class Landmarker(nn.Module):
    """Crops to points in one graph, as a `runtime` compiles it and export.py writes it; decode None: to heatmaps.

    net: (B, 3, H, W) normalised -> heatmaps. Attributes: `inputs`, `outputs`, `free_axes`, `settings`, see runtime.py.
    """

    inputs, free_axes = "crops", {0: "batch"}

    def __init__(self, net: nn.Module, decode: str | None, input_size: tuple[int, int], growth: float = BOX_GROWTH):
        super().__init__()
        self.net, self.decode = net, decode
        self.outputs = ("points", "scores") if decode else ("heatmaps",)
        flip = isinstance(net, InferenNet)
        crops = {"input_size": "{}x{}".format(*input_size), "growth": str(growth)}
        self.settings = {"decode": str(decode), "flip": str(flip), **crops}

    def forward(self, crops: torch.Tensor):
        """Crops (B, H, W, 3) uint8 RGB -> points (B, K, 2) crop pixels, scores (B, K); or heatmaps (B, K, H/4, W/4)."""
        heatmaps = self.net(normalise(crops)).float()
        if self.decode is None:
            return heatmaps
        points, scores = decode_heatmaps(heatmaps, self.decode)
        return heatmap_to_crop(points, HEATMAP_STRIDE), scores


class Estimator:
    """Points of many faces from their crops; holds the network, its device and its precision.

    Args:
        weights: a weights file.
        nClasses: raise if the file holds another number of points.
        input_size: (h, w) of crops; default what the file says, else 256 x 256.
        device, precision: see `utils.device`.
        flip: flip test.
        decode: see `utils.eval.decode_heatmaps`; default what the file says, else DEFAULT_DECODER.
        runtime: called with (Landmarker, example crops, weights), gives what runs in its place on arrays, on the CPU
            and in a precision of its own; None: PyTorch. `load_runtime` of the root's runtime.py makes one.
    """

    def __init__(
        self,
        weights: str | Path,
        nClasses: int | None = None,
        input_size: tuple[int, int] | None = None,
        device: str = "auto",
        precision: str = "auto",
        flip: bool = False,
        decode: str | None = None,
        runtime: Callable | None = None,
    ):
        if decode is not None and decode not in DECODERS:
            raise ValueError(f"unknown decode {decode!r}; choose one of {', '.join(DECODERS)}")
        self.net = (InferenNet if flip else InferenNet_fast)(weights=weights, nClasses=nClasses)
        self.nClasses, self.meta = self.net.pyranet.config["nClasses"], self.net.meta
        taught = self.meta.get("taught", range(self.nClasses))
        self.hollow = ~np.isin(np.arange(self.nClasses), taught)  # points that nothing has taught the network
        self.decode = decode or self.meta.get("decode", DEFAULT_DECODER)
        self.input_size = tuple(input_size or self.meta.get("input_size", DEFAULT_INPUT_SIZE))
        self.growth = float(self.meta.get("growth", BOX_GROWTH))
        if any(side <= 0 or side % INPUT_MULTIPLE for side in self.input_size):
            raise ValueError(f"crops of {self.input_size} (height, width): sides must be multiples of {INPUT_MULTIPLE}")
        self.device = torch.device("cpu") if runtime else choose_device(device)
        self.dtype = torch.float32 if runtime else choose_precision(precision, self.device)
        self.net.to(self.device, memory_format=torch.channels_last).eval()
        self.run = self._decoded
        if runtime:
            graph = Landmarker(self.net, self.decode, self.input_size, self.growth)
            self.run = runtime(graph, np.zeros((1, *self.input_size, 3), np.uint8), weights)

    def crop(self, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops of boxes (N, 4) as this network was trained on them, and their affines; see `crop_boxes`."""
        height, width = self.input_size
        return crop_boxes(image, boxes, height, width, self.growth)

    @torch.inference_mode()
    def heatmaps(self, crops: np.ndarray) -> torch.Tensor:
        """Crops (B, H, W, 3) uint8 RGB -> heatmaps (B, K, H/4, W/4) float32 on the device."""
        x = normalise(torch.from_numpy(crops).to(self.device, non_blocking=True))
        with autocast(self.device, self.dtype):
            return self.net(x).float()

    def _decoded(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, scores = decode_heatmaps(self.heatmaps(crops), self.decode)
        return heatmap_to_crop(points, HEATMAP_STRIDE).cpu().numpy(), scores.cpu().numpy()

    @torch.inference_mode()
    def __call__(self, crops: np.ndarray, affines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Crops (B, H, W, 3) uint8 RGB and their affines (B, 2, 3) -> points (B, K, 2) image pixels, scores (B, K)."""
        if not len(crops):
            return np.zeros((0, self.nClasses, 2), np.float32), np.zeros((0, self.nClasses), np.float32)
        points, scores = self.run(crops)  # crop pixels
        return apply_affines(invert_affines(affines), points.astype(np.float64)).astype(np.float32), scores
