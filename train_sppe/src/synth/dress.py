"""A head's meshes with their textures and materials, in drawing order: skin, eyes, mouth, hair, things worn."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from .head import Head, Person
from .render import EYE, GLASS, HAIR, PLAIN, SKIN, TEETH, Mesh
from .source import Part

# Textures are shrunk to this side: a face of 256-pixel pictures shows no more.
MAX_TEXTURE = 1024

# Ambient light that reaches a part, where it is not worked out by vertex.
LIGHT = {"eyes": 0.8, "teeth": 0.6, "tongue": 0.4, "eyelashes": 0.8, "eyebrows": 1.0, "hair": 0.9, "hat": 1.0}

# Kinds of parts that people wear or grow, in drawing order, and how they are drawn.
MATERIALS = {"eyes": EYE, "teeth": TEETH, "tongue": SKIN, "eyebrows": HAIR, "eyelashes": HAIR, "beard": HAIR,
             "hair": HAIR, "glasses": PLAIN, "hat": PLAIN}  # fmt: skip

# Parts in the colour of the hair, and the brightness to which their textures are brought before they are tinted.
COLOURED, GREY_LEVEL = ("hair", "eyebrows", "beard"), 150

# A shirt covers what follows the head by less than this, and lies so far (dm) above the skin.
COLLAR, CLOTH_LIFT = 0.06, 0.05
WEAVE = np.random.default_rng(0).integers(170, 256, (64, 64, 1), np.uint8) * np.ones((1, 1, 4), np.uint8)
WEAVE[..., 3] = 255
CLEAR = np.full((4, 4, 4), 255, np.uint8)


def picture(texture: Path | np.ndarray) -> np.ndarray:
    """A texture as (h, w, 4) uint8 RGBA, at most MAX_TEXTURE on a side; one that was made is one already."""
    return texture if isinstance(texture, np.ndarray) else _read(texture)


@lru_cache(maxsize=256)
def _read(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"{path} is no picture that can be read; replace it, or leave it out of the assets")
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.shape[2] == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)
    scale = MAX_TEXTURE / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


def grey_hair(texture: Path | np.ndarray) -> np.ndarray:
    """A hair texture without its colour, bright, so that a tint gives it any; the same alpha."""
    return texture if isinstance(texture, np.ndarray) else _read_grey(texture)


@lru_cache(maxsize=64)
def _read_grey(path: Path) -> np.ndarray:
    image = _read(path).copy()
    solid = image[..., 3] > 64
    grey = image[..., :3].astype(np.float32).mean(2)
    level = np.median(grey[solid]) if solid.any() else 128.0
    image[..., :3] = np.clip(grey * (GREY_LEVEL / max(level, 12)), 0, 255)[..., None]
    return image


def _mesh(
    head: Head, part: Part, points: np.ndarray, material: int, texture: np.ndarray, key: str | None, **more
) -> Mesh:
    light = more.pop("light", np.full(len(points), LIGHT.get(part.kind, 1.0), np.float32))
    normals, bend = part.normals(points), head.anatomy.bend(part)
    return Mesh(material, points, normals, part.uv, bend, light, part.triangles, texture, key, **more)


def meshes(head: Head, vertices: np.ndarray, open_mouth: bool = True) -> list[Mesh]:
    """Everything of a person that is drawn.

    vertices: (V, 3) of the base mesh with its expression; open_mouth: whether teeth and tongue can be seen.
    """
    person, kit = head.person, head.anatomy.kit
    out = [_skin(head, vertices)]
    if person.cloth is not None:
        out.append(_cloth(head, vertices))
    for kind, material in MATERIALS.items():
        if kind not in person.parts or (kind in ("teeth", "tongue") and not open_mouth):
            continue
        choice, number = person.parts[kind]
        part = kit.parts[kind][choice]
        texture, coloured = part.textures[number], kind in COLOURED
        mesh = _mesh(
            head,
            part,
            part.place(vertices),
            material,
            grey_hair(texture) if coloured else picture(texture),
            f"{kind} {part.name} {number}",
            two_sided=material in (HAIR, PLAIN),
            tint=tuple(person.hair_colour) if coloured else (1.0, 1.0, 1.0),
        )
        out += _glasses(mesh, person) if kind == "glasses" else [mesh]
    return out


def _skin(head: Head, vertices: np.ndarray) -> Mesh:
    anatomy, person, kit = head.anatomy, head.person, head.anatomy.kit
    made = not kit.skins
    return _mesh(
        head,
        anatomy.body,
        anatomy.body.place(vertices),
        SKIN,
        head.made_skin() if made else picture(kit.skins[person.skin]),
        None if made else f"skin {person.skin}",
        light=anatomy.body_light,
        tint=tuple(person.skin_tint),
        gloss=person.gloss,
    )


def hand(head: Head, part: Part, points: np.ndarray) -> Mesh:
    """A hand in the skin of the person's face; points: (n, 3), the part's, in the axes of the head at rest."""
    skin = _skin(head, head.vertices)
    look = {"tint": skin.tint, "gloss": skin.gloss, "two_sided": True}
    mesh = _mesh(head, part, points, SKIN, skin.texture, skin.texture_key, **look)
    return replace(mesh, bend=np.ones(len(points)))


def _cloth(head: Head, vertices: np.ndarray) -> Mesh:
    """A shirt: the chest's skin again, a little further out, below the collar."""
    body = head.anatomy.body
    points = body.place(vertices)
    covered = (head.anatomy.bend(body)[body.triangles] < COLLAR).all(axis=1)
    lifted = points + CLOTH_LIFT * body.normals(points)
    tint = tuple(head.person.cloth)
    mesh = _mesh(head, body, lifted, PLAIN, WEAVE, "weave", tint=tint, two_sided=True, gloss=0.05)
    return replace(mesh, triangles=body.triangles[covered])


def _glasses(mesh: Mesh, person: Person) -> list[Mesh]:
    """Frame and lenses: the lenses are where the texture is half transparent."""
    height, width = mesh.texture.shape[:2]
    u, v = mesh.uv[mesh.triangles].mean(axis=1).T
    alpha = mesh.texture[((1 - v) * (height - 1)).astype(int), (u * (width - 1)).astype(int), 3]
    lens = (alpha > 40) & (alpha < 230)
    frame = replace(mesh, triangles=mesh.triangles[~lens], tint=tuple(person.frame_tint), gloss=0.8)
    glass = replace(
        mesh, material=GLASS, triangles=mesh.triangles[lens], texture=CLEAR, texture_key="clear", gloss=1.0,
        tint=tuple(person.lens_tint), alpha=person.lens_alpha,
    )  # fmt: skip
    return [frame, glass]


def brows(head: Head) -> tuple[Part, int]:
    """The brow that a person has, and which of its textures."""
    choice, texture = head.person.parts["eyebrows"]
    return head.anatomy.kit.parts["eyebrows"][choice], texture
