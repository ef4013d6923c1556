"""Parametric pose NMS for any number of points (Fang et al., "RMPE", ICCV 2017, section 3.3), and result formats.

AlphaPose tuned the constants on 17 joints of persons, in pixels. Here each says what it was and how it carries over:
sums over joints scale with the number of points, pixel distances with the size of the face.
"""

import csv
import hashlib
import io
import itertools
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from SPPE.src.landmarks import IBUG68, NAMES, NUM_POINTS, PUPILS
from SPPE.src.utils.files import write_json, write_whole

TUNED_JOINTS = 17
GAMMA = 22.48 / TUNED_JOINTS  # similarity a point, above which two poses are one
MATCHED = 5 / TUNED_JOINTS  # share of matching points from which two poses are one
MU = 1.7  # weight of the spatial against the confidence similarity
DELTA1 = 1.0  # confidence scale inside tanh
SCORE_THRESHOLD = 0.3  # a pose whose best point is below this is dropped

# A pixel distance was tuned on persons of COCO, in image pixels. Ours is the same fraction of a face as AlphaPose's is
# of a person who just fills its 320-pixel crop (box and 30 %), the size at which its network sees pixel by pixel:
PERSON_PIXELS = 320 / 1.3
NEAR = 1.0 / PERSON_PIXELS  # closer than this, confidences count towards the similarity
DELTA2 = 2.65 / PERSON_PIXELS  # decay of the spatial similarity
MATCH_DISTANCE = 7.0 / PERSON_PIXELS  # (0.028) a point matches
MERGE_DISTANCE = 15.0 / PERSON_PIXELS  # (0.061) a point is averaged
# as fractions of the longer side of the better pose's box. AlphaPose bounds 7 and 15 by 0.1 of that side too, which is
# larger than both fractions and so never decides.

# AlphaPose's score of a pose: mean point + box + 1.25 * best point.
BEST_POINT_WEIGHT = 1.25

MIN_SCORE = 1e-5
MAX_NAME_BYTES = 255  # of a file, on the common file systems
VERSION = "AlphaPose v0.2"
FORMATS = ("alphapose", "cmu", "open", "csv", "pts", "npz")
PTS_FIRST_PIXEL = 1  # .pts files count pixels from 1, as 300-W's do


def pose_nms(
    boxes: np.ndarray, box_scores: np.ndarray, points: np.ndarray, scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keep one pose of each face, averaged over its duplicates.

    Args:
        boxes: (N, 4) x1 y1 x2 y2; box_scores: (N,).
        points: (N, K, 2) x y; scores: (N, K). All in image pixels.
    Returns:
        index (M,) of the kept detections, best first; points (M, K, 2); scores (M, K); pose scores (M,).
    """
    if not len(points):
        return np.zeros(0, int), points, scores, np.zeros(0, np.float32)
    scores = np.maximum(scores, MIN_SCORE)
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(axis=1).clip(min=1)  # (N,)
    same = _same_pose(points, scores, sizes)
    left = np.ones(len(points), bool)
    kept, means, mean_scores = [], [], []
    for pick in np.argsort(-scores.mean(axis=1), kind="stable"):
        if not left[pick]:
            continue
        cluster = np.flatnonzero(same[pick] & left)
        left[cluster] = False
        distance = np.linalg.norm(points[cluster] - points[pick], axis=-1) / sizes[pick]  # (C, K)
        weights = scores[cluster] * (distance <= MERGE_DISTANCE)
        weights /= weights.sum(axis=0)
        kept.append(pick)
        means.append((points[cluster] * weights[..., None]).sum(axis=0))
        mean_scores.append((scores[cluster] * weights).sum(axis=0))
    index, merged, merged_scores = np.array(kept), np.stack(means), np.stack(mean_scores)
    good = merged_scores.max(axis=1) >= SCORE_THRESHOLD
    index, merged, merged_scores = index[good], merged[good], merged_scores[good]
    pose_scores = (
        merged_scores.mean(axis=1) + box_scores[index] + BEST_POINT_WEIGHT * merged_scores.max(axis=1, initial=0)
    )
    return index, merged.astype(np.float32), merged_scores.astype(np.float32), pose_scores.astype(np.float32)


def _same_pose(points: np.ndarray, scores: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Whether each pose (row) takes another (column) for itself: (N, N) bool, the distances in sizes of the row's.

    Only poses whose points' boxes touch are compared, so a crowd costs what its neighbours cost.
    """
    low, high = points.min(axis=1), points.max(axis=1)  # (N, 2)
    touch = ((low[:, None] <= high[None]) & (low[None] <= high[:, None])).all(axis=2)
    same = np.eye(len(points), dtype=bool)
    row, column = np.nonzero(touch & ~same)
    distance = np.linalg.norm(points[row] - points[column], axis=-1) / sizes[row, None]  # (P, K)
    confidence = np.tanh(scores / DELTA1)
    soft = np.where(distance <= NEAR, confidence[row] * confidence[column], 0)  # RMPE, equation 8
    similarity = (soft + MU * np.exp(-distance / DELTA2)).mean(axis=1)  # equations 9 and 10
    matched = (distance <= MATCH_DISTANCE).mean(axis=1)
    same[row, column] = (similarity > GAMMA) | (matched >= MATCHED)
    return same


def result_entries(name: str, faces: list) -> list[dict]:
    """The entries of alphapose-results.json for one picture; faces are `predictor.Face`s."""
    return [
        {
            "image_id": name,
            "category_id": 1,
            "keypoints": _triples(face.landmarks, face.confidence),
            "score": round(float(face.pose_score), 4),
            **({} if face.idx is None else {"idx": face.idx}),
        }
        for face in faces
    ]


def picture_entry(faces: list, form: str) -> dict:
    """One picture's entry in --format cmu or open; the 70 face points in OpenPose's own order and field.

    OpenPose's face is iBUG's 68 points and the pupils (OpenPose documentation, "Output", face_keypoints_2d).
    """
    people = []
    for face in faces:
        points, confidence = face.landmarks, face.confidence
        everything = _triples(points, confidence)
        openpose = []
        if len(points) == NUM_POINTS:
            own = np.vstack([face.to_68(), points[list(PUPILS)]])
            openpose = _triples(own, confidence[[*IBUG68, *PUPILS]])
        if form == "cmu":
            people.append({"joints": everything, "face_keypoints_2d": openpose})
        else:
            body = [] if openpose else everything
            hands: dict[str, list] = {"hand_left_keypoints_2d": [], "hand_right_keypoints_2d": []}
            people.append({"pose_keypoints_2d": body, "face_keypoints_2d": openpose, **hands})
    return {"version": VERSION, "bodies" if form == "cmu" else "people": people}


def _triples(points: np.ndarray, confidence: np.ndarray) -> list[float]:
    return [round(float(v), 3) for v in np.column_stack([points, confidence]).ravel()]


def name_with(name: str, suffix: str) -> str:
    """A result's file name after its picture's; the hash of a name that the suffix would make too long."""
    path = Path(name)
    longer = path.name + suffix
    if len(os.fsencode(longer)) > MAX_NAME_BYTES:
        longer = hashlib.sha1(os.fsencode(path.name)).hexdigest() + suffix
    return str(path.with_name(longer))


def short_name(name: str, suffix: str, taken: set[str]) -> str:
    """As `name_with`, without the picture's extension where that is not in `taken` (a.jpg beside a.png); adds it."""
    stems = itertools.chain([str(Path(name).with_suffix("")), name], (f"{name}-{i}" for i in itertools.count(2)))
    own = next(own for own in (name_with(stem, suffix) for stem in stems) if own not in taken)
    taken.add(own)
    return own


def write_results(pictures: dict[str, list], outdir: Path, form: str = "alphapose", times: dict | None = None) -> Path:
    """Write the results in a format of `FORMATS`.

    Args:
        pictures: name -> faces, in input order.
        times: name -> seconds, of a video's frames; csv and npz have them.
    Returns:
        the file, or for pts the folder of files.
    Raises:
        ValueError: unknown format.
    """
    if form not in FORMATS:
        raise ValueError(f"unknown --format {form!r}; choose one of {', '.join(FORMATS)}")
    path = results_file(outdir, form)
    if form == "pts":
        write_pts(pictures, path)
    elif form == "csv":
        write_whole(_csv_lines(pictures, times or {}), path)
    elif form == "npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **result_arrays(pictures, times or {}))  # type: ignore[arg-type]
        write_whole(buffer.getvalue(), path)
    elif form == "alphapose":  # face by face, so that an hour of video needs no more memory than its faces
        entries = (entry for name, faces in pictures.items() for entry in result_entries(name, faces))
        write_whole(_json_list(entries), path)
    else:
        content = {name: picture_entry(faces, form) for name, faces in pictures.items()}
        taken: set[str] = set()
        for name, entry in content.items():
            write_json(entry, outdir / "sep-json" / short_name(name, ".json", taken))
        tell_others(outdir / "sep-json", ".json", taken)
        write_json(content, path)
    return path


def results_file(outdir: Path, form: str) -> Path:
    """Where `write_results` writes: a file, or for pts a folder."""
    return outdir / {"pts": "pts", "csv": "landmarks.csv", "npz": "landmarks.npz"}.get(form, "alphapose-results.json")


def _json_list(entries: Iterable[dict]) -> Iterator[bytes]:
    """The bytes of `json.dumps(list(entries))`."""
    yield b"["
    for number, entry in enumerate(entries):
        yield (", " if number else "").encode() + json.dumps(entry).encode("ascii")
    yield b"]"


def write_pts(pictures: dict[str, list], folder: Path) -> None:
    """A .pts file a face: FOLDER/NAME.pts without the picture's extension, NAME_1.pts for the second face, ..."""
    taken: set[str] = set()
    first = {name: short_name(name, ".pts", taken) for name in pictures}  # a_1.jpg's is not a.jpg's second face
    for name, faces in pictures.items():
        for number, face in enumerate(faces):
            own = short_name(name, f"_{number}.pts", taken) if number else first[name]
            lines = [f"{x:.3f} {y:.3f}" for x, y in (face.landmarks + PTS_FIRST_PIXEL).tolist()]
            text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}", ""])
            write_whole(text.encode(), folder / own)
    folder.mkdir(parents=True, exist_ok=True)
    tell_others(folder, ".pts", taken)


def tell_others(folder: Path, suffix: str, own: set[str]) -> None:
    """Warn of files that this run did not write (an earlier one did, or a person): they are not deleted."""
    others = sorted({str(path.relative_to(folder)) for path in folder.rglob(f"*{suffix}")} - own)
    if others:
        warnings.warn(f"{folder} holds {len(others)} files that are not of this run, {others[0]} first", stacklevel=2)


def _head_pose(face) -> tuple[float, float, float]:
    """yaw, pitch, roll; not a number where the points have none."""
    try:
        return tuple(face.head_pose)
    except ValueError:
        return (np.nan,) * 3


def _csv_lines(pictures: dict[str, list], times: dict[str, float]) -> Iterator[bytes]:
    """A header and a line a face."""
    line = io.StringIO()
    writer = csv.writer(line, lineterminator="\n")

    def written(row: list) -> bytes:
        line.seek(0)
        line.truncate()
        writer.writerow(row)
        return line.getvalue().encode("utf-8", "backslashreplace")  # names that are not text come out as escapes

    count = next((len(face.landmarks) for faces in pictures.values() for face in faces), NUM_POINTS)
    names = ["image", "time", "face", "idx", "score", "pose_score"]
    names += ["left", "top", "right", "bottom", "yaw", "pitch", "roll"]
    yield written(names + [f"{kind}{i}" for i in range(count) for kind in "xyc"])
    for name, faces in pictures.items():
        for number, face in enumerate(faces):
            own = [name, times.get(name, ""), number, "" if face.idx is None else face.idx]
            scores = [round(float(face.score), 4), round(float(face.pose_score), 4)]
            box = [round(float(v), 3) for v in face.box]
            pose = [round(v, 2) for v in _head_pose(face)]
            yield written([*own, *scores, *box, *pose, *_triples(face.landmarks, face.confidence)])


def result_arrays(pictures: dict[str, list], times: dict[str, float]) -> dict[str, np.ndarray]:
    """A row a face, F in all: image (F,) text, landmarks (F, K, 2), confidence (F, K), boxes (F, 4), head_pose (F, 3)
    yaw pitch roll, score, pose_score, idx (0: none), time (nan: none); and names (K,) of the points.
    """
    faces = [(name, face) for name, own in pictures.items() for face in own]
    count = len(faces[0][1].landmarks) if faces else NUM_POINTS

    def rows(values: Iterable, *shape: int, dtype=np.float32) -> np.ndarray:
        return np.array(list(values), dtype).reshape(len(faces), *shape)

    return {
        "image": np.array([os.fsencode(name).decode("utf-8", "backslashreplace") for name, _ in faces], dtype=np.str_),
        "landmarks": rows((face.landmarks for _, face in faces), count, 2),
        "confidence": rows((face.confidence for _, face in faces), count),
        "boxes": rows((face.box for _, face in faces), 4),
        "score": rows(face.score for _, face in faces),
        "pose_score": rows(face.pose_score for _, face in faces),
        "idx": rows((face.idx or 0 for _, face in faces), dtype=np.int64),
        "time": rows((times.get(name, np.nan) for name, _ in faces), dtype=np.float64),
        "head_pose": rows((_head_pose(face) for _, face in faces), 3),
        "names": np.array(NAMES if count == NUM_POINTS else [str(i) for i in range(count)]),
    }
