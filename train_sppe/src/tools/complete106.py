"""Complete 68 hand-labelled face points (iBUG 300-W order) to this project's 106 (LaPa order).

    python train_sppe/src/tools/complete106.py --csv landmarks68.csv --images images --out completed106.csv

Input rows: image,source,x0,y0,...,x67,y67. Output rows: image,source,x0,y0,s0,...,x105,y105,s105; pixels of the image,
0-based, and s says where the point comes from:

    3  label     one of the 68 hand labels, copied
    2  geometry  on a smooth curve through the hand labels (odd contour points, the lids' tops and bottoms, closed eyes)
    1  teacher   MediaPipe's face mesh, carried onto the hand labels around it (brows' lower edges, nose sides, pupils)
    0  none      the teacher saw no face, or one that does not fit the labels; x = y = 0 as in COCO: mask it in training

The teacher makes data only; training and running the network never need it. Give it an environment of its own:

    python -m venv meshenv && meshenv/bin/pip install mediapipe==0.10.14 "numpy<2"

Its models are Apache-2.0 (Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs",
2019; Ablavatski et al., "Real-time Pupil Tracking from Monocular Video", 2020).
"""

import argparse
import csv
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[3]))
from SPPE.src.landmarks import FLIP_ORDER, IBUG68, NUM_POINTS, OUTER_EYES, PUPILS, TAUGHT_BY_TEACHER, align

NONE, TEACHER, GEOMETRY, LABEL = 0, 1, 2, 3

# Lids in LaPa order, corner to corner; the unlabelled middle (68, 72, 77, 81) lies half-way along the middle segment.
LIDS = {68: (66, 67, 69, 70), 72: (70, 71, 73, 66), 77: (75, 76, 78, 79), 81: (79, 80, 82, 75)}
EYE_RINGS = {104: tuple(range(66, 74)), 105: tuple(range(75, 83))}
EYE_CENTRES = {104: 74, 105: 83}
CURVE_STEPS = 32  # samples a curve segment: the arc-length midpoint is then good to 0.1 % of the segment

# Face mesh vertices -> 106 points of the left half and the axis, {point: {vertex: weight}}, weights summing to 1.
# Hand-labelled points: the one or two vertices (nearest nine, steps of 0.05) that fit the labels of 300-W's 2,012
# training faces and their mirror images best, unbiased to 0.01 of the inter-ocular distance, so that carrying them onto
# the labels moves nothing on average. Teacher's points: the vertices nearest to LaPa's annotation after alignment. The
# brow's lower edge is the mesh's one stretched away from the upper edge to the thickness of LaPa's brows (0.065, 0.084,
# 0.087, 0.073 of the inter-ocular distance from 41 to 38); on 300-W's faces it then lies within 5 % of the brow's
# thickness of the steepest dark-to-bright step, on the mean over faces.
MESH_LEFT = {
    33: {70: 0.80, 156: 0.20},
    34: {63: 0.80, 105: 0.20},
    35: {105: 0.60, 66: 0.40},
    36: {66: 0.65, 107: 0.35},
    37: {107: 0.80, 8: 0.20},
    38: {107: 0.05, 55: 0.95},
    39: {66: -0.42, 65: 1.22, 55: 0.20},
    40: {105: -0.45, 52: 1.25, 65: 0.20},
    41: {63: -0.25, 53: 1.10, 46: 0.15},
    51: {168: 0.90, 6: 0.10},
    52: {6: 0.65, 195: 0.35},
    53: {195: 0.60, 5: 0.40},
    54: {1: 0.55, 5: 0.45},
    55: {244: 0.60, 245: 0.40},
    56: {198: 0.50, 209: 0.25, 126: 0.25},
    57: {64: 0.50, 102: 0.50},
    58: {75: 0.80, 98: 0.20},
    59: {97: 0.80, 20: 0.20},
    60: {2: 0.75, 164: 0.25},
    66: {7: 0.75, 247: 0.25},
    67: {160: 0.55, 159: 0.45},
    69: {158: 0.80, 157: 0.20},
    70: {155: 0.70, 173: 0.30},
    71: {145: 0.60, 154: 0.40},
    73: {144: 0.95, 145: 0.05},
    104: {468: 1.0},
}

# Mirror images of the vertices above (left half of the picture -> right half); those on the axis are not listed.
MESH_MIRROR = {
    **{70: 300, 156: 383, 63: 293, 105: 334, 66: 296, 107: 336, 46: 276, 53: 283, 52: 282, 65: 295, 55: 285},
    **{244: 464, 245: 465, 198: 420, 209: 429, 126: 355, 64: 294, 102: 331, 75: 305, 98: 327, 97: 326, 20: 250},
    **{7: 249, 247: 467, 160: 387, 159: 386, 158: 385, 157: 384, 155: 382, 173: 398, 145: 374, 154: 381, 144: 373},
    **{468: 473},
}

# Which labelled points carry which teacher's points, and how far their pull reaches (fraction of the inter-ocular
# distance; a Gaussian's sigma): short along the brow, whose labels wander; wide on the nose; about the whole eye.
CARRIERS = (
    ((38, 39, 40, 41), (33, 34, 35, 36, 37), 0.12),
    ((47, 48, 49, 50), (42, 43, 44, 45, 46), 0.12),
    ((55, 56, 57), (51, 52, 53, 54, 58, 59, 60, 70), 0.20),
    ((63, 64, 65), (51, 52, 53, 54, 60, 61, 62, 75), 0.20),
    ((104,), (66, 67, 69, 70, 71, 73), 0.30),
    ((105,), (75, 76, 78, 79, 80, 82), 0.30),
)

# A mesh whose labelled points lie further off than these is not trusted (means over the points, fractions of the
# inter-ocular distance). As found: half of 300-W's training faces lie within 0.03 and 99.9 % within 0.10; another face
# of the picture lies beyond. After the similarity: half lie within 0.027, 99 % within 0.058, and the worst (0.079:
# dark, half covered or in profile) still look right.
MAX_OFFSET = 0.15
MAX_RESIDUAL = 0.08
CLOSED_EYE = 0.08  # lid gap / eye width below which no pupil is visible and the eye's centre stands for it
PUPIL_INSET = 0.85  # the pupil stays inside the lids' outline shrunk by this: LaPa's pupils never lie on a lid

MESH_VERTICES = 478  # 468 of the face, 10 of the irises (refine_landmarks)
MESH_SIDE = 640  # longer side the mesh's face finder sees; crops of 352 px and less are enlarged to it
MESH_MIN_CONFIDENCE = 0.3  # crops hold one known face, and the residual judges it afterwards
# Tried in turn until the mesh fits the labels: (grey margin as a fraction of the side, extra turn in degrees).
MESH_VARIANTS = ((0.0, 0.0), (0.35, 0.0), (0.0, 25.0), (0.0, -25.0))
GREY = (128, 128, 128)


def curve_midpoints(points):
    """Half-way points, by arc length, of the segments of a centripetal Catmull-Rom curve.

    points: (K, 2) knots in order, K >= 2, (x, y), any frame. Returns (K - 1, 2), one between each pair of knots.
    The open ends continue by reflection. Centripetal knots: no loops or overshoot (Yuksel et al., CAD 2011).
    """
    knots = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    return np.stack([_segment_midpoint(knots[i : i + 4]) for i in range(len(points) - 1)])


def _segment_midpoint(p):
    """(4, 2) consecutive knots -> (2,), half-way by arc length between the middle two (Barry and Goldman's pyramid)."""
    steps = np.maximum(np.sqrt(np.linalg.norm(np.diff(p, axis=0), axis=1)), 1e-6)  # coinciding knots divide by zero
    t = np.concatenate([[0.0], np.cumsum(steps)])
    u = np.linspace(t[1], t[2], CURVE_STEPS + 1)[:, None]

    def blend(a, b, t0, t1):
        return ((t1 - u) * a + (u - t0) * b) / (t1 - t0)

    a = [blend(p[i], p[i + 1], t[i], t[i + 1]) for i in range(3)]
    b = [blend(a[i], a[i + 1], t[i], t[i + 2]) for i in range(2)]
    curve = blend(b[0], b[1], t[1], t[2])  # (CURVE_STEPS + 1, 2)
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    return np.array([np.interp(length[-1] / 2, length, curve[:, axis]) for axis in range(2)])


def complete_by_geometry(points68):
    """Place the 68 labels and what curves through them give.

    points68: (68, 2), (x, y), iBUG order, any frame. Returns points (106, 2) of the same frame and sources (106,) int;
    points still unknown are NaN with source NONE.
    """
    points = np.full((NUM_POINTS, 2), np.nan)
    sources = np.full(NUM_POINTS, NONE)
    points[list(IBUG68)], sources[list(IBUG68)] = points68, LABEL
    points[1:33:2] = curve_midpoints(points[0:33:2])
    for middle, lid in LIDS.items():
        points[middle] = curve_midpoints(points[list(lid)])[1]
    sources[[*range(1, 33, 2), *LIDS]] = GEOMETRY
    return points, sources


def flip_points(points, width):
    """Mirror (106, 2) points, (x, y) in pixels of an image `width` wide, and put them back in order."""
    mirrored = points[list(FLIP_ORDER)].copy()
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    return mirrored


def inter_ocular(points):
    """Distance between the outer eye corners of (106, 2) points, in their own unit."""
    return float(np.linalg.norm(points[OUTER_EYES[0]] - points[OUTER_EYES[1]]))


def _mesh_weights():
    """(106, 478) weights that turn mesh vertices into points, and (106,) bool: which points they give."""
    weights = np.zeros((NUM_POINTS, MESH_VERTICES))
    for point, mixture in MESH_LEFT.items():
        for vertex, weight in mixture.items():
            weights[point, vertex] += weight
            if FLIP_ORDER[point] != point:
                weights[FLIP_ORDER[point], MESH_MIRROR.get(vertex, vertex)] += weight
    return weights, weights.any(axis=1)


MESH_WEIGHTS, MESH_GIVES = _mesh_weights()


def points_from_mesh(vertices):
    """(478, 2) mesh vertices -> (106, 2) points of the same frame, NaN where MESH_LEFT says nothing."""
    points = MESH_WEIGHTS @ vertices
    points[~MESH_GIVES] = np.nan
    return points


def carry(estimates, points):
    """Move the teacher's points along with the labels around them.

    estimates: (106, 2), the mesh's own points, aligned; points: (106, 2), labels, NaN elsewhere; (x, y) of one frame.
    Each point moves by the mean of its carriers' residuals, weighted by a Gaussian of the distance: never further than
    the furthest of them, so a wild label cannot throw it. Returns {point: (2,)}.
    """
    unit, carried = inter_ocular(points), {}
    for members, carriers, reach in CARRIERS:
        around = estimates[list(carriers)]
        residuals = points[list(carriers)] - around  # (C, 2)
        for member in members:
            apart = np.linalg.norm(around - estimates[member], axis=1) / (reach * unit)
            pull = np.exp(-0.5 * (apart**2 - apart.min() ** 2))  # relative to the nearest: never all zero
            carried[member] = estimates[member] + pull @ residuals / pull.sum()
    return carried


def eye_opening(ring):
    """Lid gap over width of an (8, 2) eye ring (corner, 3 lid points, corner, 3 lid points)."""
    gaps = np.linalg.norm(ring[1:4] - ring[7:4:-1], axis=1)
    return float(gaps.max() / max(np.linalg.norm(ring[0] - ring[4]), 1e-6))


def clamp_into(point, ring):
    """The point of the polygon `ring` (K, 2) nearest to `point` (2,): itself when inside. Any one frame."""
    if cv2.pointPolygonTest(ring.astype(np.float32).reshape(-1, 1, 2), (float(point[0]), float(point[1])), False) >= 0:
        return point
    starts, edges = ring, np.roll(ring, -1, axis=0) - ring
    along = ((point - starts) * edges).sum(1) / np.maximum((edges**2).sum(1), 1e-12)
    feet = starts + np.clip(along, 0, 1)[:, None] * edges
    return feet[np.linalg.norm(feet - point, axis=1).argmin()]


def place_pupils(points, sources, carried):
    """Set 104 = 74 and 105 = 83, as LaPa does, in place; a closed eye gets the centre of its lids."""
    for pupil, ring_indices in EYE_RINGS.items():
        ring = points[list(ring_indices)]
        centre, both = ring.mean(axis=0), [pupil, EYE_CENTRES[pupil]]
        if eye_opening(ring) < CLOSED_EYE:
            points[both], sources[both] = centre, GEOMETRY
        elif pupil in carried:
            points[both] = clamp_into(carried[pupil], centre + PUPIL_INSET * (ring - centre))
            sources[both] = TEACHER


class MeshTeacher:
    """MediaPipe's face mesh with iris refinement, as a function image -> vertices."""

    def __init__(self):
        try:
            from mediapipe.python.solutions.face_mesh import FaceMesh
        except ImportError as error:
            raise SystemExit(
                f"complete106 needs MediaPipe's face mesh ({error}). It is no requirement of this project: make an "
                'environment of its own with `pip install mediapipe==0.10.14 "numpy<2"` and run this file with it.'
            ) from error
        self._mesh = FaceMesh(
            static_image_mode=True,
            max_num_faces=1,
            refine_landmarks=True,
            min_detection_confidence=MESH_MIN_CONFIDENCE,
        )

    def __call__(self, image, margin=0.0, degrees=0.0):
        """image: (H, W, 3) RGB uint8; margin, degrees: see MESH_VARIANTS. Returns (478, 2) in its pixels, or (0, 2)."""
        height, width = image.shape[:2]
        scale = MESH_SIDE / max(height, width) / (1 + 2 * margin)
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)
        size = [round(side * scale * (1 + 2 * margin)) for side in (width, height)]
        matrix[:, 2] += [(size[0] - width) / 2, (size[1] - height) / 2]
        seen = cv2.warpAffine(image, matrix, tuple(size), flags=cv2.INTER_CUBIC, borderValue=GREY)
        found = self._mesh.process(np.ascontiguousarray(seen)).multi_face_landmarks
        if not found:
            return np.empty((0, 2))
        # MediaPipe's 0..1 spans pixel edges, ours are pixel centres: half a pixel of the enlarged picture
        vertices = np.array([[p.x * size[0] - 0.5, p.y * size[1] - 0.5] for p in found[0].landmark])
        back = cv2.invertAffineTransform(matrix)
        return vertices @ back[:, :2].T + back[:, 2]


def teach_once(teacher, image, points, variant):
    """The mesh's points aligned to the labels of one image: ((106, 2), residual), or (None, inf) where it sees no face.

    points: (106, 2) in pixels of `image`, NaN where there is no label. The residual is a fraction of the eye distance.
    A mesh that lies elsewhere in the picture (MAX_OFFSET) is of another face and counts as none.
    """
    vertices = teacher(image, *variant)
    if not len(vertices):
        return None, float("inf")
    estimates = points_from_mesh(vertices)
    using = MESH_GIVES & np.isfinite(points[:, 0])
    aligned = align(estimates, points, using)
    offset, residual = (
        np.linalg.norm(p - points, axis=1)[using].mean() / inter_ocular(points) for p in (estimates, aligned)
    )
    return (aligned, float(residual)) if offset <= MAX_OFFSET else (None, float("inf"))


def teach(teacher, image, points):
    """The mesh's points, aligned, meaned over the image and its mirror image; variants in turn until one fits.

    Arguments as teach_once. Returns ((106, 2), residual); the points are None where no variant fits (MAX_RESIDUAL).
    """
    width, best = image.shape[1], float("inf")
    for variant in MESH_VARIANTS:
        plain = teach_once(teacher, image, points, variant)
        aligned, residual = teach_once(teacher, image[:, ::-1], flip_points(points, width), variant)
        mirrored = (None if aligned is None else flip_points(aligned, width), residual)
        fitting = [found for found in (plain, mirrored) if found[1] <= MAX_RESIDUAL]
        best = min(best, plain[1], mirrored[1])
        if fitting:
            return np.mean([p for p, _ in fitting], axis=0), float(np.mean([r for _, r in fitting]))
    return None, best


def complete(points68, image, teacher):
    """All 106 points of one face.

    points68: (68, 2), (x, y) pixels of image, iBUG order; image: (H, W, 3) RGB uint8; teacher: MeshTeacher or its like.
    Returns points (106, 2), sources (106,) int and the mesh's residual (fraction of the inter-ocular distance).
    """
    points, sources = complete_by_geometry(points68)
    labels = np.where((sources == LABEL)[:, None], points, np.nan)
    estimates, residual = teach(teacher, image, labels)
    carried = {} if estimates is None else carry(estimates, labels)
    for index, place in carried.items():
        if index not in PUPILS:
            points[index], sources[index] = place, TEACHER
    place_pupils(points, sources, carried)
    points[sources == NONE] = 0.0
    return points, sources, residual


def read_rows(path):
    """Yield (image name, source name, (68, 2) points) of a landmarks68.csv."""
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if len(header) != 2 + 2 * len(IBUG68):
            raise SystemExit(f"{path}: {len(header)} columns, wanted image,source,x0,y0,...,x67,y67 (138); check --csv")
        for row in reader:
            try:
                yield row[0], row[1], np.array(row[2:], dtype=float).reshape(-1, 2)
            except ValueError as error:
                raise SystemExit(f"{path}, line {reader.line_num}: {error}; every row needs all 68 points") from error


def header106():
    """Column names of the completed file."""
    return ["image", "source", *(f"{name}{i}" for i in range(NUM_POINTS) for name in "xys")]


def row106(image, source, points, sources):
    """One line of the completed file: hundredths of a pixel, as the labels."""
    return [image, source, *(v for (x, y), s in zip(points, sources) for v in (f"{x:.2f}", f"{y:.2f}", int(s)))]


def complete_file(csv_path, images, out, teacher):
    """Complete every row of csv_path and write out; returns (names, residuals (N,), sources (N, 106))."""
    names, residuals, all_sources, lines = [], [], [], [header106()]
    for name, source, points68 in read_rows(csv_path):
        image = cv2.imread(str(images / name))
        if image is None:
            raise SystemExit(f"{images / name}: missing or unreadable, named in {csv_path}; check --images")
        points, sources, residual = complete(points68, cv2.cvtColor(image, cv2.COLOR_BGR2RGB), teacher)
        lines.append(row106(name, source, points, sources))
        names.append(name)
        residuals.append(residual)
        all_sources.append(sources)
    partial = out.with_suffix(out.suffix + ".part")
    with partial.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
    partial.replace(out)
    return names, np.array(residuals), np.array(all_sources)


def report(names, residuals, sources):
    """Lines that say how it went."""
    untaught = [n for n, r in zip(names, residuals) if r > MAX_RESIDUAL]
    seen = residuals[np.isfinite(residuals)]
    quantiles = ", ".join(f"{q} %: {np.percentile(seen, q):.3f}" for q in (50, 90, 99, 100)) if len(seen) else "none"
    closed = (sources[:, list(PUPILS)] == GEOMETRY).sum()
    yield f"{len(names)} faces, {len(untaught)} without teacher: {' '.join(untaught) or '-'}"
    yield f"mesh to labels after alignment, fractions of the inter-ocular distance: {quantiles} (bar {MAX_RESIDUAL})"
    share = (sources[:, list(TAUGHT_BY_TEACHER)] == TEACHER).mean()
    yield f"closed eyes: {closed}; placed by the teacher: {share:.2%} of the {len(TAUGHT_BY_TEACHER)} points it teaches"


def parser():
    """The command line; building it parses nothing."""
    p = argparse.ArgumentParser(description="Complete 68 iBUG points to 106 LaPa points (see the file's header).")
    p.add_argument("--csv", type=Path, required=True, help="image,source,x0,y0,...,x67,y67; pixels, 0-based")
    p.add_argument("--images", type=Path, required=True, help="folder of the images the CSV names")
    p.add_argument("--out", type=Path, required=True, help="file to write: image,source,x0,y0,s0,...,x105,y105,s105")
    return p


def main():
    args = parser().parse_args()
    for line in report(*complete_file(args.csv, args.images, args.out, MeshTeacher())):
        print(line)


if __name__ == "__main__":
    main()
