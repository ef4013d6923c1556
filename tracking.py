"""Faces followed through a video: an identity for each, boxes from the last frame's landmarks, steady points.

    tracker = Tracker(smooth=True)
    for job in follow(predictor, jobs, tracker, every=5):
        job.faces[0].idx, job.faces[0].landmarks

The detector looks at every k-th frame. In between, and for a face that the detector misses, the landmarks of a frame
give the box of the next. Landmarks do not give a person's box: a detector of persons looks at every frame.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from dataloader import Job, source
from face import Face
from yolo.bbox import face_box, iou_matrix

if TYPE_CHECKING:
    from predictor import FacePredictor

# Two boxes of neighbouring frames that overlap less are two faces.
SAME_FACE = 0.3

# A followed face whose pose scores less (AlphaPose's score without the box's: mean point + 1.25 * best point) is gone.
# With face106-lite the faces of examples/imgs score 2.07 to 2.19, and of 172 boxes beside them one in twelve passes 1.6
# (the highest 1.88): those that pass last until the detector has missed them `MISSES` times.
FOLLOW_SCORE = 1.6

# How long a face that was lost keeps its identity at the place where it was last seen: a hand that passes by.
MEMORY_SECONDS = 1.0

# How many times running the detector may miss a face whose landmarks still hold.
MISSES = 2


@dataclass
class OneEuro:
    """The One-Euro filter (Casiez, Roussel, Vogel, "1 € Filter", CHI 2012) for the points of one face.

    A low-pass whose cutoff rises with the speed: still points are steadied, fast ones are let through. Speeds are in
    sizes of the face a second, so that the same numbers serve small faces and large ones.

    cutoff: Hz, of a still point (lower: less jitter). beta: Hz for each face size a second (higher: less lag).
    speed_cutoff: Hz, of the speed itself, the paper's value. bench/bench_smooth.py measures what the first two do.
    """

    cutoff: float = 1.0
    beta: float = 30.0
    speed_cutoff: float = 1.0
    _time: float | None = field(default=None, repr=False)
    _points: np.ndarray | None = field(default=None, repr=False)
    _speed: np.ndarray | None = field(default=None, repr=False)

    def __call__(self, points: np.ndarray, moment: float) -> np.ndarray:
        """Points (K, 2) x y in image pixels at a time in seconds -> the same, steadied."""
        points = np.asarray(points, np.float64)
        if self._time is None:
            self._time, self._points, self._speed = moment, points, np.zeros_like(points)
            return points
        passed = max(moment - self._time, 1e-3)
        size = max(float(np.ptp(points, axis=0).max()), 1.0)
        speed = (points - self._points) / passed / size
        self._speed = self._speed + _weight(self.speed_cutoff, passed) * (speed - self._speed)
        # one cutoff for x and y: each its own would pull slanting paths apart
        cutoff = self.cutoff + self.beta * np.linalg.norm(self._speed, axis=1, keepdims=True)
        self._points = self._points + _weight(cutoff, passed) * (points - self._points)
        self._time = moment
        return self._points


def _weight(cutoff, passed: float):
    """Of the new value in a first-order low-pass."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * passed))


@dataclass
class Track:
    """One followed face. box: (4,) where it is expected next; seen: seconds, when it was last found; misses: how many
    times running the detector did not find it; lost: it is remembered, not followed."""

    idx: int
    box: np.ndarray
    score: float
    seen: float
    filter: OneEuro | None
    misses: int = 0
    lost: bool = False


class Tracker:
    """Which face of a frame is which of the last frame: the assignment of greatest overlap.

    Args:
        smooth: steady each face's points by a One-Euro filter of its own; cutoff and beta are the filter's.
        of_faces: the boxes are faces'; else persons'.
    """

    def __init__(
        self,
        smooth: bool = False,
        cutoff: float = OneEuro.cutoff,
        beta: float = OneEuro.beta,
        of_faces: bool = True,
    ):
        self.smooth, self.cutoff, self.beta, self.of_faces = smooth, cutoff, beta, of_faces
        self.tracks: list[Track] = []
        self._next = 1

    def boxes(self, detected: np.ndarray | None = None) -> np.ndarray:
        """Where to look for faces in the next frame: (N, 5) x1 y1 x2 y2 score in image pixels.

        detected: (N, 5) of the detector in that frame; faces that it missed are still looked for, `MISSES` times.
        None: the detector was not asked.
        """
        if detected is None:
            return _rows([track for track in self.tracks if not track.lost])
        found = {t for t, _ in _assign([track.box for track in self.tracks], detected[:, :4])}
        for number, track in enumerate(self.tracks):
            track.misses = 0 if number in found else track.misses + 1
            track.lost = track.lost or track.misses > MISSES
        missed = [track for number, track in enumerate(self.tracks) if number not in found and not track.lost]
        return np.concatenate([detected, _rows(missed)]).astype(np.float32)

    def update(self, faces: list[Face], moment: float, followed: bool = False) -> list[Face]:
        """Give the faces of a frame their identities, in the order of these.

        Args:
            faces: found in the frame. moment: its time in seconds.
            followed: the boxes came from the last frame's landmarks, not from the detector: faces that no longer look
                like one are left out.
        """
        if followed:
            faces = [face for face in faces if _holds(face)]
        pairs = {f: t for t, f in _assign([track.box for track in self.tracks], [face.box for face in faces])}
        named = []
        for number, face in enumerate(faces):
            track = self.tracks[pairs[number]] if number in pairs else self._new(face)
            named.append(self._follow(track, face, moment, followed))
        for track in self.tracks:
            track.lost = track.seen != moment
        self.tracks = [track for track in self.tracks if moment - track.seen <= MEMORY_SECONDS]
        return sorted(named, key=lambda face: face.idx)

    def _new(self, face: Face) -> Track:
        track = Track(self._next, face.box, face.score, math.nan, None)
        self.tracks.append(track)
        self._next += 1
        return track

    def _follow(self, track: Track, face: Face, moment: float, followed: bool) -> Face:
        if self.smooth and (track.filter is None or track.lost):
            track.filter = OneEuro(self.cutoff, self.beta)
        box = next_box(face.landmarks) if self.of_faces else face.box
        track.box, track.score, track.seen = box, face.score, moment
        points = track.filter(face.landmarks, moment).astype(np.float32) if self.smooth else face.landmarks
        return replace(face, idx=track.idx, landmarks=points, box=box if followed else face.box)


def next_box(points: np.ndarray) -> np.ndarray:
    """Landmarks (K, 2) -> the box (4,) in which the detector would find the face."""
    return face_box(torch.from_numpy(np.ascontiguousarray(points, np.float32))).numpy()


def _holds(face: Face) -> bool:
    """Whether a followed box still shows a face: good points that make a box near the one they were looked for in."""
    if face.pose_score - face.score < FOLLOW_SCORE:
        return False
    return bool(_overlap([face.box], [next_box(face.landmarks)])[0, 0] >= SAME_FACE)


def _rows(tracks: list[Track]) -> np.ndarray:
    return np.array([[*track.box, track.score] for track in tracks], np.float32).reshape(-1, 5)


def _overlap(a, b) -> np.ndarray:
    """Boxes (N, 4) and (M, 4) -> (N, M) intersection over union."""
    a, b = (torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)) for boxes in (a, b))
    return iou_matrix(a, b).numpy()


def _assign(a, b) -> list[tuple[int, int]]:
    """Pairs of the boxes (N, 4) and (M, 4) with the greatest overlap in all, each at least `SAME_FACE`."""
    overlap = _overlap(a, b)
    # pairs below the limit count nothing, so that they never take a box from a good pair
    rows, columns = linear_sum_assignment(np.where(overlap >= SAME_FACE, overlap, 0), maximize=True)
    return [(int(r), int(c)) for r, c in zip(rows, columns) if overlap[r, c] >= SAME_FACE]


def follow(
    predictor: "FacePredictor", jobs: Iterable[Job], tracker: Tracker, every: int = 1, keep_images: bool = False
) -> Iterator[Job]:
    """Frames in, the same frames out with their faces and identities; one after the other, as each needs the last.

    Args:
        jobs: in order, with images and times; those without an image (broken frames) pass through. Boxes that a job
            brings are kept: neither detector nor last frame has a say in it.
        every: the detector looks at every so many frames; one of persons at each.
    Raises:
        ValueError: `every` is less than 1.
    """
    if every < 1:
        raise ValueError(f"the detector every {every} frames: must be at least 1")
    every = every if tracker.of_faces else 1
    due = 0  # frames until the detector looks again
    with source(jobs) as frames:
        for job in frames:
            if job.image is None:
                yield job
                continue
            followed = job.given is None and due > 0
            if job.given is None:
                job.given, job.proposed = tracker.boxes(None if followed else predictor.detect(job.image)), True
                due = due - 1 if followed else every - 1
            predictor.step(job, keep_images)
            if job.status in ("ok", "no_face"):
                job.faces = tracker.update(job.faces, job.time, followed)
                job.status = "ok" if job.faces else "no_face"
            yield job
