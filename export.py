"""Write both networks as ONNX files, checked against PyTorch on photographs.

    python3 export.py                                  models/sppe/face106-lite.onnx, models/yolo/face106-det.onnx
    python3 export.py --with-decode                    the landmark file gives points and scores, not heatmaps
    python3 export.py --int8 --images FOLDER           .int8.onnx files, calibrated on those pictures
    python3 export.py --format torchscript|pt2         the same graphs for libtorch and torch.export

Files take uint8 RGB pictures (B, H, W, 3), B free; doc/export.md says what comes out and how to use it. A file that is
further than TOLERANCE from PyTorch is not written.
"""

import argparse
import functools
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from dataloader import folder_jobs
from predictor import DEFAULT_DETECTOR, DEFAULT_SPPE, DETECTORS, ROOT, find_weights
from runtime import OnnxRuntime, Run, int8_file, need, origin, to_onnx
from SPPE.src.main_fast_inference import HEATMAP_STRIDE, WEIGHTS_FOLDER, Estimator, Landmarker
from SPPE.src.utils.eval import DECODERS, decode_heatmaps
from SPPE.src.utils.files import write_whole
from SPPE.src.utils.imread import UnreadableImage, load_image
from SPPE.src.utils.pose import heatmap_to_crop
from yolo.detector import Detector, Finder
from yolo.util import detections

# Pixels of the crop, or of the detector's square, that a point or a box's corner may differ from PyTorch's.
TOLERANCE = 0.1

# Pictures and faces that calibration and check look at; the ranges of int8 no longer change with more.
MOST = 200

SUFFIXES = {"onnx": ".onnx", "torchscript": ".torchscript", "pt2": ".pt2"}


def main(argv: list[str] | None = None) -> int:
    opt = build_parser().parse_args(argv)
    try:
        check(opt)
        export(opt)
    except (ValueError, OSError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sppe", default=DEFAULT_SPPE, help="landmark weights: a name in models/sppe or a file; none: leave out")
    add("--detector", default=DEFAULT_DETECTOR, help="detector: a name in models/yolo or a file; none: leave out")
    add("--cfg", type=Path, help="the detector's .cfg; default yolo/cfg/NAME.cfg")
    add("--with-decode", action="store_true", help="points (B, K, 2) in crop pixels and scores (B, K), not heatmaps")
    add("--decode", help=f"which decode: {', '.join(DECODERS)}; default: what the weights say")
    add("--flip", action="store_true", help="the flip test inside the graph")
    add("--format", default="onnx", help=f"of the files: {', '.join(SUFFIXES)}")
    add(
        "--int8", action="store_true", help="quantise to 8 bits, for --precision int8; the decode is then always inside"
    )
    add("--images", type=Path, help="folder of pictures to calibrate on and to check with; default examples/imgs")
    add("--outdir", type=Path, help="folder of the files; default beside the weights, where --precision int8 looks")
    return parser


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError for the first option that makes no sense."""
    for name, choices in {"format": SUFFIXES, "decode": DECODERS}.items():
        if getattr(opt, name) not in (None, *choices):
            raise ValueError(f"unknown --{name} {getattr(opt, name)!r}; choose one of {', '.join(choices)}")
    if opt.int8 and opt.format != "onnx":
        raise ValueError(f"--int8 is written as onnx, not as {opt.format}")
    if opt.int8 and not opt.images:
        raise ValueError("--int8 is calibrated on pictures like yours: name a folder of some dozen with --images")
    if "none" == opt.sppe == opt.detector:
        raise ValueError("--sppe none --detector none leaves nothing to export")


def export(opt: argparse.Namespace) -> None:
    """Write and check what the options ask for."""
    detector_weights = find_weights(DEFAULT_DETECTOR if opt.detector == "none" else opt.detector, DETECTORS, ".weights")
    cfg = opt.cfg or ROOT / "yolo" / "cfg" / f"{detector_weights.stem}.cfg"
    detector = Detector(cfg, detector_weights, device="cpu", precision="fp32")
    folder = opt.images or ROOT / "examples" / "imgs"
    weights = None if opt.sppe == "none" else find_weights(opt.sppe, WEIGHTS_FOLDER, ".pth")
    estimator = weights and Estimator(weights, device="cpu", precision="fp32", flip=opt.flip, decode=opt.decode)
    squares, found = [], []
    for picture in read_pictures(folder):  # one at a time: photographs are large
        squares.append(detector.preprocess(picture)[0])
        if estimator:
            found.append(estimator.crop(picture, detector([picture])[0][:, :4])[0])
    if opt.detector != "none":
        write(Finder(detector.net), np.stack(squares), detector_weights, boxes_of(detector), opt)
    if estimator:
        crops = np.concatenate(found)[:MOST]
        if not len(crops):
            raise ValueError(f"no face was found in {folder}: the landmark network cannot be checked there")
        decode = estimator.decode if opt.with_decode or opt.int8 else None
        graph = Landmarker(estimator.net, decode, estimator.input_size, estimator.growth)
        write(graph, crops, weights, functools.partial(points_of, decode=estimator.decode), opt)


def read_pictures(folder: Path) -> Iterator[np.ndarray]:
    """The pictures of a folder that can be read, one by one, MOST at most. Raises as `folder_jobs`, and for none."""
    count = 0
    for job in folder_jobs(folder, "--images")[:MOST]:
        try:
            picture = load_image(job.path)
        except (UnreadableImage, OSError) as error:
            print(f"export.py: left out: {error}", file=sys.stderr)
            continue
        yield picture
        count += 1
    if not count:
        raise ValueError(f"none of the pictures of {folder} can be read")


def write(graph: torch.nn.Module, pictures: np.ndarray, weights: Path, places: Callable, opt) -> None:
    """Write one graph's file once it agrees with PyTorch.

    pictures: (B, H, W, 3) uint8; places: outputs -> a list of (N, 2) pixels that are compared.
    Raises:
        ValueError: the file's places differ by more than TOLERANCE (not asked of int8).
    """
    path = int8_file(weights) if opt.int8 else weights.with_suffix(SUFFIXES[opt.format])
    path = (opt.outdir or weights.parent) / path.name
    data = FORMATS[opt.format](graph, pictures[:1])
    if opt.int8:
        data = quantise(data, graph, pictures)
    if opt.format == "onnx":
        data = with_metadata(data, origin(graph, weights))
    run = READERS[opt.format](data)
    distances, other = difference(graph, run, pictures, places)
    told = f"{distances.size} points, on average {distances.mean():.4f} and at most {distances.max():.4f} pixels"
    told += " from PyTorch"
    if other:
        told += f"; {other} of the pictures with another number of boxes"
    if not opt.int8 and (other or not distances.max() <= TOLERANCE):
        raise ValueError(f"{path} is not written: {told} (allowed: {TOLERANCE} pixels)")
    write_whole(data, path)
    print(f"{path}: {len(data) / 1e6:.1f} MB, {len(pictures)} pictures, {told}")


def difference(graph: torch.nn.Module, run: Run, pictures: np.ndarray, places: Callable) -> tuple[np.ndarray, int]:
    """Distances (N,) between the places that PyTorch and a file find; how many pictures gave another number.

    Raises:
        ValueError: there is no place to compare.
    """
    distances, other = [], 0
    for start in range(0, len(pictures), 4):  # a batch of another length than the trace's, the last mostly of another
        batch = pictures[start : start + 4]
        with torch.inference_mode():
            own = graph(torch.from_numpy(batch))
        own = [tensor.numpy() for tensor in ([own] if isinstance(own, torch.Tensor) else own)]
        for mine, theirs in zip(places(own), places(run(batch)), strict=True):
            if mine.shape == theirs.shape:
                distances.append(np.linalg.norm(mine - theirs, axis=-1).ravel())
            else:
                other += 1
    if not distances or not sum(map(len, distances)):
        raise ValueError(f"nothing to compare: {len(pictures)} pictures, {other} of them with another number of boxes")
    return np.concatenate(distances), other


def points_of(outputs: list[np.ndarray], decode: str) -> list[np.ndarray]:
    """A Landmarker's outputs -> the points (K, 2) of each crop, in crop pixels."""
    if len(outputs) == 2:
        return list(outputs[0])
    points, _ = decode_heatmaps(torch.from_numpy(outputs[0]), decode)
    return list(heatmap_to_crop(points, HEATMAP_STRIDE).numpy())


def boxes_of(detector: Detector) -> Callable:
    """A Finder's outputs -> the corners (2 K, 2) of each square's boxes from left to right, pixels of the square."""

    def corners(outputs: list[np.ndarray]) -> list[np.ndarray]:
        found = detections(torch.from_numpy(outputs[0]), detector.conf, detector.nms, detector.class_id)
        return [boxes[boxes[:, 0].argsort(), :4].reshape(-1, 2).numpy() for boxes in found]

    return corners


def quantise(data: bytes, graph: torch.nn.Module, pictures: np.ndarray) -> bytes:
    """ONNX bytes -> the same with its convolutions in 8 bits, ranges from the pictures (ONNX Runtime's quantiser).

    What is decoded keeps its digits: the last convolutions are left as they are. The landmark network's ranges are the
    means of the pictures' own, since those of the most extreme pictures would cost all others digits; the detector's
    are the extremes, without which boxes move. doc/export.md has the figures.
    """
    onnx = need("onnx", "onnx")
    need("onnxruntime", "onnxruntime")
    from onnxruntime import quantization as q

    class Pictures(q.CalibrationDataReader):
        def __init__(self):
            self.left = iter(pictures)

        def get_next(self):
            picture = next(self.left, None)
            return None if picture is None else {graph.inputs: picture[None]}

    with tempfile.TemporaryDirectory() as folder:  # its functions know files only
        source, target = (str(Path(folder) / name) for name in ("fp32.onnx", "int8.onnx"))
        model = onnx.load_model_from_string(data)
        onnx.save(model, source)
        q.quantize_static(
            source,
            target,
            Pictures(),
            quant_format=q.QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],  # nearly all of the time
            nodes_to_exclude=last_convolutions(model.graph),
            per_channel=True,
            activation_type=q.QuantType.QUInt8,
            weight_type=q.QuantType.QInt8,
            extra_options={"CalibMovingAverage": isinstance(graph, Landmarker)},
        )
        return Path(target).read_bytes()


def last_convolutions(graph) -> list[str]:
    """Names of an ONNX graph's convolutions that no other follows."""
    followed: set[str] = set()  # tensors that lead to a convolution
    for node in reversed(graph.node):  # from the outputs on: a file's nodes are in the order of computation
        if node.op_type == "Conv" or followed.intersection(node.output):
            followed.update(node.input)
    return [node.name for node in graph.node if node.op_type == "Conv" and not followed.intersection(node.output)]


def with_metadata(data: bytes, entries: dict[str, str]) -> bytes:
    """ONNX bytes -> the same with metadata, checked by ONNX's own checker."""
    onnx = need("onnx", "onnx")
    model = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, entries)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def to_torchscript(graph: torch.nn.Module, example: np.ndarray) -> bytes:
    return _saved(torch.jit.save, torch.jit.trace(graph.eval(), torch.from_numpy(np.concatenate([example] * 2))))


def to_pt2(graph: torch.nn.Module, example: np.ndarray) -> bytes:
    """torch.export with a free batch; the sizes of the pictures stay those of the example."""
    pictures = torch.from_numpy(np.concatenate([example] * 2))
    with torch.no_grad():
        program = torch.export.export(graph.eval(), (pictures,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    return _saved(lambda exported, file: torch.export.save(exported, file), program)


def _saved(save: Callable, module) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.pt2"
        save(module, str(path))
        return path.read_bytes()


def _read_torch(load: Callable, data: bytes) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.pt2"
        path.write_bytes(data)
        module = load(str(path))

    def run(pictures: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            found = module(torch.from_numpy(pictures))
        return [tensor.numpy() for tensor in ([found] if isinstance(found, torch.Tensor) else found)]

    return run


# How each format is made of a graph and an example, and how its bytes are run again for the check.
FORMATS = {"onnx": to_onnx, "torchscript": to_torchscript, "pt2": to_pt2}
READERS = {
    "onnx": lambda data: OnnxRuntime().load(data),
    "torchscript": functools.partial(_read_torch, torch.jit.load),
    "pt2": functools.partial(_read_torch, lambda path: torch.export.load(path).module()),
}


if __name__ == "__main__":
    sys.exit(main())
