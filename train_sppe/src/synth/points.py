"""The 106 points of a head: where each is on the meshes, chosen once, and which of them the camera sees.

Everything is written for the left half of the picture (the person's right, x < 0) and mirrored. A chain of vertices is
measured on the mean head, and a label sits at a fraction of its length, between two vertices: so it is on the same
place of every face, and moves with every expression.

Only the contour is no place on the face: LaPa's annotators follow the outline that they see. So each contour point has
a path over the skin, from before the ear (or under the jaw) towards the middle of the face; in a picture the outermost
point of each path makes the outline, and the 33 labels are spread evenly along it, 16 on the chin.
"""

import cv2
import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from SPPE.src.landmarks import FLIP_ORDER, NUM_POINTS

from .dress import picture
from .head import Anatomy
from .source import Part

# Edge of the lids, from the middle of the upper lid towards the nose and round.
LID = (0, 1, 54, 57, 60, 102, 63, 66, 69, 72, 53, 5080, 50, 47, 44, 41, 36, 33, 30, 5078, 27, 24, 21, 18, 15, 12, 9, 6)
LID_OUTER, LID_INNER = 21, 66

# Left halves of rings around the mouth, from the upper middle by the corner to the lower middle: the edge of the lips'
# red, and where they meet.
LIP_RED = (466, 463, 460, 457, 451, 5351, 447, 413, 412, 424, 3736, 422, 423, 3703, 441, 440, 478, 484, 490, 496)
LIP_LINE = (474, 473, 472, 471, 470, 5362, 469, 419, 418, 433, 3732, 431, 432, 3707, 444, 437, 475, 481, 487, 493)
LIP_CORNER = 10  # place of the corner in these

# The nose: label -> vertices, of which it is the middle. 51-54 the ridge, 55-59 the left side, 60 where the lip begins.
NOSE = {
    **{51: (132,), 52: (135, 131), 53: (164,), 54: (294,)},
    **{55: (107,), 56: (161,), 57: (5139, 5146), 58: (326,), 59: (313, 314), 60: (317, 343)},
}

# Fractions of the way along a chain, such that two annotated pictures of LaPa agree (doc/synth.md). Lids: from the
# outer to the inner corner; lips: from the corner to the middle.
UPPER_LID, LOWER_LID = (0.0, 0.31, 0.54, 0.77, 1.0), (0.75, 0.51, 0.29)
UPPER_LIP, LOWER_LIP = (0.43, 0.83, 1.0), (0.33, 0.615, 1.0)
UPPER_LINE, LOWER_LINE = (0.07, 0.42, 1.0), (0.07, 0.38, 1.0)

# Brows: fractions from the outer to the inner end of the hair, upper edge 33-37, lower edge 38-41 (from MEAN_FACE).
BROW_UPPER, BROW_LOWER = (0.0, 0.2, 0.47, 0.74, 0.98), (0.93, 0.7, 0.46, 0.22)
BROW_ALPHA = 0.06  # hair is where the blurred alpha passes this part of its maximum
BROW_BLUR = 6.0  # texels of 512

# Ends of the contour's paths: before the ear and along the jaw's lower edge; and on the cheek towards the middle.
OUTER_LINE = (5564, 5402, 5411, 868, 5098, 912, 895, 894, 741, 742, 743, 920, 913, 726, 747)
INNER_LINE = (145, 86, 906, 219, 5323, 5287, 5218, 3699, 730, 722, 733)
PATHS, STEPS = 33, 24  # paths of one half, the last on the chin; points of a path
CENTRE = (0.0, 6.9, 0.45)  # of the rays that find the paths on the skin, dm

# A point counts as seen down to this much (dm) behind what is drawn at its pixel: the skin's rounding within a pixel;
# for the line between the lips their depth; for the pupils less, since a closed lid is thin.
DEPTH_MARGIN = np.full(NUM_POINTS, 0.04)
DEPTH_MARGIN[96:104] = 0.12
DEPTH_MARGIN[[74, 83, 104, 105]] = 0.015


class Landmarks:
    """The labels of all heads made of one kit."""

    def __init__(self, anatomy: Anatomy):
        self.anatomy = anatomy
        mean = anatomy.mean
        _, self.mirror = cKDTree(anatomy.kit.vertices).query(anatomy.kit.vertices * (-1, 1, 1))
        chains = lid_rows(mean) | lip_rows(mean) | {k: [(v, 1 / len(vs)) for v in vs] for k, vs in NOSE.items()}
        chains |= self._eye_rows()
        self.rows = chains | {
            FLIP_ORDER[label]: [(int(self.mirror[v]), w) for v, w in row]
            for label, row in chains.items()
            if FLIP_ORDER[label] not in chains
        }
        self.labels = sorted(self.rows)
        self.fit = _matrix([self.rows[label] for label in self.labels], len(mean))
        self.paths = self._contour_paths()
        self.brows: dict[tuple, tuple[np.ndarray, np.ndarray]] = {}

    def _eye_rows(self) -> dict[int, list]:
        """Pupil: the front of the eyeball; LaPa gives the eye's centre (74) the same place."""
        ball = np.unique(self.anatomy.kit.groups["helper-r-eye"][0])
        front = ball[np.argsort(-self.anatomy.mean[ball, 2])[:8]]  # the ring around the pole
        return {label: [(int(v), 1 / 8) for v in front] for label in (74, 104)}

    def brow_labels(self, part: Part, texture: int) -> tuple[np.ndarray, np.ndarray]:
        """Triangles' corners (18, 3) of the brow's mesh and their weights (18, 3): labels 33-50; worked out once."""
        key = (part.kind, part.name, texture)
        if key not in self.brows:
            self.brows[key] = brow_edge(part, part.place(self.anatomy.mean), part.textures[texture])
        return self.brows[key]

    def _contour_paths(self) -> sparse.csr_matrix:
        """(2 halves * PATHS * STEPS, V): points of the paths, left half from ear to chin, then right half mirrored."""
        mean, body = self.anatomy.mean, self.anatomy.body
        t = np.linspace(0, 1, PATHS)
        outer, inner = _along(mean[list(OUTER_LINE)], t), _along(mean[list(INNER_LINE)], t)
        outer[-1, 0] = inner[-1, 0] = 0
        s = np.linspace(0, 1, STEPS)[None, :, None]
        a, b = (_unit(line - CENTRE)[:, None] for line in (outer, inner))
        rays = _unit(a * (1 - s) + b * s).reshape(-1, 3)
        corners, weights = cast(np.array(CENTRE), rays, mean, body.weld[body.triangles])
        left = [list(zip(c, w)) for c, w in zip(corners.tolist(), weights.tolist())]
        right = [[(int(self.mirror[v]), w) for v, w in row] for row in left]
        flat = mean[list(OUTER_LINE)][:, :2]
        tangent = np.gradient(_along(flat, t), axis=0)
        normal = _unit(np.column_stack([tangent[:, 1], -tangent[:, 0]]))
        normal[-1] = (0, -1)
        self.outward = np.stack([normal, normal * (-1, 1)])  # (2, PATHS, 2), x right, y up
        return _matrix(left + right, len(mean))

    def locate(self, vertices: np.ndarray, brows: tuple[Part, int]) -> tuple[np.ndarray, np.ndarray]:
        """Rest positions: labels (106, 3) (the contour's still empty) and contour paths (2, PATHS, STEPS, 3)."""
        points = np.zeros((NUM_POINTS, 3))
        points[self.labels] = self.fit @ vertices
        part, texture = brows
        corners, weights = self.brow_labels(part, texture)
        points[33:51] = (part.place(vertices)[corners] * weights[..., None]).sum(1)
        return points, (self.paths @ vertices).reshape(2, PATHS, STEPS, 3)

    def contour(self, flat: np.ndarray, up: np.ndarray) -> np.ndarray:
        """The outline in a picture.

        Args:
            flat: (2, PATHS, STEPS, 2) the paths in a plane with x right and y up.
            up: (2,) where the head's up points in that plane.
        Returns:
            (33, 3) weights' places: half, path and step as floats to read any attribute of the paths by `read`.
        """
        up = _unit(up)
        turn = np.array([[up[1], up[0]], [-up[0], up[1]]])  # head's plane -> picture's plane
        outward = self.outward @ turn.T
        reach = (flat * outward[:, :, None]).sum(-1)  # (2, PATHS, STEPS)
        best = reach.argmax(-1)
        best[1, -1] = best[0, -1]  # the chin belongs to both halves
        # a jump along neighbouring paths is smoothed: people draw the outline as one line
        smooth = np.stack(
            [np.convolve(np.pad(row.astype(float), 1, "edge"), (0.25, 0.5, 0.25), "valid") for row in best]
        )
        smooth[:, -1] = smooth[:, -1].mean()
        places = []
        for half in (0, 1):
            line = read(flat, np.column_stack([np.full(PATHS, half), np.arange(PATHS), smooth[half]]))
            length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
            at = np.interp(np.linspace(0, length[-1], 17), length, np.arange(PATHS))
            step = np.interp(at, np.arange(PATHS), smooth[half])
            places.append(np.column_stack([np.full(17, half), at, step]))
        return np.concatenate([places[0], places[1][-2::-1]])


def read(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Bilinear values (n, D) of paths (2, PATHS, STEPS, D) at places (n, 3): half, path, step."""
    half, path, step = places[:, 0].astype(int), places[:, 1], places[:, 2]
    p, s = np.minimum(path.astype(int), PATHS - 2), np.minimum(step.astype(int), STEPS - 2)
    u, w = (path - p)[:, None], (step - s)[:, None]
    near = values[half, p, s] * (1 - w) + values[half, p, s + 1] * w
    far = values[half, p + 1, s] * (1 - w) + values[half, p + 1, s + 1] * w
    return near * (1 - u) + far * u


def visible(points: np.ndarray, distance: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """2 where the camera sees a label, 1 where something hides it.

    points: (106, 2) pixels; distance: (106,) dm along the camera's axis; depth: (H, W) of what is drawn, dm.
    """
    furthest = cv2.dilate(depth, np.ones((3, 3), np.uint8))  # at an edge the nearer surface is no obstacle
    x, y = np.rint(points).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < depth.shape[1]) & (y < depth.shape[0])
    shown = furthest[np.clip(y, 0, depth.shape[0] - 1), np.clip(x, 0, depth.shape[1] - 1)]
    return np.where(inside & (distance <= shown + DEPTH_MARGIN), 2, 1).astype(np.uint8)


def lid_rows(mean: np.ndarray) -> dict[int, list]:
    outer, inner = LID.index(LID_OUTER), LID.index(LID_INNER)
    upper = [LID[i % len(LID)] for i in range(outer, inner + len(LID) + 1)]
    lower = [LID[i] for i in range(inner, outer + 1)][::-1]
    rows = dict(zip(range(66, 71), fractions(mean, upper, UPPER_LID)))
    return rows | dict(zip(range(71, 74), fractions(mean, lower, LOWER_LID)))


def lip_rows(mean: np.ndarray) -> dict[int, list]:
    upper, lower = lip_chain(LIP_RED)
    outer = [[(LIP_RED[LIP_CORNER], 1.0)], *fractions(mean, upper, UPPER_LIP), *fractions(mean, lower, LOWER_LIP)]
    rows = dict(zip((84, 85, 86, 87, 95, 94, 93), outer))
    upper, lower = lip_chain(LIP_LINE)
    above, below = fractions(mean, upper, UPPER_LINE), fractions(mean, lower, LOWER_LINE)
    rows[96] = [(vertex, weight / 2) for vertex, weight in above[0] + below[0]]
    return rows | dict(zip((97, 98, 103, 102), (*above[1:], *below[1:])))


def lip_chain(ring: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Upper and lower half of a lip's half-ring, each from the corner to the middle."""
    return list(ring[: LIP_CORNER + 1])[::-1], list(ring[LIP_CORNER:])


def fractions(mean: np.ndarray, chain: list[int], at: tuple[float, ...]) -> list[list[tuple[int, float]]]:
    """Places along a chain of vertices -> for each, two vertices and their weights."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(mean[chain], axis=0), axis=1))])
    rows = []
    for fraction in at:
        i = min(int(np.searchsorted(length, fraction * length[-1], side="right")) - 1, len(chain) - 2)
        t = (fraction * length[-1] - length[i]) / (length[i + 1] - length[i])
        rows.append([(chain[i], 1 - t), (chain[i + 1], t)])
    return rows


def brow_edge(part: Part, placed: np.ndarray, texture) -> tuple[np.ndarray, np.ndarray]:
    """Labels 33-50 by the edge of the hair: (18, 3) vertices of the brow's mesh, (18, 3) weights.

    placed: (n, 3) the part's vertices on the mean head; texture: picture file or array whose alpha is the hair.
    """
    alpha = picture(texture)[..., 3].astype(np.float32)
    alpha = cv2.GaussianBlur(alpha, (0, 0), BROW_BLUR * alpha.shape[0] / 512)
    grid = [(i / 12, j / 12) for i in range(13) for j in range(13 - i)]
    weights = np.array([(1 - a - b, a, b) for a, b in grid])
    uv = np.einsum("gk,tkd->tgd", weights, part.uv[part.triangles])
    column = np.clip((uv[..., 0] * alpha.shape[1]).astype(int), 0, alpha.shape[1] - 1)
    row = np.clip(((1 - uv[..., 1]) * alpha.shape[0]).astype(int), 0, alpha.shape[0] - 1)
    hair = alpha[row, column]
    triangle, place = np.nonzero(hair > BROW_ALPHA * hair.max())
    where = np.einsum("nk,nkd->nd", weights[place], placed[part.triangles[triangle]])
    rows = []
    for side in (-1, 1):
        mine = np.flatnonzero(where[:, 0] * side > 0)
        x, y = abs(where[mine, 0]), where[mine, 1]
        low, high = np.quantile(x, (0.002, 0.996))
        fraction = (high - x) / (high - low)  # 0 at the outer end, 1 at the inner
        window = 0.03
        found = []
        for targets, sign in ((BROW_UPPER, 1), (BROW_LOWER, -1)):
            for target in targets:
                near = np.flatnonzero(abs(fraction - target) < window)
                order = near[np.argsort(sign * y[near])]
                found.append(mine[order[int((0.5 if target == 0 else 0.99) * (len(order) - 1))]])
        # the right brow's labels count from its inner end, along the upper edge, then back along the lower
        rows += found if side < 0 else [*found[4::-1], *found[:4:-1]]
    triangles = part.triangles[triangle[rows]]
    return triangles, weights[place[rows]]


def cast(
    origin: np.ndarray, rays: np.ndarray, vertices: np.ndarray, triangles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The furthest triangle that each ray (n, 3) from origin meets: its corners (n, 3), and weights (n, 3)."""
    a, b, c = vertices[triangles].astype(np.float64).transpose(1, 0, 2)
    ab, ac, from_a = b - a, c - a, origin - a
    q = np.cross(from_a, ab)
    corners, weights = [], []
    for ray in rays:
        p = np.cross(ray, ac)
        determinant = (ab * p).sum(1)
        safe = np.where(abs(determinant) < 1e-12, np.inf, determinant)
        u, v, t = (from_a * p).sum(1) / safe, (q @ ray) / safe, (ac * q).sum(1) / safe
        hit = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6) & (t > 0)
        best = int(np.where(hit, t, -1).argmax())
        if not hit[best]:
            raise ValueError(f"the ray {ray} from {origin} meets no skin: is this MakeHuman's base mesh hm08?")
        corners.append(triangles[best])
        weights.append((1 - u[best] - v[best], u[best], v[best]))
    return np.array(corners), np.array(weights)


def _along(line: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points (len(t), D) at fractions t of the length of a polyline (n, D)."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    return np.column_stack([np.interp(t * length[-1], length, axis) for axis in line.T])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _matrix(rows: list[list[tuple[int, float]]], count: int) -> sparse.csr_matrix:
    at = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    columns, weights = np.array([item for row in rows for item in row]).T
    return sparse.csr_matrix((weights, (at, columns.astype(int))), (len(rows), count))
