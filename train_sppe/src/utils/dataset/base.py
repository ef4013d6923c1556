"""What every landmark data set gives to training, and the AlphaPose-style HDF5 file that holds one.

HDF5 layout, N samples (AlphaPose's annot_coco.h5 with 106 instead of 17 points, and three optional additions):

    imgname          (N,) UTF-8 strings, or AlphaPose's (N, L) character codes; relative to the images folder
    bndbox           (N, 1, 4) or (N, 4) float, x1 y1 x2 y2 in image pixels
    part             (N, 106, 2) float, x y in image pixels, (0, 0) in the middle of the first pixel
    visible          (N, 106) uint8, optional: 0 not annotated, 1 annotated but hidden, 2 visible
    split            (N,) strings, optional: train, val, test
    attributes/NAME  (N,) strings, optional
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from SPPE.src.landmarks import FLIP_ORDER, IBUG68, MEAN_FACE, NUM_POINTS, align
from SPPE.src.utils.img import BOX_GROWTH, apply_affines, crop_affines, grow_boxes, warp_box
from SPPE.src.utils.imread import UnreadableImage, load_image
from yolo.bbox import face_box

from ..dpg import DPG

SPLITS = ("train", "val", "test")

# Datatang's published sizes; a file of another size is split in the same proportions, in its own order.
PUBLISHED_SIZES = {"train": 90_131, "val": 11_266, "test": 11_266}

# Fewer points do not say where the others are: their own extent is the box.
ENOUGH_FOR_A_BOX = 5


@dataclass
class Annotations:
    """N annotated faces.

    images: N paths; boxes: (N, 4) x1 y1 x2 y2; points: (N, 106, 2); visible: (N, 106) uint8 (0 not annotated,
    1 hidden, 2 visible); attributes: name -> (N,) strings. All coordinates in image pixels.
    """

    images: list[Path]
    boxes: np.ndarray
    points: np.ndarray
    visible: np.ndarray
    attributes: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: np.ndarray) -> "Annotations":
        return Annotations(
            [self.images[i] for i in rows],
            self.boxes[rows],
            self.points[rows],
            self.visible[rows],
            {name: values[rows] for name, values in self.attributes.items()},
        )

    def check(self, where: Callable[[int], str]) -> "Annotations":
        """Raise ValueError that names the place, `where(row)`, of the first malformed face; returns itself."""
        labelled = self.visible > 0
        finite = np.isfinite(self.points).all(axis=2) | ~labelled
        rules = {
            "a point that is not a finite number": ~finite.all(axis=1),
            "no annotated point": ~labelled.any(axis=1),
            "a box that is not x1 < x2, y1 < y2": ~(self.boxes[:, :2] < self.boxes[:, 2:]).all(axis=1),
        }
        for complaint, bad in rules.items():
            if bad.any():
                raise ValueError(f"{where(int(bad.argmax()))} has {complaint}; {int(bad.sum())} such rows")
        return self


def join(sources: list[Annotations]) -> Annotations:
    """Several sources as one, in their order; attributes are dropped where one lacks them."""
    names = set.intersection(*(set(data.attributes) for data in sources))
    return Annotations(
        [path for data in sources for path in data.images],
        *(np.concatenate([getattr(data, key) for data in sources]) for key in ("boxes", "points", "visible")),
        {name: np.concatenate([data.attributes[name] for data in sources]) for name in names},
    )


@dataclass
class Face:
    """One face as an annotation file gives it.

    image: path of its picture; points: (106, 2); visible: (106,), as in `Annotations`; where: file and row, for
    messages; box: (4,) x1 y1 x2 y2, or None to take it from the points.
    """

    image: Path
    points: np.ndarray
    visible: np.ndarray
    where: str
    box: np.ndarray | None = None
    attributes: dict[str, str] = field(default_factory=dict)


def collect(faces: Iterable[Face]) -> Annotations:
    """Join faces to annotations, checked; a face without a box gets the one that `yolo.bbox.face_box` draws.

    Raises:
        FileNotFoundError: a picture is missing; names the first, with its place, and counts the others.
        ValueError: as `Annotations.check`.
    """
    faces = list(faces)
    exists = {path: path.is_file() for path in {face.image for face in faces}}
    missing = [face for face in faces if not exists[face.image]]
    if missing:
        count = len(exists) - sum(exists.values())
        raise FileNotFoundError(f"{missing[0].where}: no picture at {missing[0].image}; {count} missing in all")
    points = np.array([face.points for face in faces], np.float32).reshape(-1, NUM_POINTS, 2)
    visible = np.array([face.visible for face in faces], np.uint8).reshape(-1, NUM_POINTS)
    boxes = boxes_of(points, visible)
    for row, face in enumerate(faces):
        if face.box is not None:
            boxes[row] = face.box
    names = sorted({name for face in faces for name in face.attributes})
    attributes = {name: np.array([face.attributes.get(name, "") for face in faces]) for name in names}
    annotations = Annotations([face.image for face in faces], boxes, points, visible, attributes)
    return annotations.check(lambda row: faces[row].where)


def boxes_of(points: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Face boxes (N, 4), image frame, of the annotated ones of points (N, 106, 2); visible is (N, 106).

    What a partly annotated face lacks is where the mean face has it, laid on the points that are there.
    """
    there = visible > 0
    first = np.take_along_axis(points, there.argmax(axis=1)[:, None, None], axis=1)
    # a repeated point changes no extent
    known = np.where(there[..., None], points, first)
    partly = ~there[:, list(IBUG68)].all(axis=1) & (there.sum(axis=1) >= ENOUGH_FOR_A_BOX)
    for row in np.flatnonzero(partly):
        mean = align(np.array(MEAN_FACE, float), points[row].astype(float), there[row])
        known[row] = np.where(there[row, :, None], points[row], mean)
    return face_box(torch.from_numpy(known)).numpy()


def read_h5(path: Path, images: Path, split: str | None = None) -> Annotations:
    """Read one split (all samples when None) of an HDF5 file; the layout is in this module's docstring.

    Raises:
        FileNotFoundError: no such file, folder or picture.
        ValueError: a data set is missing or has another shape; names the file, and the row where there is one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotations at {path}; tools/make_h5.py makes them from pictures and points")
    if not images.is_dir():
        raise FileNotFoundError(f"no pictures' folder at {images}; it belongs beside {path.name}")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not a whole HDF5 file ({error}); make it anew with tools/make_h5.py") from error
    with file:
        _check_shapes(path, file)
        names = _strings(file["imgname"])
        parts = file["part"][:].astype(np.float32)
        boxes = file["bndbox"][:].astype(np.float32).reshape(-1, 4)
        # AlphaPose marks an unannotated point by coordinates that are not positive
        visible = file["visible"][:] if "visible" in file else 2 * (parts > 0).all(axis=2).astype(np.uint8)
        attributes = {name: np.array(_strings(values)) for name, values in file.get("attributes", {}).items()}
        own_split = np.array(_strings(file["split"])) if "split" in file else None
    everything = Annotations([images / name for name in names], boxes, parts, visible.astype(np.uint8), attributes)
    everything.check(lambda row: f"{path}, row {row} ({names[row]})")
    rows = np.arange(len(names)) if split is None else _rows(split, names, own_split, path.parent)
    missing = [row for row in rows if not everything.images[row].is_file()]
    if missing:
        picture = everything.images[missing[0]]
        raise FileNotFoundError(f"{path}, row {missing[0]}: no picture at {picture}; {len(missing)} missing in all")
    return everything.take(rows)


def _check_shapes(path: Path, file: h5py.File) -> None:
    """Raise ValueError naming the first data set that is missing or misshapen."""
    missing = {"imgname", "bndbox", "part"} - set(file)
    if missing:
        raise ValueError(f"{path} lacks the data set(s) {', '.join(sorted(missing))}")
    count = len(file["imgname"])
    shapes = {
        "bndbox": [(count, 1, 4), (count, 4)],
        "part": [(count, NUM_POINTS, 2)],
        "visible": [(count, NUM_POINTS)],
        "split": [(count,)],
        **{f"attributes/{name}": [(count,)] for name in file.get("attributes", {})},
    }
    for name, allowed in shapes.items():
        if name in file and file[name].shape not in allowed:
            expected = " or ".join(map(str, allowed))
            raise ValueError(f"{path}: {name} is {file[name].shape}; {count} imgname need {expected}")


def write_h5(path: Path, data: Annotations, images: Path, split: np.ndarray | None = None) -> None:
    """Write annotations (and each sample's split); `data.images` lie under `images`. Temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    text = h5py.string_dtype("utf-8")
    with h5py.File(temporary, "w") as file:
        file["imgname"] = np.array([p.relative_to(images).as_posix() for p in data.images], dtype=text)
        file["bndbox"] = data.boxes[:, None].astype(np.float32)
        file["part"] = data.points.astype(np.float32)
        file["visible"] = data.visible.astype(np.uint8)
        if split is not None:
            file["split"] = np.array(split, dtype=text)
        for name, values in data.attributes.items():
            file[f"attributes/{name}"] = np.array(values, dtype=text)
    temporary.replace(path)


def link_pictures(out: Path, source: Path) -> None:
    """Make OUT/images a link to the folder whose pictures the labels of OUT are of.

    Raises:
        ValueError: there are other pictures.
    """
    link = out / "images"
    if link.is_symlink():
        link.unlink()
    if link.exists() and link.resolve() != source.resolve():
        raise ValueError(f"{link} holds other pictures; remove it, or choose another --out")
    if not link.exists():
        out.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve(), target_is_directory=True)


def _strings(values: h5py.Dataset) -> list[str]:
    if values.ndim == 2:  # AlphaPose stores the characters' codes, padded with zeros
        return ["".join(map(chr, row[row > 0].astype(int))) for row in values[:]]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values[:]]


def _rows(split: str, names: list[str], own: np.ndarray | None, folder: Path) -> np.ndarray:
    """Rows of a split: by FOLDER/{train,val,test}.txt, else by the file's own `split`, else by the published sizes."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if any((folder / f"{name}.txt").is_file() for name in SPLITS):
        return _listed_rows(folder / f"{split}.txt", names)
    if own is not None:
        return np.flatnonzero(own == split)
    total = sum(PUBLISHED_SIZES.values())
    ends = np.cumsum([PUBLISHED_SIZES[s] for s in SPLITS]) * len(names) // total
    start = dict(zip(SPLITS, (0, *ends[:-1])))[split]
    return np.arange(start, ends[SPLITS.index(split)])


def _listed_rows(listing: Path, names: list[str]) -> np.ndarray:
    """Rows of the pictures that a text file names, a name a line, in the annotations' order."""
    if not listing.is_file():
        raise FileNotFoundError(f"no {listing}, although another split beside it is given by such a file")
    wanted = [line.strip() for line in listing.read_text(encoding="utf-8-sig").split("\n")]
    known = set(names)
    for number, name in enumerate(wanted, 1):
        if name and name not in known:
            raise ValueError(f"{listing}, line {number}: {name!r} is not in the annotations")
    wanted = set(wanted)
    return np.array([row for row, name in enumerate(names) if name in wanted], dtype=int)


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random affine of a crop; all zero: none.

    Draws are cubes of uniform ones: half of the crops change by less than an eighth of the range, and some by all of
    it. Evenly drawn, the rare poses cost the usual ones: 3.48 instead of 3.35 % NME (doc/accuracy.md).

    scale: log2 range; 0.25 is a factor of 0.84 .. 1.19. rotate: degrees. shift: fraction of the crop's side.
    flip: probability.
    """

    scale: float = 0.25
    rotate: float = 30.0
    shift: float = 0.05
    flip: float = 0.5

    def affine(self, rng: np.random.Generator, out_h: int, out_w: int) -> tuple[np.ndarray, bool]:
        """A random affine (2, 3) crop -> crop about the crop's middle, and whether it mirrors."""
        turn, zoom, *shift = rng.uniform(-1, 1, 4) ** 3
        angle = np.deg2rad(self.rotate * turn)
        zoom = 2.0 ** (self.scale * zoom)
        mirror = bool(rng.random() < self.flip)
        cos, sin = zoom * np.cos(angle), zoom * np.sin(angle)
        linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([-1.0 if mirror else 1.0, 1.0])
        middle = np.array([(out_w - 1) / 2, (out_h - 1) / 2])
        offset = middle + self.shift * np.array(shift) * (out_w, out_h) - linear @ middle
        return np.column_stack([linear, offset]), mirror


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The affine (2, 3) that applies `inner` first, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def _load(path: Path) -> np.ndarray:
    try:
        return load_image(path)
    except UnreadableImage as error:  # its two arguments would not survive the way from a DataLoader's worker
        raise ValueError(str(error)) from None


class FaceDataset(Dataset):
    """Crops of annotated faces, augmented in one affine when training.

    A sample is a dict: crop (H, W, 3) uint8 RGB; points (106, 2) in crop pixels; mask (106,) float, 0 where nothing is
    annotated; affine (2, 3) image -> crop; index. Random numbers come from (seed, epoch, index) alone, so any number
    of workers, and a run that was resumed, see the same samples. Index (i, k) is face i drawn anew, for the k-th
    time that it comes again within an epoch.

    Args:
        data: the annotations.
        input_size: (h, w) of the crops.
        augmentation: None for validation.
        dpg: perturbs the boxes (stage 2), or None.
        seed: of the random numbers.
        cache: keep decoded pictures in memory (a small data set on a slow disk or few cores).
        growth: of the boxes, see `grow_boxes`.
    """

    def __init__(
        self,
        data: Annotations,
        input_size: tuple[int, int],
        augmentation: Augmentation | None = None,
        dpg: DPG | None = None,
        seed: int = 0,
        cache: bool = False,
        growth: float = BOX_GROWTH,
    ):
        self.data, self.input_size, self.augmentation, self.dpg = data, input_size, augmentation, dpg
        self.seed, self.growth = seed, growth
        self.epoch = torch.tensor(0).share_memory_()  # the loader's processes live on from epoch to epoch
        self.pictures = {path: _load(path) for path in dict.fromkeys(data.images)} if cache else {}

    def __len__(self) -> int:
        return len(self.data)

    def set_epoch(self, epoch: int) -> None:
        """Choose the random numbers of this epoch."""
        self.epoch.fill_(epoch)

    def __getitem__(self, index: int | tuple[int, int]) -> dict:
        index, time = index if isinstance(index, tuple) else (index, 0)
        path, box, points = self.data.images[index], self.data.boxes[index], self.data.points[index]
        image = self.pictures[path] if path in self.pictures else _load(path)
        rng = np.random.default_rng((self.seed, self.epoch.item(), index, time))
        if self.dpg is not None:
            box = self.dpg(box, points, rng, self.data.visible[index] > 0)
        height, width = image.shape[:2]
        box = grow_boxes(box[None], width, height, self.growth)[0]
        affine, mirrored = crop_affines(box[None], *self.input_size)[0], False
        if self.augmentation is not None:
            change, mirrored = self.augmentation.affine(rng, *self.input_size)
            affine = compose(change, affine)
        crop = warp_box(image, box, affine, *self.input_size)
        points, mask = apply_affines(affine, points.astype(np.float64)), self.data.visible[index] > 0
        if mirrored:  # the affine has mirrored x already: only left and right remain to be swapped
            points, mask = points[list(FLIP_ORDER)], mask[list(FLIP_ORDER)]
        return {
            "crop": torch.from_numpy(crop),
            "points": torch.from_numpy(np.where(mask[:, None], points, 0).astype(np.float32)),
            "mask": torch.from_numpy(mask.astype(np.float32)),
            "affine": torch.from_numpy(affine),
            "index": index,
        }


def make_loader(faces: FaceDataset, batch: int, workers: int, **options) -> DataLoader:
    """Batches of faces, read by processes: `workers` of them, but no more than cores. options: DataLoader's own.

    The processes are the parallelism, so OpenCV keeps to one thread in each; and in this one, since a pool of threads
    that has been used here would hang the processes that are forked from it.
    """
    cv2.setNumThreads(1)
    workers = min(workers, os.cpu_count() or 1)
    options = {"num_workers": workers, "persistent_workers": workers > 0, "worker_init_fn": _one_thread, **options}
    return DataLoader(faces, batch, **options)


def _one_thread(_: int) -> None:
    cv2.setNumThreads(1)
