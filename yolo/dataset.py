"""Training pictures of the face detector: labelled photographs, landmark crops and rendered heads, composed afresh
for every step.

Everything is decoded once into memory (uint8). A training picture is a square canvas on which one picture, or four
around a random point (mosaic: Bochkovskiy et al. 2020, "YOLOv4", section 3.3), or nine in a grid, or single crops and
heads over a face-free background are laid, each by one affine; the boxes follow it. Some show no face at all.
Coordinates are (x, y) pixels, pictures (H, W, 3) RGB uint8.
"""

import csv
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import h5py
import numpy as np
import torch

from SPPE.src.utils.imread import load_image

from .bbox import face_box, iou_matrix

# One part in ten of each source, by sorted name, is never trained on.
VALIDATION_SHARE = 10
# Of 68 landmarks; columns of landmarks68.csv: image, source, x0, y0, ..., x67, y67.
CSV_POINTS = 68
# Sources whose names end in the number of the face in the photograph.
FACE_NUMBERED = ("afw_", "helen_train_")
# Two labels of one face.
SAME_FACE_IOU = 0.3
# A face cut by the border stays a face while this much of its box is seen; below MIN_SEEN nothing of it is left to be
# seen.
FACE_SEEN, MIN_SEEN = 0.4, 0.1
# Smaller faces carry no more signal than noise: they are ignored, not taught. (The aim starts at 12 px.)
MIN_FACE = 8
# Of the single pictures this part shows a face of a third of the canvas or more: a portrait must never be missed, and
# among all sizes drawn alike those would be one in seven.
LARGE_SHARE = 0.6
# How the canvas is filled: nine small pictures, four, crops and heads over a background, nothing; else one picture.
GRID_SHARE, MOSAIC_SHARE, PASTE_SHARE, EMPTY_SHARE = 0.12, 0.4, 0.18, 0.06
# The tiles: rendered heads where there are any, landmark crops, and for the rest photographs. Few heads: the network is
# for photographs, and rendered ones are to show it poses and things before the face that photographs show seldom.
HEAD_SHARE, CROP_SHARE = 0.12, 0.26
# Of what is pasted over a background this part is heads, where there are any.
PASTED_HEAD_SHARE = 0.5
# Turned pictures, and the part of these that is turned by more, as heads on pillows and grass are.
ROTATE_SHARE, MAX_ROTATION = 0.4, 40
TILT_SHARE, MAX_TILT = 0.15, 100
# A pasted head is cut out by an ellipse this much larger than its box, and fades over this part of it: a square's edge
# would be what gives the face away.
HEAD_ROOM, HEAD_FADE = 1.7, 0.25
# Nine pictures in a grid: so large are their faces at most, in parts of a cell.
GRID, GRID_LARGEST = 3, 0.7
# Enlarging further shows only blur.
MAX_SCALE = 3.0
# A picture's longer side fills at least this part of its region's: smaller ones would leave the canvas empty.
LEAST_FILL = 0.6
# Copies at 1, 1/2, 1/4, 1/8: what a photograph of 800 px needs to become a tile of a mosaic.
LEVELS = 4
# Rendered heads held in memory (0.25 MB each), evenly over the set.
HEADS = 2000


class Sample(NamedTuple):
    """A picture, its faces and the places where nobody knows."""

    name: str
    source: str  # the collection it comes from
    levels: tuple  # the picture (H, W, 3) RGB uint8, then halved, again and again
    boxes: np.ndarray  # (N, 4) float32
    ignore: np.ndarray  # (M, 4) float32

    @property
    def image(self):
        return self.levels[0]


def read_levels(path):
    """A picture file -> (H, W, 3) RGB uint8 and its halved, quartered ... copies: a shrunk face is then one quick
    sampling away.

    Raises UnreadableImage (a ValueError) for a file that is no whole picture.
    """
    levels = [load_image(path)]
    for _ in range(LEVELS - 1):
        height, width = (max(1, n // 2) for n in levels[-1].shape[:2])
        levels.append(cv2.resize(levels[-1], (width, height), interpolation=cv2.INTER_AREA))
    return tuple(levels)


def _boxes(rows):
    return np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)


def load_labels(path):
    """The file that yolo.label writes -> {imgname: (boxes (N, 4), ignore (M, 4))}."""
    try:
        rows = json.loads(Path(path).read_text())
        return {row["imgname"]: (_boxes(row["boxes"]), _boxes(row["ignore"])) for row in rows}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no file of labels ({error!r}); yolo.label writes one") from error


def load_scenes(folder, labels):
    """The labelled photographs of a folder, by name."""
    known = load_labels(labels)
    return [Sample(name, name.split("_")[0], read_levels(Path(folder) / name), *known[name]) for name in sorted(known)]


def relabel(scenes, labels):
    """The same photographs with the boxes of another file of labels. Raises ValueError where it lacks one of them."""
    known = load_labels(labels)
    missing = [scene.name for scene in scenes if scene.name not in known]
    if missing:
        raise ValueError(f"{labels}: knows nothing of {missing[0]} ({len(missing)} photographs are missing)")
    return [scene._replace(boxes=known[scene.name][0], ignore=known[scene.name][1]) for scene in scenes]


def load_crops(folder, table, labels=None):
    """Face crops with 68 landmarks, by name.

    folder: the crops; table: the CSV of landmarks; labels: what yolo.label found on them, for the other faces in a
    crop. The crop's own box comes from its landmarks.
    """
    known = load_labels(labels) if labels else {}
    samples = []
    with Path(table).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    for row in sorted(rows):
        try:
            points = torch.tensor([float(value) for value in row[2:]]).view(1, CSV_POINTS, 2)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"{table}, {row[:1]}: image,source,x0,y0,...,x67,y67 expected, {len(row)} cells"
            ) from error
        own = face_box(points)
        boxes, ignore = known.get(row[0], (_boxes([]), _boxes([])))
        boxes, ignore = (b[iou_matrix(torch.from_numpy(b), own)[:, 0].numpy() < SAME_FACE_IOU] for b in (boxes, ignore))
        samples.append(
            Sample(row[0], row[1], read_levels(Path(folder) / row[0]), np.concatenate((own.numpy(), boxes)), ignore)
        )
    return samples


def load_heads(folder, count=HEADS):
    """`count` rendered heads of a data set in the `dt_fac_106_ldmks` form, evenly over its training part.

    folder: holds one annot_*.h5 (imgname, bndbox (N, 1, 4), split) and images/; train.txt goes before split. Raises
    ValueError where it does not, or where nothing is for training.
    """
    files = sorted(Path(folder).glob("annot_*.h5"))
    if len(files) != 1:
        raise ValueError(
            f"{folder}: {len(files)} files annot_*.h5 found, one expected (train_sppe/src/synth makes one)"
        )
    with h5py.File(files[0]) as table:
        names = table["imgname"].asstr()[:]
        boxes = table["bndbox"][:].reshape(-1, 1, 4).astype(np.float32)
        listed = any((Path(folder) / f"{part}.txt").is_file() for part in ("train", "val", "test"))
        if listed:
            listing = Path(folder) / "train.txt"
            rows = np.flatnonzero(np.isin(names, listing.read_text().split("\n") if listing.is_file() else []))
        else:
            rows = np.flatnonzero(table["split"].asstr()[:] == "train") if "split" in table else []
    if not len(rows):
        raise ValueError(f"{files[0]}: neither its `split` nor train.txt names a head to train on")
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]
    images = Path(folder) / "images"
    return [Sample(names[k], "rendered", read_levels(images / names[k]), boxes[k], _boxes([])) for k in rows]


def photograph_of(name):
    """afw_1051618982_1.jpg -> afw_1051618982: the crops of one photograph share it (LFPW numbers photographs only)."""
    return re.sub(rf"^((?:{'|'.join(FACE_NUMBERED)}).+)_\d{{1,2}}$", r"\1", Path(name).stem)


def split_crops(samples):
    """Crops -> (training, validation): the last tenth of each source by sorted name is validation."""
    train, valid = [], []
    for source in sorted({sample.source for sample in samples}):
        part = sorted((sample for sample in samples if sample.source == source), key=lambda sample: sample.name)
        first = len(part) - len(part) // VALIDATION_SHARE
        train += part[:first]
        valid += part[first:]
    return train, valid


def split(scenes, crops):
    """(scenes, crops) -> ((training scenes, training crops), (validation scenes, validation crops)).

    Crops as split_crops. Of the scenes, those that show a face of the validation crops, and every tenth of the
    others' sources. No photograph lies on both sides.
    """
    train_crops, valid_crops = split_crops(crops)
    cropped = {photograph_of(sample.name) for sample in crops}
    held = {photograph_of(sample.name) for sample in valid_crops}
    uncropped = [sample.name for sample in scenes if photograph_of(sample.name) not in cropped]
    tenth = set(uncropped[::VALIDATION_SHARE])
    valid_scenes = [s for s in scenes if s.name in tenth or photograph_of(s.name) in held]
    apart = {s.name for s in valid_scenes}
    train_scenes = [s for s in scenes if s.name not in apart]
    train_crops = [s for s in train_crops if photograph_of(s.name) not in held]
    return (train_scenes, train_crops), (valid_scenes, valid_crops)


def rotate_boxes(boxes, matrix):
    """boxes (N, 4) and an affine (2, 3) -> (N, 4): what encloses the turned face, taken as the ellipse inside its box.

    (The turned rectangle's own hull would be up to 40 % too wide.)
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    half = np.sqrt(half**2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate((centre - half, centre + half), 1).astype(np.float32)


def cut_boxes(boxes, ignore, region):
    """Boxes and ignored ones, cut to the region (x1, y1, x2, y2): a face that lies mostly outside becomes ignored."""
    low, high = np.array(region[:2] * 2, np.float32), np.array(region[2:] * 2, np.float32)

    def cut(b):
        inside = np.clip(b, low, high)
        whole = np.prod(b[:, 2:] - b[:, :2], axis=1) + 1e-6
        return inside, np.prod(inside[:, 2:] - inside[:, :2], axis=1) / whole

    boxes, seen = cut(boxes)
    size = (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0)
    face = (seen >= FACE_SEEN) & (size >= MIN_FACE)
    ignore, ignore_seen = cut(ignore)
    ignore = np.concatenate((ignore[ignore_seen >= MIN_SEEN], boxes[~face & (seen >= MIN_SEEN)]))
    return boxes[face], ignore


class Composer:
    """Makes training pictures out of samples; everything random comes from the generator it is given.

    scenes: photographs; crops: faces with landmarks; heads: rendered ones. The last two may be empty.
    """

    def __init__(self, scenes, crops, heads=()):
        self.scenes, self.crops, self.heads = scenes, crops, heads

    def __call__(self, size, rng):
        """-> (canvas (size, size, 3) RGB uint8, boxes (N, 4), ignore (M, 4))."""
        ways = (self.grid, self.mosaic, self.pasted, self.empty)
        shares = np.cumsum((GRID_SHARE, MOSAIC_SHARE, PASTE_SHARE, EMPTY_SHARE))
        way = (*ways, self.single)[np.searchsorted(shares, rng.random(), side="right")]
        canvas, boxes, ignore = way(size, rng)
        cover_faces(canvas, boxes, rng)
        return degrade(canvas, rng), boxes, ignore

    def draw(self, rng):
        """A sample of any kind."""
        kind = rng.random()
        if self.heads and kind < HEAD_SHARE:
            return pick(self.heads, rng)
        return pick(self.crops, rng) if self.crops and kind < HEAD_SHARE + CROP_SHARE else pick(self.scenes, rng)

    def single(self, size, rng):
        """One picture."""
        canvas = self.ground(size, rng)
        smallest = 0.3 * size if rng.random() < LARGE_SHARE else MIN_FACE
        return canvas, *self.lay(canvas, self.draw(rng), (0, 0, size, size), rng, 1.05 * size, smallest)

    def mosaic(self, size, rng):
        """Four pictures around a random point."""
        x, y = rng.integers(int(0.25 * size), int(0.75 * size), 2)
        return self.tiles(size, ((0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)), 0.5 * size, rng)

    def grid(self, size, rng):
        """Nine pictures of small faces."""
        spans = list(pairwise(np.linspace(0, size, GRID + 1).astype(int)))
        regions = [(x1, y1, x2, y2) for y1, y2 in spans for x1, x2 in spans]
        return self.tiles(size, regions, GRID_LARGEST * size / GRID, rng)

    def tiles(self, size, regions, largest, rng):
        """A picture in each region."""
        canvas = self.ground(size, rng)
        parts = [self.lay(canvas, self.draw(rng), region, rng, largest) for region in regions]
        return canvas, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def pasted(self, size, rng):
        """One to four crops or heads over a piece of a photograph without any face."""
        canvas, taken = self.background(size, rng), []
        for _ in range(rng.integers(1, 5)):
            side = int(np.exp(rng.uniform(np.log(24), np.log(0.95 * size))))
            x, y = rng.integers(0, size - side + 1, 2)
            region = (int(x), int(y), int(x) + side, int(y) + side)
            if any(x < r[2] and y < r[3] and r[0] < region[2] and r[1] < region[3] for r, _, _ in taken):
                continue
            if self.heads and rng.random() < PASTED_HEAD_SHARE:
                parts = self.lay(canvas, pick(self.heads, rng), region, rng, 0.6 * side, 0.3 * side, cut_out=True)
            elif self.crops:
                parts = self.lay(canvas, pick(self.crops, rng), region, rng, largest=0.8 * side, smallest=0.3 * side)
            else:
                continue
            taken.append((region, *parts))
        boxes = [b for _, b, _ in taken] or [_boxes([])]
        ignore = [i for _, _, i in taken] or [_boxes([])]
        return canvas, np.concatenate(boxes), np.concatenate(ignore)

    def empty(self, size, rng):
        """No face at all: a face-free window, or four."""
        if rng.random() < 0.5:
            return self.background(size, rng), _boxes([]), _boxes([])
        half = (size + 1) // 2
        rows = [np.concatenate([self.background(half, rng) for _ in range(2)], axis=1) for _ in range(2)]
        return np.ascontiguousarray(np.concatenate(rows)[:size, :size]), _boxes([]), _boxes([])

    def ground(self, size, rng):
        """What lies under the pictures: a face-free photograph or one colour."""
        return self.background(size, rng) if rng.random() < 0.5 else blank(size, rng)

    def background(self, size, rng, tries=8):
        """A face-free window of a photograph at the canvas's size, or a plain one where none is found."""
        for _ in range(tries):
            scene = pick(self.scenes, rng)
            height, width = scene.image.shape[:2]
            side = int(min(height, width) * rng.uniform(0.3, 0.7))
            x, y = rng.integers(0, width - side + 1), rng.integers(0, height - side + 1)
            faces = np.concatenate((scene.boxes, scene.ignore))
            if not ((faces[:, 0] < x + side) & (faces[:, 2] > x) & (faces[:, 1] < y + side) & (faces[:, 3] > y)).any():
                return resize(scene.image[y : y + side, x : x + side], size / side, (size, size))
        return blank(size, rng)

    def lay(self, canvas, sample, region, rng, largest, smallest=MIN_FACE, cut_out=False):
        """Draw a sample into a region (x1, y1, x2, y2) of the canvas at a random scale and turn -> (boxes, ignore)
        there. cut_out: the head alone, fading into what lies there.

        One of its faces is chosen and gets a size between the two bounds, every octave as likely as another, so that
        all sizes are seen equally often; it lands where it is seen whole if that can be.
        """
        x1, y1, x2, y2 = (int(v) for v in region)
        image = sample.image
        fit = max(x2 - x1, y2 - y1) / max(image.shape[:2])
        if len(sample.boxes):
            face = sample.boxes[rng.integers(len(sample.boxes))]
            wanted = np.exp(rng.uniform(np.log(smallest), np.log(max(largest, smallest + 1))))
            scale = wanted / max(face[2] - face[0], face[3] - face[1])
            focus = (face[:2] + face[2:]) / 2
        else:
            scale, wanted, focus = fit * np.exp(rng.uniform(-0.5, 1.0)), 0, np.array(image.shape[1::-1]) / 2
        scale = float(np.clip(scale, LEAST_FILL * fit, max(MAX_SCALE, LEAST_FILL * fit)))
        margin = min(0.5 * wanted, 0.5 * (x2 - x1), 0.5 * (y2 - y1)) * rng.uniform(0.5, 1)  # sometimes a face is cut
        target = np.array([rng.uniform(margin, x2 - x1 - margin), rng.uniform(margin, y2 - y1 - margin)])
        most = MAX_TILT if rng.random() < TILT_SHARE else MAX_ROTATION
        angle = np.deg2rad(rng.uniform(-most, most)) if rng.random() < ROTATE_SHARE else 0.0
        flip = -1.0 if rng.random() < 0.5 else 1.0

        turn = scale * np.array([[np.cos(angle) * flip, -np.sin(angle)], [np.sin(angle) * flip, np.cos(angle)]])
        matrix = np.concatenate((turn, (target - turn @ focus)[:, None]), 1)  # image pixels -> pixels of the region
        place = canvas[y1:y2, x1:x2]
        before = place.copy() if cut_out else None
        warp(sample.levels, matrix, scale, place)
        if cut_out:
            alpha = head_alpha(sample.boxes[0], matrix, place.shape)
            place[:] = before + alpha * (place.astype(np.float32) - before)
        offset = np.array([x1, y1, x1, y1], np.float32)
        boxes, ignore = (rotate_boxes(b, matrix) + offset for b in (sample.boxes, sample.ignore))
        return cut_boxes(boxes, ignore, (x1, y1, x2, y2))


def pick(pool, rng):
    return pool[rng.integers(len(pool))]


def head_alpha(box, matrix, shape):
    """How much of a pasted head is seen (h, w, 1), 0 to 1: an ellipse around its box (4,) of the sample, carried along
    by the affine (2, 3), that fades towards its edge.
    """
    height, width = shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32) + 0.5
    back = np.linalg.inv(matrix[:, :2])
    at = np.stack((x, y), -1) @ back.T - back @ matrix[:, 2] - (box[:2] + box[2:]) / 2
    radius = np.hypot(*np.moveaxis(at / (HEAD_ROOM / 2 * (box[2:] - box[:2])), -1, 0))
    return np.clip((1 - radius) / HEAD_FADE, 0, 1)[..., None].astype(np.float32)


def blank(size, rng):
    """An empty canvas: the letterbox's grey, or any colour."""
    colour = rng.integers(0, 256, 3) if rng.random() < 0.5 else (128, 128, 128)
    return np.full((size, size, 3), colour, np.uint8)


def resize(image, scale, shape):
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def warp(levels, matrix, scale, out):
    """Draw a picture, given in levels, through the affine `matrix` (2, 3) of the given scale over `out` (h, w, 3), in
    place.
    """
    level = int(np.clip(round(-np.log2(scale)), 0, len(levels) - 1))
    image = levels[level]
    height, width = levels[0].shape[:2]
    matrix = matrix @ np.diag([width / image.shape[1], height / image.shape[0], 1.0])
    # OpenCV counts from pixel centres, boxes from pixel corners: half a pixel either way.
    matrix[:, 2] += matrix[:, :2].sum(1) / 2 - 0.5
    shape = (out.shape[1], out.shape[0])
    out[:] = cv2.warpAffine(image, matrix, shape, np.ascontiguousarray(out), cv2.INTER_LINEAR, cv2.BORDER_TRANSPARENT)


def cover_faces(canvas, boxes, rng, share=0.25, smallest=16):
    """Hide a part of some faces, in place: a box of one colour, of noise or of another part of the canvas. A third of
    them lies over the mouth or the eyes from side to side, as a mask, a scarf or a neighbour's shoulder does.
    """
    size = canvas.shape[0]
    for x1, y1, x2, y2 in boxes:
        if rng.random() > share or x2 - x1 < smallest:
            continue
        width, height = x2 - x1, y2 - y1
        if rng.random() < 1 / 3:
            w, h = int(width), int(height * rng.uniform(0.25, 0.45))
            x, y = int(x1), int(y2 - h if rng.random() < 0.7 else y1 + 0.2 * height)
        else:
            w, h = int(width * rng.uniform(0.2, 0.6)), int(height * rng.uniform(0.2, 0.5))
            x, y = int(rng.uniform(x1, x2 - w)), int(rng.uniform(y1, y2 - h))
        x, y = np.clip(x, 0, size - w), np.clip(y, 0, size - h)
        kind = rng.integers(3)
        if kind == 0:
            patch = rng.integers(0, 256, 3)
        elif kind == 1:
            patch = rng.integers(0, 256, (h, w, 3))
        else:
            u, v = rng.integers(0, size - w + 1), rng.integers(0, size - h + 1)
            patch = canvas[v : v + h, u : u + w].copy()
        canvas[y : y + h, x : x + w] = patch


def degrade(canvas, rng):
    """Light, colour, grey, blur, noise, low resolution, JPEG: each on a part of the pictures."""
    tone = np.arange(256, dtype=np.float32) / 255
    gain, lift, gamma = rng.uniform(0.6, 1.4), rng.uniform(-0.12, 0.12), np.exp(rng.uniform(-0.4, 0.4))
    colour = rng.uniform(0.85, 1.15, 3)
    table = np.stack([(tone**gamma - 0.5) * gain * c + 0.5 + lift for c in colour], -1)
    canvas = cv2.LUT(canvas, (np.clip(table, 0, 1) * 255).astype(np.uint8)[None])
    size = canvas.shape[0]
    if rng.random() < 0.12:
        canvas = cv2.cvtColor(cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < 0.12:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 1.6))
    if rng.random() < 0.08:
        less = int(size * rng.uniform(0.4, 0.8))
        canvas = cv2.resize(cv2.resize(canvas, (less, less), interpolation=cv2.INTER_AREA), (size, size))
    if rng.random() < 0.1:
        noise = rng.normal(0, rng.uniform(3, 18), canvas.shape).astype(np.float32)
        canvas = np.clip(canvas + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        _, data = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 80))])
        canvas = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return canvas
