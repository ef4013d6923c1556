"""The whole pipeline as one object: pictures in, faces with landmarks out.

faces = FacePredictor()("photo.jpg")
faces[0].landmarks          # (106, 2) x y in image pixels
faces[0]["left_eye"]        # (9, 2)
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dataloader import DECODE_THREADS, Job, batches, ordered_map, prefetch, read_job, source
from pPose_nms import pose_nms
from SPPE.src.landmarks import PARTS, to_68, to_insightface
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.device import PRECISIONS
from SPPE.src.utils.eval import DEFAULT_DECODER
from SPPE.src.utils.img import crop_boxes
from SPPE.src.utils.imread import load_image
from yolo.detector import Detector

ROOT = Path(__file__).resolve().parent
DEFAULT_SPPE, DEFAULT_DETECTOR = "face106-lite", "face106-det"


@dataclass(frozen=True)
class Face:
    """One face. box (4,) x1 y1 x2 y2 and landmarks (K, 2) x y in image pixels; confidence (K,).

    score: the detector's, of the box. pose_score: AlphaPose's, of the whole pose. hollow: (K,) bool, points that
    nothing has taught the network.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    confidence: np.ndarray
    pose_score: float
    hollow: np.ndarray

    def __getitem__(self, part: str) -> np.ndarray:
        """Points (n, 2) of a part by name, such as "left_eye"; KeyError names the parts."""
        if part not in PARTS:
            raise KeyError(f"no part {part!r}; parts are {', '.join(PARTS)}")
        return self.landmarks[list(PARTS[part])]

    def to_68(self) -> np.ndarray:
        """The iBUG 300-W points (68, 2)."""
        return to_68(self.landmarks)

    def to_insightface(self) -> np.ndarray:
        """The points (106, 2) in InsightFace 2d106 order."""
        return to_insightface(self.landmarks)


class Crops(NamedTuple):
    """Faces cut out of the jobs that are alive, in order: crops (N, h, w, 3) uint8, affines (N, 2, 3) image -> crop."""

    jobs: list[Job]
    alive: list[Job]
    crops: np.ndarray
    affines: np.ndarray


def find_weights(name: str | Path, folder: Path, suffix: str) -> Path:
    """A name in a weights folder, or a file as it is.

    Raises:
        FileNotFoundError: neither; names what there is.
    """
    path = Path(name)
    if path.is_file():
        return path
    own = folder / f"{name}{suffix}"
    if own.is_file():
        return own
    there = ", ".join(sorted(p.stem for p in folder.glob(f"*{suffix}"))) or "none"
    raise FileNotFoundError(f"no weights {str(name)!r}: neither a file nor {own}; there are: {there}")


class FacePredictor:
    """Detector and landmark network, loaded once.

    Args:
        sppe, detector: a name in models/sppe and models/yolo, or a file. cfg: the detector's, default by its name.
        nClasses: raise if the landmark weights hold another number.
        input_size: (h, w) of crops; inp_dim, conf, nms: of the detector; None: what the weights say.
        device, precision: "auto", or as torch names them. flip: flip test. decode: "dark" or "alphapose".
        detbatch: pictures a detector step; posebatch: faces a landmark step.
    Raises:
        FileNotFoundError, ValueError: weights that are missing, broken, or for another number of points.
    """

    def __init__(
        self,
        sppe: str | Path = DEFAULT_SPPE,
        detector: str | Path = DEFAULT_DETECTOR,
        cfg: Path | None = None,
        nClasses: int | None = None,
        input_size: tuple[int, int] | None = None,
        inp_dim: int | None = None,
        conf: float | None = None,
        nms: float | None = None,
        device: str = "auto",
        precision: str = "auto",
        flip: bool = False,
        decode: str = DEFAULT_DECODER,
        detbatch: int = 4,
        posebatch: int = 80,
    ):
        self.estimator = Estimator(
            find_weights(sppe, WEIGHTS_FOLDER, ".pth"), nClasses, input_size, device, precision, flip, decode
        )
        weights = find_weights(detector, ROOT / "models" / "yolo", ".weights")
        thresholds = {k: v for k, v in {"inp_dim": inp_dim, "conf": conf, "nms": nms}.items() if v is not None}
        self.detector = Detector(
            cfg or ROOT / "yolo" / "cfg" / f"{weights.stem}.cfg",
            weights,
            device=self.estimator.device,
            precision=next(name for name, dtype in PRECISIONS.items() if dtype == self.estimator.dtype),
            **thresholds,
        )
        self.detbatch, self.posebatch = detbatch, posebatch
        taught = set(self.estimator.meta.get("taught", range(self.estimator.nClasses)))
        self.hollow = np.array([i not in taught for i in range(self.estimator.nClasses)])
        self.seconds: dict[str, float] = {}  # of each stage, added up over its threads and over all runs
        self._clock = threading.Lock()
        # Two networks at once on the same cores would only take turns, at the price of switching.
        self._compute = contextlib.nullcontext() if self.estimator.device.type == "cuda" else threading.Lock()

    def __call__(self, image) -> list[Face]:
        """Faces of one picture, best first.

        Args:
            image: a path, an (H, W, 3) uint8 RGB array, or a PIL image.
        Raises:
            UnreadableImage: the file cannot be read. ValueError: the array has another shape or type.
        """
        array = load_image(image) if isinstance(image, (str, Path)) else _as_rgb(image)
        job = next(self.run([Job("image", image=array)], threaded=False))
        if job.status == "error":
            raise ValueError(job.message)
        return job.faces

    def run(self, jobs: Iterable[Job], threaded: bool = True, keep_images: bool = False) -> Iterator[Job]:
        """Jobs in, the same jobs out in the same order, with their faces or the reason why there are none.

        keep_images: leave the pictures in the jobs, for drawing; otherwise they are let go as soon as they are cropped.
        """
        stage = prefetch if threaded else iter
        decoded = ordered_map(self._decode, jobs, DECODE_THREADS if threaded else 0)
        detected = stage(self._detect(batches(decoded, self.detbatch)))
        cropped = stage(self._crop(detected, keep_images))
        with source(stage(self._estimate(cropped))) as estimated:
            for batch in estimated:
                yield from batch

    def _decode(self, job: Job) -> Job:
        with self.timed("decoding"):
            return read_job(job, self.detector.preprocess)

    def _detect(self, jobs: Iterable[list[Job]]) -> Iterator[list[Job]]:
        with source(jobs) as iterator:
            for batch in iterator:
                alive = [job for job in batch if job.alive]
                if alive:
                    with self._compute, self.timed("detector"):
                        found = self.detector.forward(np.stack([job.letterbox for job in alive]))
                    for job, boxes in zip(alive, found):
                        job.boxes, job.letterbox = self.detector.to_image(boxes, job.transform), None
                yield batch

    def _crop(self, jobs: Iterable[list[Job]], keep_images: bool) -> Iterator[Crops]:
        height, width = self.estimator.input_size
        with source(jobs) as iterator:
            for batch in iterator:
                alive = [job for job in batch if job.alive]
                with self.timed("crops"):
                    found = [crop_boxes(job.image, job.boxes[:, :4], height, width) for job in alive]
                    crops = [c for c, _ in found] or [np.zeros((0, height, width, 3), np.uint8)]
                    affines = [a for _, a in found] or [np.zeros((0, 2, 3))]
                for job in batch:
                    job.image = job.image if keep_images else None
                yield Crops(batch, alive, np.concatenate(crops), np.concatenate(affines))

    def _estimate(self, cropped: Iterable[Crops]) -> Iterator[list[Job]]:
        with source(cropped) as iterator:
            for batch in iterator:
                steps = range(0, max(len(batch.crops), 1), self.posebatch)
                parts = [slice(i, i + self.posebatch) for i in steps]
                with self._compute, self.timed("landmarks"):
                    results = [self.estimator(batch.crops[part], batch.affines[part]) for part in parts]
                points, scores = (np.concatenate(kind) for kind in zip(*results))
                ends = np.cumsum([len(job.boxes) for job in batch.alive])[:-1]
                with self.timed("pose NMS"):
                    for job, *found in zip(batch.alive, np.split(points, ends), np.split(scores, ends)):
                        job.faces = self._faces(job.boxes, *found)
                        job.status = "ok" if job.faces else "no_face"
                yield batch.jobs

    def _faces(self, boxes: np.ndarray, points: np.ndarray, scores: np.ndarray) -> list[Face]:
        index, points, scores, pose_scores = pose_nms(boxes[:, :4], boxes[:, 4], points, scores)
        return [
            Face(boxes[i, :4], float(boxes[i, 4]), xy, confidence, float(pose_score), self.hollow)
            for i, xy, confidence, pose_score in zip(index, points, scores, pose_scores)
        ]

    @contextlib.contextmanager
    def timed(self, stage: str):
        """Add the time of the body to `seconds[stage]`."""
        start = time.perf_counter()
        yield
        with self._clock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


def _as_rgb(image) -> np.ndarray:
    array = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ValueError(f"expected an (H, W, 3) uint8 RGB picture, got {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)
