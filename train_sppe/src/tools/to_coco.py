"""COCO keypoint JSON, for other people's tools: annotations, results, and their score (OKS) by pycocotools.

    python tools/to_coco.py truth --dataset lapa --dataRoot LaPa --split val --out truth.json
    python tools/to_coco.py results --results OUTDIR/alphapose-results.json --truth truth.json --out results.json
    python tools/to_coco.py score --truth truth.json --results results.json
    python tools/to_coco.py labels --results OUTDIR/alphapose-results.json --images INDIR \
        --out coco/annotations/person_keypoints_default.json

truth writes a data set's annotations; results, what demo.py found on its pictures, as COCO's servers and pycocotools
take it; labels, what demo.py found as annotations, to be looked at and corrected in CVAT, FiftyOne or Datumaro. Names
of pictures are relative to --images, which must be demo.py's --indir. doc/tools.md shows each.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[3]), str(Path(__file__).resolve().parents[1])]

import numpy as np

from face import coco_annotation, coco_category
from SPPE.src.landmarks import FLIP_ORDER, IBUG68, NUM_POINTS, PART_OF, PARTS
from SPPE.src.utils.files import write_json
from SPPE.src.utils.imread import load_image
from utils.command import complaints
from utils.dataset import build_dataset
from utils.dataset.base import Annotations, boxes_of

# The spread of annotators at each iBUG point, in roots of the object's area, as COCO-WholeBody publishes it
# (Jin et al., "Whole-Body Human Pose Estimation in the Wild", ECCV 2020; its evaluation code).
# fmt: off
WHOLEBODY_FACE = (
    .042, .043, .044, .043, .040, .035, .031, .025, .020, .023, .029, .032, .037, .038, .043, .041, .045,  # contour
    .013, .012, .011, .011, .012, .012, .011, .011, .013, .015,  # brows
    .009, .007, .007, .007, .012, .009, .008, .016, .010,  # nose
    .017, .011, .009, .011, .009, .007, .013, .008, .011, .012, .010, .034,  # eyes
    .008, .008, .009, .008, .008, .007, .010, .008, .009, .009, .009, .007,  # outer lip
    .007, .008, .011, .008, .008, .008, .010, .008,  # inner lip
)
# fmt: on


def _sigmas() -> tuple[float, ...]:
    """One sigma a point of the 106, the same for a point and its mirror image.

    A point of iBUG's 68 takes theirs, the smaller of its pair's (one lower lid's is four times its mirror image's). A
    point between two of the contour takes their mean; any other the mean of its part's, a pupil that of the eyes'.
    """
    known = {index: WHOLEBODY_FACE[k] for k, index in enumerate(IBUG68)}
    known = {i: min(sigma, known[FLIP_ORDER[i]]) for i, sigma in known.items()}

    def near(i: int) -> tuple[int, ...]:
        if PART_OF[i] == "contour":
            return (i - 1, i + 1)
        own = ("left_eye", "right_eye") if PART_OF[i] == "pupils" else (PART_OF[i], PART_OF[FLIP_ORDER[i]])
        return tuple(k for part in sorted(set(own)) for k in PARTS[part] if k in known)

    return tuple(
        round(known[i] if i in known else float(np.mean([known[k] for k in near(i)])), 4) for i in range(NUM_POINTS)
    )


SIGMAS = _sigmas()

CATEGORY = coco_category()
FRAME = {"description": "106 facial landmarks, (0, 0) is the middle of the first pixel", "version": "1"}
STATS = ("AP", "AP50", "AP75", "AP medium", "AP large", "AR", "AR50", "AR75", "AR medium", "AR large")


def annotation(number: int, image: int, points: np.ndarray, visible: np.ndarray, box: np.ndarray) -> dict:
    """COCO's annotation of one face: points (106, 2), visible (106,) 0 absent, 1 hidden, 2 visible, box (4,)."""
    own = {"id": number, "image_id": image, "category_id": CATEGORY["id"], "segmentation": []}
    return own | coco_annotation(points, visible, box)


def document(names: list[str], folder: Path, annotations: list[dict]) -> dict:
    """A whole COCO file; names are those of the pictures, in the order of their ids, below folder."""
    images = []
    for number, name in enumerate(names, 1):
        height, width = load_image(folder / name).shape[:2]  # upright, as the points are
        images.append({"id": number, "file_name": name, "width": width, "height": height})
    return {"info": FRAME, "licenses": [], "images": images, "annotations": annotations, "categories": [CATEGORY]}


def truth(data: Annotations, folder: Path) -> dict:
    """A data set's annotations; ValueError for a picture outside folder."""
    outside = next((path for path in data.images if not path.is_relative_to(folder)), None)
    if outside:
        raise ValueError(f"{outside} is not below {folder}; say --images FOLDER, one that all pictures are below")
    names = list(dict.fromkeys(path.relative_to(folder).as_posix() for path in data.images))
    ids = {name: number for number, name in enumerate(names, 1)}
    rows = zip(data.images, data.points, data.visible, data.boxes)
    faces = [
        annotation(i, ids[path.relative_to(folder).as_posix()], points.astype(float), visible.astype(int), box)
        for i, (path, points, visible, box) in enumerate(rows, 1)
    ]
    return document(names, folder, faces)


def labels(found: list[dict], folder: Path) -> dict:
    """What demo.py found, as annotations."""
    names = list(dict.fromkeys(entry["image_id"] for entry in found))
    ids = {name: number for number, name in enumerate(names, 1)}
    faces = []
    for number, entry in enumerate(found, 1):
        points = np.array(entry["keypoints"]).reshape(-1, 3)[:, :2]
        box = boxes_of(points[None].astype(np.float32), np.ones((1, len(points))))[0]
        face = annotation(number, ids[entry["image_id"]], points, np.full(len(points), 2), box)
        faces.append({**face, "attributes": {"score": entry["score"]}})
    return document(names, folder, faces)


def results(found: list[dict], truth: dict) -> list[dict]:
    """What demo.py found on the pictures of truth, their names replaced by truth's ids.

    Raises:
        ValueError: it found nothing on any of them.
    """
    ids = {image["file_name"]: image["id"] for image in truth["images"]}
    own = [
        {**entry, "image_id": ids[entry["image_id"]], "category_id": CATEGORY["id"]}
        for entry in found
        if entry["image_id"] in ids
    ]
    if not own:
        raise ValueError(
            f"none of the {len(found)} faces is on one of the {len(ids)} pictures of --truth; "
            "their names must be relative to the same folder: demo.py's --indir and --images here"
        )
    return own


def score(truth: Path, found: Path) -> dict[str, float]:
    """COCO's ten figures of keypoints by pycocotools, with SIGMAS.

    Raises:
        ValueError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ValueError(f"scoring needs pycocotools ({error}): pip install pycocotools") from error
    with contextlib.redirect_stdout(io.StringIO()):  # it tells each step
        expected = COCO(str(truth))
        evaluation = COCOeval(expected, expected.loadRes(str(found)), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(SIGMAS)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(STATS, evaluation.stats.tolist()))


def read_json(path: Path, kind: type):
    """A file's content; ValueError where it is no JSON of that kind, FileNotFoundError where it is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}; give demo.py's own format")
    return content


def found_faces(path: Path) -> list[dict]:
    """alphapose-results.json of demo.py --format alphapose with 106 points a face."""
    found = read_json(path, list)
    for number, entry in enumerate(found):
        if not isinstance(entry, dict) or len(entry.get("keypoints", ())) != 3 * NUM_POINTS:
            raise ValueError(f"{path}, entry {number}: not a face of {NUM_POINTS} points of demo.py --format alphapose")
    return found


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, options in {
        "truth": ("dataset", "dataRoot", "split", "images", "out"),
        "results": ("results", "truth", "out"),
        "labels": ("results", "images", "out"),
        "score": ("results", "truth"),
    }.items():
        own = verbs.add_parser(verb)
        for name in options:
            optional = verb == "truth" and name == "images"
            default = {"dataset": "dt_fac_106_ldmks", "split": "val"}.get(name)
            paths = Path if name not in ("dataset", "split") else str
            own.add_argument(f"--{name}", type=paths, default=default, required=not (optional or default))
    return parser


def write(args: argparse.Namespace) -> Iterator[str]:
    """Do what the command says; yields what to tell."""
    if args.verb == "score":
        known, found = read_json(args.truth, dict), read_json(args.results, list)
        if not {entry.get("image_id") for entry in found} <= {image["id"] for image in known["images"]}:
            raise ValueError(
                f"{args.results} is not about the pictures of {args.truth}; run `to_coco.py results` first"
            )
        yield from (f"{name:<10} {value:6.3f}" for name, value in score(args.truth, args.results).items())
        yield f"{len(known['annotations'])} faces in {len(known['images'])} pictures; sigmas of doc/tools.md"
        return
    if args.verb == "truth":
        data = build_dataset(args.dataset, args.dataRoot, args.split)
        content = truth(data, args.images or args.dataRoot)
    elif args.verb == "labels":
        content = labels(found_faces(args.results), args.images)
    else:
        content = results(found_faces(args.results), read_json(args.truth, dict))
    write_json(content, args.out)
    faces = content if isinstance(content, list) else content["annotations"]
    yield f"{args.out}: {len(faces)} faces"


def main(argv: list[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    with complaints("to_coco.py"):
        for line in write(args):
            print(line)


if __name__ == "__main__":
    main()
