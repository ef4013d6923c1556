"""What a picture shows: who, with which expression, how turned, in which light, before what, through which camera.

Every function draws from the random generator that it is given and from nothing else (grain: where in GRAIN).
"""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .head import Person, feature_weights
from .source import Kit

# Degrees. Half of all heads look roughly at the camera, the others anywhere.
MAX_YAW, MAX_PITCH, MAX_ROLL = 90.0, 40.0, 40.0
NEAR_FRONTAL = 0.5

# Camera distances (dm): a phone at arm's length to a portrait lens.
DISTANCES = (4.5, 30.0)

# How often people wear or have something.
BALD, BEARD, HAT, GLASSES, TINTED = 0.06, 0.35, 0.08, 0.2, 0.35

# Hair that fits under a hat; and hair that hides an eye or looks like no one, drawn less often.
UNDER_HAT = ("short01", "short04", "made0", "made1")
RARE_HAIR, RARITY = ("short02", "short03", "bob02", "Harvey_Hawk1", "braid01", "long_alpha7", "minoan"), 0.3

# Linear RGB of hair: black, brown, chestnut, red, blond, grey, white.
HAIR_COLOURS = {
    "black": (0.03, 0.025, 0.02), "brown": (0.12, 0.07, 0.04), "chestnut": (0.25, 0.13, 0.06),
    "red": (0.45, 0.16, 0.06), "blond": (0.75, 0.5, 0.25), "grey": (0.5, 0.5, 0.5), "white": (1.1, 1.08, 1.02),
}  # fmt: skip

# Expressions: name -> (how often, actions with their largest weight; a name without a side moves both sides).
EXPRESSIONS = {
    "neutral": (5, {}),
    "smile": (4, {"mouthSmile": 1.0, "cheekSquint": 0.7, "eyeSquint": 0.4}),
    "laugh": (2, {"mouthSmile": 1.0, "jawOpen": 0.45, "cheekSquint": 0.9, "mouthUpperUp": 0.5}),
    "stare": (2, {"eyeWide": 1.0, "browInnerUp": 0.8, "browOuterUp": 0.6}),
    "pout": (2, {"mouthPucker": 1.0, "mouthShrugLower": 0.5}),
    "pressed lips": (2, {"mouthPress": 1.0, "mouthRollLower": 0.7, "mouthRollUpper": 0.5}),
    "left eye shut": (1, {"eyeBlinkLeft": 1.0, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.4}),
    "right eye shut": (1, {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.6, "mouthSmileRight": 0.4}),
    "eyes shut": (2, {"eyeBlink": 1.0}),
    "mouth open": (3, {"jawOpen": 1.0}),
    "talk": (4, {"jawOpen": 0.35, "mouthFunnel": 0.6, "mouthLowerDown": 0.5, "mouthStretch": 0.4}),
    "frown": (2, {"browDown": 1.0, "mouthFrown": 0.8, "eyeSquint": 0.4}),
    "disgust": (1, {"noseSneer": 1.0, "mouthUpperUp": 0.7, "browDown": 0.5}),
    "puffed cheeks": (1, {"cheekPuff": 1.0, "mouthPress": 0.5}),
    "crooked": (1, {"mouthLeft": 0.7, "jawRight": 0.6, "mouthDimpleLeft": 0.6}),
    "funnel": (1, {"mouthFunnel": 1.0, "jawOpen": 0.3}),
}
SIDES = ("Left", "Right")

# Eight pictures' worth of normal noise at 256 x 256.
GRAIN = np.random.default_rng(0).standard_normal(3 * 2**19, np.float32)


@dataclass
class Shot:
    """A picture's circumstances. yaw, pitch, roll in degrees, yaw to the right of the picture; colours linear."""

    yaw: float
    pitch: float
    roll: float
    distance: float
    lights: list[tuple[np.ndarray, np.ndarray]]
    sky: np.ndarray
    ground: np.ndarray
    exposure: float
    light: str


def sample_person(kit: Kit, rng: np.random.Generator) -> Person:
    """Who; parts are chosen among the kit's."""
    age = float(rng.choice([rng.uniform(0.6, 3), rng.uniform(3, 14), rng.uniform(15, 50), rng.uniform(50, 88)],
                           p=[0.08, 0.12, 0.58, 0.22]))  # fmt: skip
    male = bool(rng.random() < 0.5)
    sex = float(np.clip((0.85 if male else 0.15) + rng.normal(0, 0.15), 0, 1))
    races = rng.dirichlet([0.25] * 3)
    person = Person(sex, age, races, feature_weights(kit, rng), np.ones(3), float(rng.uniform(0.15, 1.0)), np.ones(3))
    person.skin = _choose_skin(kit, person, male, rng)
    person.skin_tint = 0.86 * np.exp(rng.normal(0, 0.13) + rng.normal(0, 0.04, 3) * (0.5, 0.5, 1.2))
    person.hair_colour = _hair_colour(person, rng)
    if rng.random() < 0.85:
        person.cloth = rng.uniform(0.1, 1) * (rng.uniform(0.02, 0.9) + rng.normal(0, 0.1, 3)).clip(0.01, 1)
    _choose_parts(kit, person, male, rng)
    return person


def _choose_skin(kit: Kit, person: Person, male: bool, rng: np.random.Generator) -> int:
    """Of the skins that fit race, sex and age best, any; with made skins the number is only a seed."""
    if not kit.skins:
        return int(rng.integers(2**31))
    period = "young" if person.age < 38 else ("middleage" if person.age < 60 else "old")
    dark = person.race == "african"
    scores = []
    for path in kit.skins:
        words = path.stem.replace("512_", "").split("_")
        right = 4 * (("african" in words or any(w.startswith("dark") for w in words)) == dark)
        right += (person.race in words) + 2 * (("female" in path.stem) != male) + 2 * (period in words)
        scores.append(right + rng.uniform(0, 1.6))
    return int(np.argmax(scores))


def _hair_colour(person: Person, rng: np.random.Generator) -> np.ndarray:
    names = list(HAIR_COLOURS)
    odds = [3, 3, 2, 1, 2.5, 0.1, 0] if person.race == "caucasian" else [6, 1.2, 0.3, 0.05, 0.1, 0.05, 0]
    odds = np.array(odds, float)
    if person.age > 45:
        odds[5:] += odds.sum() * (person.age - 45) / 25 * np.array([0.7, 0.5])
    colour = np.array(HAIR_COLOURS[str(rng.choice(names, p=odds / odds.sum()))])
    return colour * np.exp(rng.normal(0, 0.25))


def _choose_parts(kit: Kit, person: Person, male: bool, rng: np.random.Generator) -> None:
    def pick(kind: str, odds=lambda name: 1.0) -> None:
        choices = kit.parts.get(kind, [])
        weights = np.array([odds(part.name) for part in choices], float)
        if weights.sum() > 0:
            number = int(rng.choice(len(choices), p=weights / weights.sum()))
            person.parts[kind] = (number, int(rng.integers(len(choices[number].textures))))

    for kind in ("eyes", "eyebrows", "eyelashes", "teeth", "tongue"):
        pick(kind)
    hat = rng.random() < HAT
    bald = rng.random() < (2.5 * BALD if person.age < 2 else BALD) * (1.5 if male else 0.5)
    long_too = rng.random() < (0.2 if male else 0.75)

    def odds(name: str) -> float:
        if hat:
            return name.startswith(UNDER_HAT)
        return (RARITY if name in RARE_HAIR else 1.0) * (long_too or name.startswith(("short", "made", "afro", "Hawk")))

    if not bald:
        pick("hair", odds)
    if hat:
        pick("hat")
    if male and person.age > 18 and rng.random() < BEARD:
        pick("beard")
    if rng.random() < GLASSES and person.age > 3:
        pick("glasses")
        person.lens = "tinted" if rng.random() < TINTED else "clear"
        dark = person.lens == "tinted"
        person.lens_tint = tuple(rng.uniform(0.0, 0.12, 3) if dark else rng.uniform(0.8, 1, 3))
        person.lens_alpha = float(rng.uniform(0.65, 0.97) if dark else rng.uniform(0.03, 0.15))
        person.frame_tint = tuple(rng.choice([1.0, 4.0, 20.0]) * rng.uniform(0.3, 1, 3))


def sample_expression(rng: np.random.Generator) -> tuple[str, dict[str, float]]:
    """-> its name and the facial actions, 0 to 1: the expression's own, faint others, and where the eyes look."""
    names = list(EXPRESSIONS)
    odds = np.array([EXPRESSIONS[name][0] for name in names], float)
    name = str(rng.choice(names, p=odds / odds.sum()))
    actions: dict[str, float] = {}

    def add(action: str, weight: float) -> None:
        for side in SIDES if action in SIDED else ("",):
            actions[action + side] = float(np.clip(actions.get(action + side, 0) + weight * rng.uniform(0.85, 1), 0, 1))

    strength = rng.uniform(0.5, 1)
    for action, weight in EXPRESSIONS[name][1].items():
        add(action, weight if "Blink" in action else weight * strength)
    for action in rng.choice(FAINT, 4, replace=False):
        add(str(action), abs(rng.normal(0, 0.12)))
    if rng.random() < 0.3 and "eye" not in name:
        add("eyeBlink", rng.uniform(0, 0.5))
    _look(actions, *rng.normal(0, 0.4, 2))
    return name, actions


SIDED = {
    *("mouthSmile", "cheekSquint", "eyeSquint", "mouthUpperUp", "eyeWide", "browOuterUp", "mouthPress", "eyeBlink"),
    *("mouthLowerDown", "mouthStretch", "browDown", "mouthFrown", "noseSneer", "mouthDimple"),
}
FAINT = ("jawOpen", "browInnerUp", "browDown", "mouthSmile", "mouthFrown", "mouthPucker", "eyeSquint", "noseSneer",
         "mouthShrugLower", "jawLeft", "mouthRight", "cheekPuff")  # fmt: skip


def _look(actions: dict[str, float], right: float, up: float) -> None:
    """Turn both eyes, -1 .. 1."""
    right, up = np.clip([right, up], -1, 1)
    inward, outward = ("Right", "Left") if right > 0 else ("Left", "Right")
    actions[f"eyeLookIn{inward}"] = actions[f"eyeLookOut{outward}"] = float(abs(right))
    for side in SIDES:
        actions[f"eyeLook{'Up' if up > 0 else 'Down'}{side}"] = float(abs(up))


def sample_shot(rng: np.random.Generator) -> Shot:
    frontal = rng.random() < NEAR_FRONTAL
    yaw = rng.normal(0, 18) if frontal else rng.uniform(-MAX_YAW, MAX_YAW)
    pitch = rng.normal(0, 9 if frontal else 15)
    roll = rng.normal(0, 8 if frontal else 14)
    low, high = np.log(DISTANCES)
    lights, sky, ground, exposure, name = _sample_light(rng)
    return Shot(
        float(np.clip(yaw, -MAX_YAW, MAX_YAW)),
        float(np.clip(pitch, -MAX_PITCH, MAX_PITCH)),
        float(np.clip(roll, -MAX_ROLL, MAX_ROLL)),
        float(np.exp(rng.uniform(low, high))),
        lights,
        sky,
        ground,
        exposure,
        name,
    )


def _sample_light(rng: np.random.Generator) -> tuple[list, np.ndarray, np.ndarray, float, str]:
    """Key light from a side with a shadow, two weaker ones, and what comes from above and below."""
    name = str(rng.choice(["soft", "front", "side", "above", "below", "back", "coloured"],
                          p=[0.28, 0.24, 0.2, 0.12, 0.03, 0.06, 0.07]))  # fmt: skip
    azimuth = {"side": rng.choice([-1, 1]) * rng.uniform(50, 100), "back": rng.uniform(120, 240)}.get(
        name, rng.normal(0, 32)
    )
    height = {"above": rng.uniform(50, 75), "below": rng.uniform(-50, -20)}.get(name, rng.uniform(5, 45))
    warmth = rng.normal(0, 0.12)
    key = np.exp(warmth * np.array([1.0, 0.1, -1.3]) + (rng.normal(0, 0.4, 3) if name == "coloured" else 0))
    strength = rng.uniform(0.3, 0.7) if name == "soft" else rng.uniform(0.8, 1.9)
    fills = []
    for _ in range(2):
        colour = rng.uniform(0, 0.35) * np.exp(rng.normal(0, 0.15, 3))
        fills.append((_direction(rng.uniform(0, 360), rng.uniform(-20, 60)), colour))
    ambient = rng.uniform(0.35, 0.9) if name == "soft" else rng.uniform(0.12, 0.5)
    sky = ambient * np.exp(rng.normal(0, 0.1, 3) - 0.5 * warmth * np.array([1, 0, -1]))
    ground = sky * rng.uniform(0.35, 0.9) * np.array([1.05, 1.0, 0.9])
    lights = [(_direction(azimuth, height), key * strength), *fills]
    facing = sum(c.mean() * max(d[2], 0.15) for d, c in lights) + sky.mean() * 0.8
    return lights, sky, ground, float(rng.uniform(0.55, 1.15) / facing), name


def _direction(azimuth: float, height: float) -> np.ndarray:
    """Degrees -> unit vector in camera axes; azimuth 0 is from the camera."""
    a, h = np.deg2rad([azimuth, height])
    return np.array([np.sin(a) * np.cos(h), np.sin(h), np.cos(a) * np.cos(h)])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Degrees -> (3, 3): turn to the right of the picture, then look up, then lean clockwise as the viewer sees it."""
    y, p, r = np.deg2rad([yaw, -pitch, -roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_x @ about_y


# Backgrounds


def background(size: int, rng: np.random.Generator, pictures: list[Path]) -> tuple[np.ndarray, str]:
    """-> (size, size, 3) uint8 RGB and its kind: a part of one of the pictures, or something made."""
    if pictures and rng.random() < 0.8:
        image = cv2.imread(str(pictures[int(rng.integers(len(pictures)))]))
        if image is not None:
            return _part_of(image, size, rng), "photograph"
    made, kind = _made_background(size // 2, rng)  # out of focus, as behind most faces
    made = cv2.resize(made, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(made + 3 * _grain(made.shape, rng), 0, 255).astype(np.uint8), kind


def _made_background(size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """-> (size, size, 3) float32 and its kind."""
    kind = str(rng.choice(["plain", "gradient", "clouds", "blocks", "stripes"], p=[0.1, 0.15, 0.3, 0.3, 0.15]))
    colours = rng.uniform(0, 255, (6, 1)) + rng.normal(0, 1, (6, 3)) * rng.uniform(0, 60)  # most places are greyish
    image = np.empty((size, size, 3), np.float32)
    image[:] = colours[0]
    if kind in ("gradient", "clouds", "stripes"):
        ramp = (
            _clouds(size, rng)
            if kind == "clouds"
            else _ramp(size, rng, 1 if kind == "gradient" else rng.uniform(3, 20))
        )
        image = colours[0] + (colours[1] - colours[0]) * ramp[..., None]
    if kind in ("blocks", "clouds", "gradient"):
        for _ in range(int(rng.integers(4, 16)) if kind == "blocks" else int(rng.integers(0, 4))):
            centre, box = rng.uniform(0, size, 2), rng.uniform(0.05, 0.8, 2) * size
            corners = cv2.boxPoints((tuple(centre), tuple(box), float(rng.choice([0, 90, rng.uniform(0, 90)]))))
            cv2.fillPoly(image, [corners.astype(np.int32)], [float(c) for c in colours[int(rng.integers(6))]])
    image += (_clouds(size, rng)[..., None] - 0.5) * rng.uniform(0, 90)
    return cv2.GaussianBlur(image.astype(np.float32), (0, 0), rng.uniform(0.3, 0.02 * size)), kind


def _part_of(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    side = int(rng.uniform(0.3, 1) * min(height, width))
    x, y = int(rng.integers(width - side + 1)), int(rng.integers(height - side + 1))
    part = cv2.resize(image[y : y + side, x : x + side, ::-1], (size, size), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(part, (0, 0), rng.uniform(0.3, 3)) if rng.random() < 0.6 else part


def _ramp(size: int, rng: np.random.Generator, waves: float) -> np.ndarray:
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size)] * 2)
    along = x * np.cos(angle) + y * np.sin(angle)
    return 0.5 + 0.5 * np.sin(along * waves * np.pi / 2 + (phase if waves > 1 else 0))


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Normal noise of unit deviation: a piece of GRAIN, since to draw it takes a tenth of a small picture's time."""
    count = math.prod(shape)
    if count > len(GRAIN):
        return rng.standard_normal(shape, np.float32)
    start = int(rng.integers(len(GRAIN) - count + 1))
    return GRAIN[start : start + count].reshape(shape)


def _clouds(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of several sizes, (size, size) in 0 .. 1."""
    total = np.zeros((size, size), np.float32)
    for cells, strength in ((3, 1.0), (7, 0.6), (17, 0.35), (41, 0.2), (97, 0.1)):
        noise = rng.random((cells, cells), np.float32)
        total += strength * cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(total / 2.25, 0, 1)


# What comes between, and what the camera does


def occlude(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, str]:
    """Put a thing before the face.

    image: (S, S, 3) uint8 RGB; points: (106, 2) pixels, (x, y).
    Returns: the picture, a mask (106,) of the points behind the thing, and the thing's name.
    """
    size, face = image.shape[0], np.ptp(points, axis=0).max()
    kind = str(rng.choice(["card", "ball", "strands", "scarf"], p=[0.35, 0.25, 0.2, 0.2]))
    mask = np.zeros((size, size), np.float32)
    target = points[int(rng.integers(len(points)))] + rng.normal(0, 0.08 * face, 2)
    if kind == "card":
        box = rng.uniform(0.15, 0.7, 2) * face
        cv2.fillPoly(mask, [cv2.boxPoints((tuple(target), tuple(box), rng.uniform(0, 180))).astype(np.int32)], 1.0)
    elif kind == "ball":
        axes = tuple(int(a) for a in rng.uniform(0.08, 0.35, 2) * face)
        cv2.ellipse(mask, tuple(int(t) for t in target), axes, rng.uniform(0, 180), 0, 360, 1.0, -1)
    elif kind == "strands":
        for _ in range(int(rng.integers(3, 14))):
            start, end = target + rng.normal(0, 0.3 * face, 2), target + rng.normal(0, 0.6 * face, 2)
            cv2.line(
                mask,
                tuple(start.astype(int)),
                tuple(end.astype(int)),
                1.0,
                int(rng.integers(1, 1 + max(2, size // 60))),
            )
    else:
        edge = points[[0, 8, 33, 60, 98, 93]][int(rng.integers(6)), 1] + rng.uniform(0, 0.15) * face
        x = np.linspace(0, size, 12)
        y = edge + rng.normal(0, 0.03 * face, 12) - (x - points[:, 0].mean()) * rng.normal(0, 0.25)
        mask = _below(mask, x, np.maximum(y, points[60, 1]))
    soft = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 1.5))[..., None]
    thing = rng.uniform(10, 245, 3) + (_clouds(size, rng)[..., None] - 0.5) * rng.uniform(20, 160)
    thing *= 0.6 + 0.6 * _ramp(size, rng, 1)[..., None]
    x, y = np.clip(np.rint(points).astype(int), 0, size - 1).T
    return np.clip(image * (1 - soft) + thing * soft, 0, 255).astype(np.uint8), mask[y, x] > 0.5, kind


def _below(mask: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    size = mask.shape[0]
    line = np.column_stack([x, y]).astype(np.int32)
    cv2.fillPoly(mask, [np.vstack([line, [[size, size], [0, size]]])], 1.0)
    return mask


def photograph(image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Lens, sensor and software: (S, S, 3) uint8 RGB -> the same shape, and the quality of its JPEG."""
    size = image.shape[0]
    if rng.random() < 0.25:  # fewer pixels than the file has
        small = int(size * rng.uniform(0.2, 0.7))
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=int(rng.choice([cv2.INTER_LINEAR, cv2.INTER_CUBIC])))
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.6) * size / 256)
    if rng.random() < 0.1:  # a moving camera
        length, angle = rng.uniform(2, 8) * size / 256, rng.uniform(0, np.pi)
        kernel = np.zeros((17, 17), np.float32)
        tip = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        cv2.line(kernel, tuple((8 - tip).astype(int)), tuple((8 + tip).astype(int)), 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / kernel.sum())
    # towards grey, contrast, brightness, white balance: one affine of the colours
    saturation = 0.0 if rng.random() < 0.06 else rng.uniform(0.6, 1.2)
    contrast, brightness = rng.uniform(0.8, 1.2), rng.normal(0, 10)
    gain = np.exp(rng.normal(0, 0.04, (3, 1))) if saturation else 1.0
    mixed = contrast * (saturation * np.eye(3) + (1 - saturation) * np.array([0.299, 0.587, 0.114]))
    colours = gain * np.column_stack([mixed, np.full(3, 110 * (1 - contrast) + brightness)])
    values = cv2.transform(image.astype(np.float32), colours)
    if rng.random() < 0.7:
        values += rng.uniform(0, 9) * _grain(values.shape, rng)
    return np.clip(values, 0, 255).astype(np.uint8), int(rng.integers(40, 97))
