"""Head pose from the landmarks: perspective-n-point on the points that expressions move least.

head_pose(points)        # HeadPose(yaw=12.1, pitch=-3.4, roll=1.0), degrees

The signs are those of the rendered heads (train_sppe/src/synth): yaw > 0 turns to the right of the picture, pitch > 0
looks up, roll > 0 leans clockwise as the viewer sees it. (0, 0, 0) looks along the line from face to camera. The
camera is taken to look straight at the face, so neither the picture's size nor how it was cut out matters.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from SPPE.src.landmarks import NUM_POINTS

# The rigid points (ends of the brows, root and base of the nose, corners of the eyes) in three dimensions: x right, y
# down, z away from the camera, thousandths of the distance between the outer eye corners, (0, 0, 0) midway between
# these. Mean, with its mirror image, of 53 neutral adults made by train_sppe/src/synth (labels of
# `Landmarks.locate` on `scene.sample_person`). Mouth, jaw and lids move too much; the contour is another line of the
# skin from every side.
MODEL = {
    33: (-733, -92, 246),
    37: (-176, -162, -188),
    42: (176, -162, -188),
    46: (733, -92, 246),
    51: (0, -3, -159),
    58: (-174, 492, -192),
    60: (0, 528, -263),
    62: (174, 492, -192),
    66: (-500, 0, 0),
    70: (-196, 26, -45),
    75: (196, 26, -45),
    79: (500, 0, 0),
}  # fmt: skip
RIGID = tuple(MODEL)
_OBJECT = np.array(list(MODEL.values()), np.float64)

# The unknown focal length, in sizes of the face (diagonal of its points): a portrait from about a metre. From 3 to 10
# the angles differ by less than half a degree in the median.
FOCAL = 4.0

# x right, y up, z to the camera (how angles are told) <-> OpenCV's x right, y down, z away.
_FLIP = np.diag([1.0, -1.0, -1.0])


class HeadPose(NamedTuple):
    """Degrees; signs as the module says."""

    yaw: float
    pitch: float
    roll: float


def head_pose(points: np.ndarray) -> HeadPose:
    """Points (106, 2), x y in image pixels -> the head's pose.

    Raises:
        ValueError: not 106 points, whose rigid ones are not known; or points that all but coincide.
    """
    points = np.asarray(points, np.float64)
    if points.shape != (NUM_POINTS, 2):
        raise ValueError(f"head pose knows the rigid ones of {NUM_POINTS} points, not of an array {points.shape}")
    seen = points[list(RIGID)]
    focal = FOCAL * max(float(np.linalg.norm(np.ptp(points, axis=0))), 1e-6)
    x, y = (seen.min(axis=0) + seen.max(axis=0)) / 2
    camera = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
    try:
        _, turn, shift = cv2.solvePnP(_OBJECT, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        turn, _ = cv2.solvePnPRefineLM(_OBJECT, seen, camera, None, turn, shift)
    except cv2.error as error:
        raise ValueError(f"no head pose fits these points ({str(error).splitlines()[0]})") from error
    matrix = _FLIP @ cv2.Rodrigues(turn)[0] @ _FLIP
    roll, pitch, yaw = Rotation.from_matrix(matrix).as_euler("ZXY", degrees=True)
    return HeadPose(float(yaw), float(-pitch), float(-roll))
