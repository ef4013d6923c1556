"""A data set small enough for a test to make: drawn faces whose 106 points are known exactly; a head of known pose."""

from pathlib import Path

import cv2
import numpy as np
import torch

from headpose import MODEL, RIGID
from SPPE.src.landmarks import FLIP_ORDER, NUM_POINTS
from SPPE.src.models.FastPose import createModel
from utils.dataset.base import Annotations, boxes_of, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME

SIDE = 160  # pixels of a picture

# Sub-pixel places for OpenCV's drawing: coordinates in 1/16 pixel.
SHIFT = 4


def turned_head(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """headpose.MODEL seen from afar, (106, 2) pixels; the turn is written out here, apart from headpose's."""
    y, p, r = np.deg2rad([yaw, -pitch, -roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    local = np.array(list(MODEL.values())) * (1, -1, -1) @ (about_z @ about_x @ about_y).T
    points = np.zeros((NUM_POINTS, 2))
    points[list(RIGID)] = 300 + local[:, :2] * (1, -1) / (8000 - local[:, 2:]) * 1000
    points[[0, 16, 32]] = [[200, 300], [300, 420], [400, 300]]  # give the face its size
    return points


def face_shape() -> np.ndarray:
    """The points of a symmetric face (106, 2): (x, y), y down, (0, 0) between the eyes, cheeks at x = -1 and 1."""
    angle = np.pi * np.arange(17) / 32
    around = np.pi * np.arange(8) / 4
    left = {
        **{i: (-np.cos(a), 1.2 * np.sin(a)) for i, a in enumerate(angle)},
        **{33 + i: (-0.75 + 0.14 * i, -0.3 - 0.08 * np.sin(np.pi * i / 4)) for i in range(5)},
        **{38 + i: (-0.2 - 0.14 * i, -0.24 - 0.05 * np.sin(np.pi * i / 3)) for i in range(4)},
        **{51 + i: (0, 0.13 * i) for i in range(4)},
        **{55: (-0.1, 0.05), 56: (-0.14, 0.25), 57: (-0.22, 0.38), 58: (-0.15, 0.46), 59: (-0.07, 0.49), 60: (0, 0.51)},
        **{66 + i: (-0.42 - 0.2 * np.cos(a), -0.1 * np.sin(a)) for i, a in enumerate(around)},
        **{74: (-0.42, 0), 104: (-0.42, 0)},
        **{84: (-0.35, 0.76), 85: (-0.23, 0.7), 86: (-0.1, 0.66), 87: (0, 0.67), 93: (0, 0.92), 94: (-0.13, 0.9)},
        **{95: (-0.26, 0.85), 96: (-0.28, 0.77), 97: (-0.12, 0.74), 98: (0, 0.74), 102: (0, 0.8), 103: (-0.12, 0.8)},
    }
    shape = np.full((NUM_POINTS, 2), np.nan)
    shape[list(left)] = list(left.values())
    mirrored = shape[list(FLIP_ORDER)] * (-1, 1)
    return np.where(np.isnan(shape), mirrored, shape)


def draw_face(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture (SIDE, SIDE, 3) uint8 of a face with those points (106, 2)."""
    image = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8)
    skin = rng.integers(90, 240) * np.array([0.6, 0.75, 1.0])
    between, chin = points[51], points[16]
    radius = np.linalg.norm(chin - between), np.linalg.norm(points[0] - points[32]) / 2
    tilt = np.degrees(np.arctan2(*(chin - between)[::-1]))
    cv2.ellipse(image, _fixed(between), _fixed(radius), tilt, 0, 360, skin, -1, cv2.LINE_AA, SHIFT)
    for indices, colour in (
        (range(33, 42), 0.3 * skin),
        (range(42, 51), 0.3 * skin),
        (range(55, 66), 0.8 * skin),
        (range(66, 74), (255, 255, 255)),
        (range(75, 83), (255, 255, 255)),
        (range(84, 96), (60, 40, 190)),
        (range(96, 104), (20, 10, 60)),
    ):
        cv2.fillPoly(image, [np.array(_fixed(points[list(indices)]))], colour, cv2.LINE_AA, SHIFT)
    for pupil in points[104:106]:
        cv2.circle(image, _fixed(pupil), int(0.02 * SIDE * 2**SHIFT), (40, 20, 10), -1, cv2.LINE_AA, SHIFT)
    noise = rng.normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def _fixed(points):
    return np.rint(np.asarray(points) * 2**SHIFT).astype(int).tolist()


def make_tiny_dataset(folder: Path, n: int = 12, seed: int = 0, unannotated: tuple[int, ...] = ()) -> Path:
    """Make FOLDER/{annot_dt_fac_106_ldmks.h5, images/face_00.png, ...}: n faces, every fourth for validation.

    Args:
        unannotated: indices of points that are marked as not annotated in every face.
    Returns:
        the folder, as `build_dataset("dt_fac_106_ldmks", folder, split)` takes it.
    """
    rng = np.random.default_rng(seed)
    images = folder / "images"
    images.mkdir(parents=True)
    paths, points = [images / f"face_{i:02}.png" for i in range(n)], np.empty((n, NUM_POINTS, 2), np.float32)
    for path, own in zip(paths, points):
        size, angle = SIDE * rng.uniform(0.26, 0.34), rng.uniform(-0.3, 0.3)
        turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        own[:] = face_shape() @ turn.T + SIDE * rng.uniform((0.46, 0.38), (0.54, 0.42))
        cv2.imwrite(str(path), draw_face(own, rng))
    visible = np.full((n, NUM_POINTS), 2, np.uint8)
    visible[:, list(unannotated)] = 0
    attributes = {"half": np.array(["first" if 2 * i < n else "second" for i in range(n)])}
    split = np.array(["val" if i % 4 == 3 else "train" for i in range(n)])
    write_h5(
        folder / FILE_NAME, Annotations(paths, boxes_of(points, visible), points, visible, attributes), images, split
    )
    return folder


def make_tiny_network(path: Path) -> Path:
    """Write a weights file of a small network for crops of 64 x 64 that has learnt nothing."""
    torch.manual_seed(0)
    model = createModel(NUM_POINTS, depth=18, width=0.125, duc=(32, 32))
    torch.save({"state_dict": model.state_dict(), "meta": {"input_size": (64, 64)}}, path)
    return path
