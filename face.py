"""One face as the pipeline gives it, and as other tools take it: COCO annotations, supervision.KeyPoints."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from headpose import HeadPose, head_pose
from SPPE.src.landmarks import LINES, NAMES, PARTS, to_68, to_insightface

if TYPE_CHECKING:
    import supervision

# COCO's flag of a keypoint: 0 not labelled, 2 labelled and visible.
COCO_ABSENT, COCO_VISIBLE = 0, 2


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==: a face is equal to itself
class Face:
    """One face. box (4,) x1 y1 x2 y2 and landmarks (K, 2) x y in image pixels; confidence (K,).

    score: the detector's, of the box. pose_score: AlphaPose's, of the whole pose. hollow: (K,) bool, points that
    nothing has taught the network. idx: the identity of a face that is followed through a video, counted from 1.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray
    confidence: np.ndarray
    pose_score: float
    hollow: np.ndarray
    idx: int | None = None

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

    @cached_property
    def head_pose(self) -> HeadPose:
        """yaw, pitch, roll in degrees: > 0 turned to the right of the picture, looking up, leaning clockwise.

        Raises:
            ValueError: not 106 points.
        """
        return head_pose(self.landmarks)

    def to_coco(self, image_id: int | str, annotation_id: int | None = None, category_id: int = 1) -> dict:
        """A COCO keypoint annotation, and result: `bbox` is x y width height, `keypoints` x y v (2, or 0 for hollow).

        annotation_id: its `id`, which annotations need and results do not. `coco_category` is the category they name.
        """
        flags = np.where(self.hollow, COCO_ABSENT, COCO_VISIBLE)
        own = {} if annotation_id is None else {"id": annotation_id}
        own |= {"image_id": image_id, "category_id": category_id}
        return own | coco_annotation(self.landmarks, flags, self.box) | {"score": round(float(self.score), 4)}


def coco_annotation(points: np.ndarray, visible: np.ndarray, box: np.ndarray) -> dict:
    """What COCO's annotation says of one face: points (K, 2), visible (K,) 0 absent, 1 hidden, 2 visible, box (4,).

    area is that of the points that are there, since OKS measures distances in its roots; bbox is the box, forehead and
    all.
    """
    there = visible > 0
    triples = np.column_stack([points, visible]) * there[:, None]
    width, height = np.ptp(points[there], axis=0).tolist() if there.any() else (0.0, 0.0)
    x1, y1, x2, y2 = (float(v) for v in box)
    return {
        "keypoints": [int(v) if i % 3 == 2 else round(v, 3) for i, v in enumerate(triples.ravel().tolist())],
        "num_keypoints": int(there.sum()),
        "bbox": [round(v, 3) for v in (x1, y1, x2 - x1, y2 - y1)],
        "area": round(width * height, 3),
        "iscrowd": 0,
    }


def coco_category(category_id: int = 1) -> dict:
    """COCO's entry in `categories` for the 106 points: their names, and the lines between them counted from 1."""
    return {
        "id": category_id,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(NAMES),
        "skeleton": skeleton(),
    }


def skeleton() -> list[tuple[int, int]]:
    """Lines between the 106 points, counted from 1: COCO's `skeleton`, and `edges` of supervision's EdgeAnnotator."""
    return [(a + 1, b + 1) for lines in LINES.values() for a, b in lines]


def to_supervision(faces: Sequence[Face]) -> "supervision.KeyPoints":
    """One picture's faces in supervision.KeyPoints: xy (N, K, 2), keypoint_confidence (N, K), detection_confidence (N,)

    `data` holds `box` (N, 4), and `tracker_id` (N,) when the faces have identities.

    Raises:
        ImportError: the package supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError("faces as supervision.KeyPoints need the package: pip install supervision") from error
    if not faces:
        return supervision.KeyPoints.empty()
    data = {"box": np.stack([face.box for face in faces])}
    if all(face.idx is not None for face in faces):
        data["tracker_id"] = np.array([face.idx for face in faces])
    return supervision.KeyPoints(
        xy=np.stack([face.landmarks for face in faces]),
        class_id=np.zeros(len(faces), int),
        keypoint_confidence=np.stack([face.confidence for face in faces]),
        detection_confidence=np.array([face.score for face in faces], np.float32),
        data=data,
    )
