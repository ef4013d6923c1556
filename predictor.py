"""The whole pipeline as one object: pictures in, faces with landmarks out.

faces = FacePredictor()("photo.jpg")
faces[0].landmarks          # (106, 2) x y in image pixels
faces[0]["left_eye"]        # (9, 2)
faces[0].head_pose          # yaw, pitch, roll in degrees
"""

import contextlib
import itertools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloader import DECODE_THREADS, Job, as_boxes, batches, ordered_map, read_job, source
from face import Face, coco_category, skeleton, to_supervision
from pPose_nms import pose_nms
from runtime import load_runtime
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator
from SPPE.src.utils.confidence import check_table, face_score
from SPPE.src.utils.confidence import confidence as calibrated
from SPPE.src.utils.imread import UnreadableImage, picture_to_rgb
from yolo.detector import PROPOSAL_CONF, Detector

__all__ = ["Face", "FacePredictor", "coco_category", "skeleton", "to_supervision"]

ROOT = Path(__file__).resolve().parent
DETECTORS = ROOT / "models" / "yolo"
DEFAULT_SPPE, DEFAULT_DETECTOR = "face106-lite", "face106-det"
COLOURS = ("rgb", "bgr")  # orders of an array's channels


@contextlib.contextmanager
def one_core_each(workers: int, cores: int) -> Iterator[tuple[int, Callable | None]]:
    """(workers, what each of their threads calls first): several networks at a time compute on one core each.

    cores: what new threads have afterwards, since PyTorch gives each what another one said last.

    A network spread over all cores waits in every layer for the core that decodes a picture meanwhile; as many networks
    as cores, each on its own, do not (bench/bench_pipeline.py: 1.55 times the networks' own time became 1.05).
    """
    if workers <= 1:
        yield workers, None
        return
    try:
        yield workers, lambda: torch.set_num_threads(1)
    finally:
        torch.set_num_threads(cores)


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
        input_size: (h, w) of crops; inp_dim, nms: of the detector; None: what the weights say.
        conf: the detector's threshold, alone. None: both networks decide, where the landmark weights know their part.
        device, precision: "auto", or as torch names them. flip: flip test. decode: default what the weights say.
        runtime: "pytorch", or on the CPU "onnx" or "openvino", which have their own precisions (runtime.py).
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
        decode: str | None = None,
        detbatch: int = 4,
        posebatch: int = 80,
        runtime: str = "pytorch",
    ):
        engine = load_runtime(runtime, precision, device)
        self.estimator = Estimator(
            find_weights(sppe, WEIGHTS_FOLDER, ".pth"), nClasses, input_size, device, precision, flip, decode, engine
        )
        weights = find_weights(detector, DETECTORS, ".weights")
        self.detector = Detector(
            cfg or ROOT / "yolo" / "cfg" / f"{weights.stem}.cfg",
            weights,
            device=self.estimator.device,
            precision=precision,
            conf=conf,
            nms=nms,
            inp_dim=inp_dim,
            runtime=engine,
        )
        self.of_faces = self.detector.net.classes == 1  # else of persons, whose crops the heatmaps do not judge
        judges = conf is None and self.of_faces
        self.face_score = self.estimator.meta.get("face_score") if judges else None
        if self.face_score is not None:
            self.detector.conf = PROPOSAL_CONF
        self.detbatch, self.posebatch = detbatch, posebatch
        self.cores = torch.get_num_threads()  # OMP_NUM_THREADS, torch.set_num_threads, or all
        table = self.estimator.meta.get("confidence")
        self.errors_of_scores = check_table(table) if table else None
        self.hollow = self.estimator.hollow
        self.seconds: dict[str, float] = {}  # of each stage, added up over its threads and over all runs
        self._clock = threading.Lock()

    def __call__(self, images, boxes=None, colour: str = "rgb", errors: str = "raise"):
        """Faces of one picture, or of many.

        Args:
            images: a path, an (H, W, 3) uint8 array or a PIL image (its pixels as they stand) -> a list of faces, best
                first. A list or tuple of these, or an (N, H, W, 3) array -> a list of such lists. A generator or other
                iterator of these -> an iterator of such lists, which asks for a picture when its faces are asked for.
            boxes: instead of the detector: (N, 4) x1 y1 x2 y2 or (N, 5) with a score, image pixels. For many pictures
                one such array each, or None where the detector is to look.
            colour: of arrays, "rgb", or "bgr" as OpenCV's imread gives them.
            errors: "raise"; or "empty", a picture that cannot be read has no faces, and a warning says why.
        Raises:
            UnreadableImage: a file cannot be read. ValueError: an array or boxes of another shape or type, an unknown
            word.
        """
        for value, choices, name in ((colour, COLOURS, "colour"), (errors, ("raise", "empty"), "errors")):
            if value not in choices:
                raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
        if _is_one(images):
            return _faces_of(self.step(_job(images, boxes, colour)), errors)
        many = isinstance(images, Sequence | np.ndarray)
        if many and boxes is not None and len(boxes := list(boxes)) != len(images):
            raise ValueError(f"boxes for {len(boxes)} pictures, but {len(images)} pictures")
        pairs = zip(images, itertools.repeat(None)) if boxes is None else zip(images, boxes, strict=True)
        jobs = (_job(image, own, colour) for image, own in pairs)
        if many:
            return [_faces_of(job, errors) for job in self.run(list(jobs))]
        return (_faces_of(self.step(job), errors) for job in jobs)

    def detect(self, image: np.ndarray) -> np.ndarray:
        """What the detector proposes: (H, W, 3) uint8 RGB -> (N, 5) x1 y1 x2 y2 score in image pixels, best first."""
        with self.timed("detector"):
            return self.detector([image])[0]

    def step(self, job: Job, keep_image: bool = False) -> Job:
        """One job through all stages, here and now; see `run`."""
        return self._find([self._decode(job)], keep_image)[0]

    def run(self, jobs: Iterable[Job], threaded: bool = True, keep_images: bool = False) -> Iterator[Job]:
        """Jobs in, the same jobs out in the same order, with their faces or the reason why there are none.

        threaded: decoding and the networks each in threads of their own; otherwise all here, with the same results.
        keep_images: leave the pictures in the jobs, for drawing; otherwise they are let go as soon as they are cropped.
        """

        def find(batch: list[Job]) -> list[Job]:
            return self._find(batch, keep_images)

        decoded = ordered_map(self._decode, jobs, DECODE_THREADS if threaded else 0)
        waiting = batches(decoded, self.detbatch)
        with (
            one_core_each(self._workers() if threaded else 0, self.cores) as (workers, initializer),
            source(ordered_map(find, waiting, workers, initializer)) as found,
        ):
            for batch in found:
                yield from batch

    def _workers(self) -> int:
        """Batches at a time. On a CPU one a core; on CUDA two, so that one is cropped while the other computes."""
        return {"cpu": self.cores, "cuda": 2}.get(self.estimator.device.type, 1)

    def _decode(self, job: Job) -> Job:
        with self.timed("decoding"):
            return read_job(job, self.detector.preprocess)

    def _find(self, jobs: list[Job], keep_images: bool) -> list[Job]:
        """Detector, crops, landmarks and pose NMS of a batch."""
        alive = [job for job in jobs if job.image is not None and job.status == "ok"]
        if not alive:
            return jobs
        asked = [job for job in alive if job.given is None]
        with self.timed("detector"):
            found = self.detector.forward(np.stack([job.letterbox for job in asked])) if asked else []
        with self.timed("crops"):
            for job, boxes in zip(asked, found):
                job.boxes, job.letterbox = self.detector.to_image(boxes, job.transform), None
            cut = [self.estimator.crop(job.image, job.boxes[:, :4]) for job in alive]
            crops, affines = (np.concatenate(kind) for kind in zip(*cut))
        for job in alive:
            job.image = job.image if keep_images else None
        with self.timed("landmarks"):
            parts = [slice(i, i + self.posebatch) for i in range(0, max(len(crops), 1), self.posebatch)]
            results = [self.estimator(crops[part], affines[part]) for part in parts]
            points, scores = (np.concatenate(kind) for kind in zip(*results))
        with self.timed("pose NMS"):
            ends = np.cumsum([len(job.boxes) for job in alive])[:-1]
            for job, *own in zip(alive, np.split(points, ends), np.split(scores, ends)):
                judged = self.face_score is not None and (job.given is None or job.proposed)
                keep = face_score(job.boxes[:, 4], own[1]) >= self.face_score if judged else slice(None)
                job.faces = self._faces(job.boxes[keep], *(kind[keep] for kind in own))
                job.status = "ok" if job.faces else "no_face"
        return jobs

    def _faces(self, boxes: np.ndarray, points: np.ndarray, scores: np.ndarray) -> list[Face]:
        index, points, scores, pose_scores = pose_nms(boxes[:, :4], boxes[:, 4], points, scores)
        if self.errors_of_scores:  # only now: pose NMS goes by the heatmaps' peaks
            scores = calibrated(scores, self.errors_of_scores)
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


def _is_one(images: Any) -> bool:
    """Whether `images` is one picture: a path, a PIL image, or an array that is no stack of pictures."""
    if isinstance(images, str | os.PathLike) or hasattr(images, "convert"):
        return True
    return images.ndim != 4 if isinstance(images, np.ndarray) else not isinstance(images, Iterable)


def _job(image: Any, boxes: Any, colour: str) -> Job:
    given = None if boxes is None else as_boxes(boxes)
    if isinstance(image, str | os.PathLike):
        return Job(str(image), Path(image), given=given)
    return Job("image", image=_as_rgb(image, colour), given=given)


def _faces_of(job: Job, errors: str) -> list[Face]:
    if job.status == "error":
        raise ValueError(job.message)
    if job.status == "unreadable":
        if errors == "raise":
            raise UnreadableImage(*job.message.split(": ", 1))
        warnings.warn(job.message, stacklevel=3)
    return job.faces


def _as_rgb(image: Any, colour: str) -> np.ndarray:
    is_pil = hasattr(image, "convert")
    array = picture_to_rgb(image) if is_pil else np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
        raise ValueError(f"expected an (H, W, 3) uint8 {colour.upper()} picture, got {array.shape} {array.dtype}")
    return np.ascontiguousarray(array[..., ::-1] if colour == "bgr" and not is_pil else array)
