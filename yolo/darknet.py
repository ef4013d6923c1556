"""Darknet networks: the cfg text becomes a torch module, the .weights file its parameters.

Source: Redmon & Farhadi 2018, "YOLOv3: An Incremental Improvement", and the file formats of Darknet. Supported is all
that yolov3, yolov3-spp and yolov3-tiny use; anything else in a cfg is refused by name.
"""

from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from SPPE.src.utils.files import write_whole

LEAKY_SLOPE = 0.1
BATCH_NORM_EPS = 1e-5

# Three int32 (major, minor, revision), then the number of pictures seen: int64 since version 0.2, int32 before.
VERSION_BYTES = 12
WIDE_COUNTER_SINCE = 2

ACTIVATIONS = {
    "linear": nn.Identity,
    "leaky": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "swish": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "logistic": nn.Sigmoid,
}
# Options of other networks that change what a layer computes, and the value that changes nothing.
FOREIGN = {
    "convolutional": {"dilation": "1", "stride_x": "", "stride_y": "", "antialiasing": "0"},
    "maxpool": {"maxpool_depth": "0", "stride_x": "", "stride_y": "", "antialiasing": "0"},
    "route": {"groups": "1"},
    "shortcut": {"weights_type": "none"},
    "yolo": {"new_coords": "0"},
}
LAYERS = ("convolutional", "shortcut", "route", "upsample", "maxpool", "yolo")


def parse_cfg(path):
    """A Darknet cfg file -> its blocks in order, each {"type": ..., option: text, ...}; the first is `net`.

    Raises FileNotFoundError, and ValueError for text that is no cfg and for layers or activations not known here.
    """
    path = Path(path)
    blocks = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text, so no cfg") from error
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            blocks.append({"type": line[1:-1].strip()})
        elif "=" in line and blocks:
            key, value = line.split("=", 1)
            blocks[-1][key.strip()] = value.strip()
        elif line:
            raise ValueError(f"{path}:{number}: neither [layer] nor option=value: {line!r}")
    _check_blocks(blocks, path)
    return blocks


def _check_blocks(blocks, path):
    if not blocks or blocks[0]["type"] != "net":
        raise ValueError(f"{path}: a cfg starts with [net]")
    for number, block in enumerate(blocks[1:], 1):
        if block["type"] not in LAYERS:
            raise ValueError(f"{path}: block {number}: unknown layer [{block['type']}]; known: {', '.join(LAYERS)}")
        for option, harmless in FOREIGN.get(block["type"], {}).items():
            if block.get(option, harmless) != harmless:
                raise ValueError(f"{path}: block {number}: {option}={block[option]} of [{block['type']}] is not known")
        activation = block.get("activation", "linear")
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{path}: block {number}: unknown activation {activation!r}; known: {', '.join(ACTIVATIONS)}"
            )


def _integers(text):
    return [int(value) for value in text.split(",")]


class Convolution(nn.Module):
    """Convolution, batch norm (or a bias), activation."""

    def __init__(self, channels, block):
        super().__init__()
        size = int(block["size"])
        padding = size // 2 if int(block.get("pad", 0)) else int(block.get("padding", 0))
        filters = int(block["filters"])
        norm = bool(int(block.get("batch_normalize", 0)))
        self.conv = nn.Conv2d(
            channels,
            filters,
            size,
            int(block.get("stride", 1)),
            padding,
            groups=int(block.get("groups", 1)),
            bias=not norm,
        )
        self.norm = nn.BatchNorm2d(filters, eps=BATCH_NORM_EPS) if norm else None
        self.activation = ACTIVATIONS[block.get("activation", "linear")]()

    def forward(self, x):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return self.activation(x)

    def stored(self):
        """The tensors of this layer in the order of a .weights file."""
        if self.norm is None:
            return [self.conv.bias, self.conv.weight]
        return [self.norm.bias, self.norm.weight, self.norm.running_mean, self.norm.running_var, self.conv.weight]

    @torch.no_grad()
    def fuse(self):
        """Fold the batch norm into the convolution: the same function in inference, one pass over memory less."""
        if self.norm is None:
            return
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        self.conv.weight.mul_(scale[:, None, None, None])
        self.conv.bias = nn.Parameter(self.norm.bias - self.norm.running_mean * scale)
        self.norm = None


class MaxPool(nn.Module):
    """Darknet's pooling: size - 1 border cells in all, the smaller half of them on the left and top; they never win.

    (AlphaPose's port pads with zeros instead, which differs where a whole border window is negative.)
    """

    def __init__(self, block):
        super().__init__()
        self.size = int(block["size"])
        self.stride = int(block.get("stride", 1))
        padding = int(block.get("padding", self.size - 1))
        self.padding = (padding // 2, padding - padding // 2) * 2

    def forward(self, x):
        left, right = self.padding[:2]
        if left == right:  # torch pads with -inf by itself
            return F.max_pool2d(x, self.size, self.stride, left)
        return F.max_pool2d(F.pad(x, self.padding, value=float("-inf")), self.size, self.stride)


class Upsample(nn.Module):
    """Nearest neighbour."""

    def __init__(self, block):
        super().__init__()
        self.stride = int(block.get("stride", 2))

    def forward(self, x):
        return F.interpolate(x, scale_factor=self.stride, mode="nearest")


class Route(nn.Module):
    """The named earlier outputs, side by side."""

    def __init__(self, sources):
        super().__init__()
        self.sources = sources


class Shortcut(nn.Module):
    """The last output plus an earlier one."""

    def __init__(self, source, block):
        super().__init__()
        self.sources = [source]
        self.activation = ACTIVATIONS[block.get("activation", "linear")]()


def decode_cells(cells, corner, anchors, stride, reach=1.0):
    """YOLOv3's boxes and probabilities (section 2.1).

    cells (..., 4 or more) fp32 tx, ty, tw, th and further logits; corner (..., 2) the cell's column and row; anchors
    (..., 2) w, h in input pixels -> the same shape: centre x, centre y, w, h in input pixels, probabilities. `reach`
    (the cfg's scale_x_y) widens the cell around its middle: with 1 a centre on the border of two cells, as that of a
    centred portrait, is out of any sigmoid's reach (Bochkovskiy et al. 2020, "YOLOv4", section 3.4, "eliminate grid
    sensitivity").
    """
    # One formula for all columns, of numbers of the cells' whole shape: taking the cells apart and together again, or
    # short rows that repeat, take runtimes as long as two convolutions.
    further = cells.shape[-1] - 4
    is_size = torch.tensor([False, False, True, True] + further * [False], device=cells.device)
    middle = F.pad((corner - (reach - 1) / 2) * stride, (0, 2 + further))
    scale = F.pad(F.pad(anchors, (2, 0), value=reach * stride), (0, further), value=1.0)
    is_size, scale, middle = (x.expand(cells.shape) for x in (is_size, scale, middle))
    return torch.where(is_size, cells.exp(), cells.sigmoid()) * scale + middle


class Yolo(nn.Module):
    """One scale's output: the boxes of A anchors in each cell."""

    def __init__(self, block, stride):
        super().__init__()
        self.stride = stride
        pairs = np.array(_integers(block["anchors"]), dtype=np.float32).reshape(-1, 2)
        mask = _integers(block["mask"]) if "mask" in block else range(len(pairs))
        self.classes = int(block["classes"])
        self.reach = float(block.get("scale_x_y", 1))
        # (A, 2) w, h in input pixels. Not a buffer: a network in half precision would round it.
        self.anchors = torch.from_numpy(pairs[list(mask)])

    def cells(self, raw):
        """Raw map (B, A * (5 + C), H, W) -> (B, H, W, A, 5 + C): tx, ty, tw, th, objectness, classes, still raw."""
        batch, _, height, width = raw.shape
        return raw.permute(0, 2, 3, 1).reshape(batch, height, width, len(self.anchors), 5 + self.classes)

    def boxes_at(self, cells, x, y, anchor):
        """Chosen cells (K, 5 + C) fp32, their columns, rows, anchor numbers (K,) -> (K, 4) boxes, as decode_cells."""
        anchors = self.anchors.to(cells.device)[anchor]
        return decode_cells(cells[:, :4], torch.stack((x, y), 1), anchors, self.stride, self.reach)

    def decode(self, raw):
        """Raw map (B, A * (5 + C), H, W) -> (B, H * W * A, 5 + C) fp32, as Darknet.forward gives them."""
        cells = self.cells(raw).float()  # exp and sigmoid in half precision would move boxes by pixels
        _, height, width, _, _ = cells.shape
        y, x = torch.meshgrid(*(torch.arange(n, device=raw.device) for n in (height, width)), indexing="ij")
        corner = torch.stack((x, y), -1)[:, :, None]  # (H, W, 1, 2)
        return decode_cells(cells, corner, self.anchors.to(raw.device), self.stride, self.reach).flatten(1, 3)


class Darknet(nn.Module):
    """The network that a cfg file describes.

    cfgfile: path. Attributes: `width` (the side of the cfg's input), `second_look` (how much smaller it wants to see
    the picture once more; 0: not at all), `classes`, `stride` (the largest: inputs are multiples of it), `seen`
    (pictures trained on, from the weights file).
    """

    def __init__(self, cfgfile):
        super().__init__()
        self.cfgfile = str(cfgfile)
        net, *blocks = parse_cfg(cfgfile)
        self.width = int(net.get("width", 416))
        self.second_look = float(net.get("second_look", 0))  # of this project, see Detector; Darknet passes over it
        self.seen = 0
        self.fused = False
        self.layers, self.stride = _build(blocks, int(net.get("channels", 3)), cfgfile)
        self.kept = {source for layer in self.layers for source in getattr(layer, "sources", ())}
        self.heads = [layer for layer in self.layers if isinstance(layer, Yolo)]
        self.classes = self.heads[0].classes if self.heads else 0

    def maps(self, x):
        """x (B, 3, H, W) RGB in [0, 1] -> the raw map of each yolo layer, in cfg order: what a loss is taken on."""
        outputs, raw = {}, []
        for index, layer in enumerate(self.layers):
            if isinstance(layer, Route):
                parts = [outputs[source] for source in layer.sources]
                x = torch.cat(parts, 1) if len(parts) > 1 else parts[0]
            elif isinstance(layer, Shortcut):
                x = layer.activation(x + outputs[layer.sources[0]])
            elif isinstance(layer, Yolo):
                raw.append(x)
            else:
                x = layer(x)
            if index in self.kept:
                outputs[index] = x
        return raw

    def forward(self, x):
        """x (B, 3, H, W) float RGB in [0, 1], H and W multiples of `stride` -> (B, N, 5 + C) fp32.

        Columns: centre x, centre y, w, h in pixels of x, objectness, class probabilities. Rows: yolo layers in cfg
        order, in each the cells row by row, in each cell the anchors.
        """
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError(
                f"an input of {x.shape[-1]} × {x.shape[-2]}: both must be multiples of {self.stride} ({self.cfgfile})"
            )
        return torch.cat([head.decode(raw) for head, raw in zip(self.heads, self.maps(x))], 1)

    def stored(self):
        """All tensors of the .weights file, in its order."""
        return [tensor for layer in self.layers if isinstance(layer, Convolution) for tensor in layer.stored()]

    def fuse(self):
        """Fold every batch norm into its convolution, in place; for inference only. Returns self."""
        for layer in self.layers:
            if isinstance(layer, Convolution):
                layer.fuse()
        self.fused = True
        return self

    def load_weights(self, path):
        """Read a Darknet .weights file. Raises FileNotFoundError; ValueError where its length is not the cfg's."""
        data = Path(path).read_bytes()
        header, self.seen = _read_header(data, path)
        tensors = self.stored()
        expected = header + 4 * sum(tensor.numel() for tensor in tensors)
        if len(data) != expected:
            raise ValueError(
                f"{path}: {len(data)} bytes found, {expected} expected by {self.cfgfile}: "
                "a broken download, or the weights of another network"
            )
        values = torch.from_numpy(np.frombuffer(data, np.float32, offset=header).copy())
        with torch.no_grad():
            for tensor, part in zip(tensors, values.split([tensor.numel() for tensor in tensors])):
                tensor.copy_(part.view(tensor.shape))
        return self

    def save_weights(self, path):
        """Write a Darknet .weights file (version 0.2), first under a temporary name. Refused after fuse()."""
        if self.fused:
            raise RuntimeError(f"{path}: a fused network no longer has the batch norms that {self.cfgfile} stores")
        head = [np.array([0, 2, 0], np.int32), np.array([self.seen], np.int64)]
        tensors = (tensor.detach().float().cpu().contiguous().numpy() for tensor in self.stored())
        write_whole((part.tobytes() for part in chain(head, tensors)), Path(path))


def _build(blocks, channels, path):
    """The blocks after [net] -> (ModuleList with one layer a block, the largest stride)."""
    layers, shapes = nn.ModuleList(), []  # shapes: (channels, stride) of each layer's output
    for index, block in enumerate(blocks):
        sources = [n if n >= 0 else index + n for n in _integers(block.get("layers", block.get("from", "-1")))]
        if index and not all(0 <= n < index for n in sources):
            raise ValueError(f"{path}: block {index + 1}: [{block['type']}] refers to a layer that is not before it")
        try:
            layer, shape = _layer(block, sources, [shapes[n] for n in sources] if index else [(channels, 1)])
        except KeyError as error:
            raise ValueError(f"{path}: block {index + 1}: [{block['type']}] lacks the option {error}") from error
        except (ValueError, IndexError) as error:
            raise ValueError(f"{path}: block {index + 1}: [{block['type']}] {error}") from error
        layers.append(layer)
        shapes.append(shape)
    return layers, max(stride for _, stride in shapes)


def _layer(block, sources, shapes):
    """A block, the layers it reads and their shapes -> (module, (channels, stride) of its output)."""
    channels, stride = shapes[0]
    match block["type"]:
        case "convolutional":
            return Convolution(channels, block), (int(block["filters"]), stride * int(block.get("stride", 1)))
        case "maxpool":
            return MaxPool(block), (channels, stride * int(block.get("stride", 1)))
        case "upsample":
            return Upsample(block), (channels, stride // int(block.get("stride", 2)))
        case "route":
            return Route(sources), (sum(c for c, _ in shapes), stride)
        case "shortcut":
            if len(sources) != 1:
                raise ValueError("a shortcut from several layers is not known")
            return Shortcut(sources[0], block), (channels, stride)
        case "yolo":
            head = Yolo(block, stride)
            if channels != (wanted := len(head.anchors) * (5 + head.classes)):
                raise ValueError(f"of {channels} filters; its anchors and classes need {wanted}")
            return head, (channels, stride)


def _read_header(data, path):
    """The file's bytes -> (length of the header in bytes, pictures seen)."""
    if len(data) < VERSION_BYTES + 8:
        raise ValueError(f"{path}: {len(data)} bytes found, at least {VERSION_BYTES + 8} expected of a .weights file")
    major, minor, _ = np.frombuffer(data, np.int32, 3)
    kind = np.int64 if major * 10 + minor >= WIDE_COUNTER_SINCE else np.int32
    seen = np.frombuffer(data, kind, 1, VERSION_BYTES)
    return VERSION_BYTES + seen.nbytes, int(seen[0])
