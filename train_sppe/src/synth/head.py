"""People: who they are (`Person`), the shape that follows from it, and their expressions."""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from . import made
from .source import Kit, Part

RACES = ("african", "asian", "caucasian")

# The ages at which MakeHuman's macro morphs stand, in years.
AGES = {"baby": 1.0, "child": 9.0, "young": 25.0, "old": 85.0}

# How far single features stray: morphs are drawn so often, with a half-normal weight of this deviation.
FEATURES = {
    "head": (0.22, 0.35), "forehead": (0.25, 0.35), "eyebrows": (0.3, 0.4), "eyes": (0.14, 0.35), "nose": (0.18, 0.4),
    "mouth": (0.14, 0.35), "cheek": (0.25, 0.4), "chin": (0.25, 0.4), "ears": (0.15, 0.4), "neck": (0.2, 0.4),
    "asym": (0.25, 0.25),
}  # fmt: skip
MAX_WEIGHT = 0.8

# Morphs that make no plausible head, or move what the cameras never see.
UNWANTED = ("ear-shape-pointed", "head-triangular", "head-invertedtriangular", "asymm-", "measure-", "head-age")

# What the mean of MakeHuman's heads lacks of the mean of real ones (landmarks.MEAN_FACE): found by least squares over
# the shape morphs, the strongest kept at about half: brows higher, a wider and higher mouth, a slimmer jaw.
TYPICAL = {
    "eyebrows/eyebrows-trans-up": 0.75,
    "head/head-fat-decr": 0.45,
    "mouth/mouth-scale-horiz-incr": 0.5,
    "mouth/mouth-scale-vert-incr": 0.45,
    "mouth/mouth-trans-up": 0.35,
    "mouth/mouth-angles-up": 0.35,
    "chin/chin-triangle": 0.35,
}
TYPICAL_SPREAD = (0.4, 1.4)

# The neck bends between these values of y + TILT * z (dm, of the base mesh): the chin follows the head, not the chest.
NECK_LOW, NECK_HIGH, TILT = 5.95, 6.95, 0.6

# The ring of vertices just behind the lips, one in the throat, and how deep (dm) no ambient light reaches.
MOUTH_RING = (
    *(537, 538, 539, 531, 532, 5359, 533, 525, 524, 528, 3730, 526, 527, 3709, 529, 530, 536, 535, 534, 540),
    *(7279, 7280, 7281, 7275, 7274, 10377, 7272, 7271, 10398, 7273, 7269, 7270, 7278, 11961, 7277, 7276, 7283, 7282),
)
THROAT, MOUTH_DARK = 656, 0.45


@dataclass
class Person:
    """A sampled identity: numbers and choices, no geometry. hair_colour: linear RGB; sex: 0 female .. 1 male.

    parts: kind -> which of the kit's, and which of its textures; skin: which of the kit's skins, or a made one's seed;
    lens: "", "clear" or "tinted"; cloth: colour of a shirt, or None.
    """

    sex: float
    age: float
    races: np.ndarray
    weights: dict[str, float]
    skin_tint: np.ndarray
    gloss: float
    hair_colour: np.ndarray
    parts: dict[str, tuple[int, int]] = field(default_factory=dict)
    skin: int = 0
    lens: str = ""
    lens_tint: tuple = (1.0, 1.0, 1.0)
    lens_alpha: float = 0.1
    frame_tint: tuple = (1.0, 1.0, 1.0)
    cloth: np.ndarray | None = None

    @property
    def race(self) -> str:
        return RACES[int(np.argmax(self.races))]


def macro_weights(person: Person) -> dict[str, float]:
    """Race x sex x age, each split linearly between the morphs it lies between."""
    names, years = list(AGES), list(AGES.values())
    ages = np.array([np.interp(person.age, years, np.eye(len(years))[i]) for i in range(len(years))])
    return {
        f"macro/{race}-{sex}-{age}": float(r * s * a)
        for race, r in zip(RACES, person.races)
        for sex, s in (("male", person.sex), ("female", 1 - person.sex))
        for age, a in zip(names, ages)
        if r * s * a > 1e-4
    }


def feature_weights(kit: Kit, rng: np.random.Generator) -> dict[str, float]:
    """Random weights of the shape morphs; left and right get the same, opposites (incr, decr) not both."""
    weights = {name: weight * rng.uniform(*TYPICAL_SPREAD) for name, weight in TYPICAL.items()}
    for name in kit.morphs:
        folder, _, stem = name.partition("/")
        if folder not in FEATURES or any(word in name for word in UNWANTED) or stem.startswith("r-"):
            continue
        often, deviation = FEATURES[folder]
        drawn, weight = rng.random() < often, min(abs(rng.normal(0, deviation)), MAX_WEIGHT)
        if drawn:
            weights[name] = weights.get(name, 0) + weight
            if stem.startswith("l-"):
                weights[f"{folder}/r-{stem[2:]}"] = weight
    return weights


def morph(kit: Kit, vertices: np.ndarray, weights: dict[str, float], scale: float = 1.0) -> np.ndarray:
    """Vertices (V, 3) moved by the weighted morphs."""
    out = vertices.copy()
    for name, weight in weights.items():
        indices, offsets = kit.morphs[name]
        out[indices] += np.float32(weight * scale) * offsets
    return out


class Anatomy:
    """What is known of every head made of a kit, worked out once: surfaces, bend, ambient light, where parts sit."""

    def __init__(self, kit: Kit):
        self.kit = kit
        self.body = kit.surface("body")
        self.mean = mean_head(kit)
        self.joint = np.unique(kit.groups["joint-head"][0])
        self.body_light, self.inside = ambient_light(self.body, self.mean)
        self.bends: dict[tuple[str, str], np.ndarray] = {}
        self.skins: made.SkinMaker | None = None
        if not kit.skins:
            self.skins = made.furnish(kit, self.body, self.mean, self.inside)

    def bend(self, part: Part) -> np.ndarray:
        """(n,) 1 where a vertex of the part follows the head, 0 where the chest; the same for everybody."""
        key = part.kind, part.name
        if key not in self.bends:
            place = part.place(self.mean)
            t = np.clip((place[:, 1] + TILT * place[:, 2] - NECK_LOW) / (NECK_HIGH - NECK_LOW), 0, 1)
            self.bends[key] = t * t * (3 - 2 * t)
        return self.bends[key]

    def pivot(self, vertices: np.ndarray) -> np.ndarray:
        return vertices[self.joint].mean(axis=0)


def mean_head(kit: Kit) -> np.ndarray:
    """The mean of six young adults, (V, 3): what vertices are chosen and measured on."""
    weights = {f"macro/{race}-{sex}-young": 1 / 6 for race in RACES for sex in ("male", "female")}
    return morph(kit, kit.vertices, weights)


def ambient_light(body: Part, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) how open a vertex of the body is to light from all around, 0 to 1: hollows, seen at three scales, are not;
    and (n,) whether it lies inside the mouth."""
    points = body.place(vertices)
    count = int(body.weld.max()) + 1
    edges = body.weld[body.triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    both = np.concatenate([edges, edges[:, ::-1]])
    linked = sparse.csr_matrix((np.ones(len(both)), both.T), (count, count))
    linked.data[:] = 1
    average = sparse.diags(1 / np.maximum(np.asarray(linked.sum(1)).ravel(), 1)) @ linked
    welded = np.zeros((count, 3))
    welded[body.weld] = points
    normals = body.normals(points)
    light, smooth = np.ones(len(points)), welded
    for steps, strength in ((3, 8.0), (9, 4.0), (27, 2.0)):
        for _ in range(steps):
            smooth = average @ smooth
        hollow = ((smooth[body.weld] - points) * normals).sum(1)
        light *= np.clip(1 - strength * np.maximum(hollow, 0), 0.35, 1)
    depth = np.zeros(count)
    depth[list(MOUTH_RING)] = -1  # the rim of the lips stops the flood that starts at the throat
    reached = np.zeros(count, bool)
    reached[THROAT] = True
    while True:
        spread = (linked @ reached > 0) & (depth == 0)
        if (spread <= reached).all():
            break
        reached |= spread
    deep = np.clip((welded[list(MOUTH_RING), 2].mean() - points[:, 2]) / MOUTH_DARK, 0, 1)
    inside = reached[body.weld]
    return np.where(inside, 0.7 - 0.65 * deep, light).astype(np.float32), inside


class Head:
    """A person's geometry: `vertices` (V, 3) at rest; `express` moves it."""

    def __init__(self, anatomy: Anatomy, person: Person):
        self.anatomy, self.person, self._skin = anatomy, person, None
        kit = anatomy.kit
        self.vertices = morph(kit, kit.vertices, macro_weights(person) | person.weights)
        size = np.ptp(self.vertices[anatomy.body.weld, 0][abs(anatomy.body.place(kit.vertices)[:, 1] - 7.3) < 0.3])
        mean = np.ptp(anatomy.mean[anatomy.body.weld, 0][abs(anatomy.body.place(kit.vertices)[:, 1] - 7.3) < 0.3])
        self.scale = float(size / mean)

    def made_skin(self) -> np.ndarray:
        """The texture of a kit without skins, (h, w, 4) uint8 RGBA; made once."""
        if self._skin is None:
            self._skin = self.anatomy.skins.paint(self.person)
        return self._skin

    def express(self, actions: dict[str, float]) -> np.ndarray:
        """Facial actions (name -> 0 .. 1) -> vertices (V, 3)."""
        weights = {f"arkit/{name}": weight for name, weight in actions.items()}
        return morph(self.anatomy.kit, self.vertices, weights, self.scale)
