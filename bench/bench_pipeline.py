"""The pipeline against its two networks alone, and the batched decode and pose NMS; ratios of one run.

    python bench/bench_pipeline.py --indir examples/imgs --repeat 20

Networks alone: the same letterboxes and crops in the same batches, made beforehand. Pipeline: from files to faces, as
demo.py runs it without drawing.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch

from dataloader import Job, batches, folder_jobs
from pPose_nms import pose_nms
from predictor import FacePredictor
from SPPE.src.utils.eval import DECODERS, decode_heatmaps
from SPPE.src.utils.imread import load_image

FACES = 80  # of the decode and NMS figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--indir", type=Path, default=Path("examples/imgs"))
    parser.add_argument("--repeat", type=int, default=20, help="times the folder's pictures are run")
    parser.add_argument("--rounds", type=int, default=5, help="measurements, taken in turns; medians are printed")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    predictor = FacePredictor(device=args.device)
    inputs = prepare(predictor, args.indir, args.repeat)
    pictures, faces = sum(len(b) for b, _ in inputs), sum(len(c) for _, c in inputs)
    networks(predictor, inputs[:2])  # warm up
    alone, whole = [], []
    for _ in range(args.rounds):
        alone.append(seconds(networks, predictor, inputs))
        whole.append(seconds(pipeline, predictor, args.indir, args.repeat))
    ratios = [w / a for w, a in zip(whole, alone)]
    print(f"{pictures} pictures, {faces} faces; {predictor.estimator.device}, {torch.get_num_threads()} threads")
    print(f"networks alone {1000 * statistics.median(alone) / pictures:.2f} ms a picture")
    print(f"pipeline       {1000 * statistics.median(whole) / pictures:.2f} ms a picture")
    print(f"pipeline / networks: {statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})")
    after_the_networks()


def jobs(folder: Path, repeat: int) -> list[Job]:
    return [job for _ in range(repeat) for job in folder_jobs(folder)]


def prepare(predictor: FacePredictor, folder: Path, repeat: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(letterboxes, crops) of each batch, as the pipeline makes them."""
    inputs = []
    for batch in batches(jobs(folder, repeat), predictor.detbatch):
        images = [load_image(job.path) for job in batch]
        squares, transforms = zip(*(predictor.detector.preprocess(image) for image in images))
        found = predictor.detector.forward(np.stack(squares))
        boxes = [predictor.detector.to_image(f, t) for f, t in zip(found, transforms)]
        crops = [predictor.estimator.crop(image, b[:, :4])[0] for image, b in zip(images, boxes)]
        inputs.append((np.stack(squares), np.concatenate(crops)))
    return inputs


def networks(predictor: FacePredictor, inputs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    for squares, crops in inputs:
        predictor.detector.forward(squares)
        if len(crops):
            predictor.estimator.heatmaps(crops)


def pipeline(predictor: FacePredictor, folder: Path, repeat: int) -> None:
    for _ in predictor.run(jobs(folder, repeat)):
        pass


def after_the_networks() -> None:
    heatmaps = torch.rand(FACES, 106, 64, 64)
    for name in DECODERS:
        print(f"decode {name:<9} of {FACES} faces: {best(decode_heatmaps, heatmaps, name):.1f} ms")
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 1000, (FACES, 2))
    boxes = np.concatenate([corner, corner + 100], axis=1).astype(np.float32)
    points = (corner[:, None] + rng.uniform(0, 100, (FACES, 106, 2))).astype(np.float32)
    scores = rng.uniform(0.5, 1, (FACES, 106)).astype(np.float32)
    print(f"pose NMS of {FACES} faces: {best(pose_nms, boxes, scores.mean(1), points, scores):.1f} ms")


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def best(function, *arguments, tries: int = 10) -> float:
    """Milliseconds of the fastest of some calls."""
    return 1000 * min(seconds(function, *arguments) for _ in range(tries))


if __name__ == "__main__":
    main()
