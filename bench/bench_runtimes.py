"""Milliseconds of every stage for one face at one thread, by runtime and precision.

    OMP_NUM_THREADS=1 python bench/bench_runtimes.py
    python bench/bench_runtimes.py --only openvino:bf16 onnx:fp32 --rounds 300

Each cell is the least and the median of many single calls: the least is what the machine can do, the median what it did
beside whatever else ran. Stages:

    detector    a square of --side pixels to boxes, second look and NMS included
    network     a crop to heatmaps' points and scores, normalisation and decode included
    crop, back  the crop cut out of the picture; points to image pixels
    a face      crop + network + back, measured together
    pipeline    a picture of --side pixels in memory, one face, to a Face: letterbox, detector, a face, pose NMS
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch

from dataloader import Job
from predictor import FacePredictor
from runtime import RUNTIMES
from SPPE.src.utils.img import apply_affines, invert_affines
from SPPE.src.utils.imread import load_image
from yolo.preprocess import letterbox

CHOICES = ("pytorch:fp32", "pytorch:bf16", "onnx:fp32", "onnx:int8", "openvino:fp32", "openvino:bf16", "openvino:int8")
WARM_UP = 10  # calls that are not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, default=Path("examples/imgs/nikola_tesla.jpg"), help="with one face")
    parser.add_argument("--side", type=int, default=512, help="of the picture and of the detector's input")
    parser.add_argument("--only", nargs="+", default=CHOICES, help=f"RUNTIME:PRECISION, of {', '.join(RUNTIMES)}")
    parser.add_argument("--sppe", default="face106-lite")
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    picture, _ = letterbox(load_image(args.image), args.side)
    print(f"{args.rounds} calls each, one thread, least / median in ms; torch {torch.__version__}")
    names = ("detector", "network", "crop", "back", "a face", "pipeline")
    print(f"{'':16}" + "".join(f"{name:>16}" for name in names))
    for choice in args.only:
        name, _, precision = choice.partition(":")
        try:
            predictor = FacePredictor(args.sppe, runtime=name, precision=precision, device="cpu", inp_dim=args.side)
        except ValueError as error:
            print(f"{choice:16}  {error}")
            continue
        stages = stages_of(predictor, picture)
        print(f"{choice:16}" + "".join(f"{measured(stages[name], args.rounds):>16}" for name in names), flush=True)


def stages_of(predictor: FacePredictor, picture: np.ndarray) -> dict[str, Callable]:
    """Name of each stage -> what runs it once on the picture, whose best face is the one face."""
    detector, estimator = predictor.detector, predictor.estimator
    square = detector.preprocess(picture)[0][None]
    boxes = detector.forward(square)[0][:1, :4].numpy()
    if not len(boxes):
        raise SystemExit("bench_runtimes.py: no face in --image; name a portrait")
    crops, affines = estimator.crop(picture, boxes)
    points = np.array(estimator.run(crops)[0])
    return {
        "detector": lambda: detector.forward(square),
        "network": lambda: estimator.run(crops),
        "crop": lambda: estimator.crop(picture, boxes),
        "back": lambda: apply_affines(invert_affines(affines), points.astype(np.float64)).astype(np.float32),
        "a face": lambda: estimator(*estimator.crop(picture, boxes)),
        "pipeline": lambda: next(predictor.run([Job("image", image=picture)], threaded=False)),
    }


def measured(function: Callable, rounds: int) -> str:
    seconds = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    seconds = seconds[WARM_UP:]
    return f"{1000 * min(seconds):.2f} / {1000 * statistics.median(seconds):.2f}"


if __name__ == "__main__":
    main()
