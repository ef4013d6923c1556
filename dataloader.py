"""What is read and how it flows: sources, decoding, batches, and stages that run in their own threads.

A stage is a generator: an iterable of items in, an iterator of items out, in the same order. `ordered_map` runs a
stage's function in threads of its own; `prefetch` runs a whole chain ahead of its consumer behind a bounded queue. With
no threads the same chain runs in one thread and gives the same results.
"""

import contextlib
import csv
import glob
import itertools
import json
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from SPPE.src.utils.imread import IMAGE_EXTENSIONS, UnreadableImage, find_images, load_image

T = TypeVar("T")

# Decoding a 12-megapixel JPEG takes about as long as both networks do, so half as many threads as cores keep up.
DECODE_THREADS = min(16, max(2, (os.cpu_count() or 1) // 2))

# What a run notes in its output folder as it goes, see progress.py.
RECORD = "progress.jsonl"

# A box's columns in a .csv, in the order in which they are looked for.
BOX_COLUMNS = (("left", "top", "right", "bottom"), ("x1", "y1", "x2", "y2"))

# Items that wait between two stages: enough that neither waits for the other, few enough to bound the memory.
QUEUE_SIZE = 2


@dataclass
class Job:
    """One input on its way through the stages; every input ends as one record, whatever happens to it.

    name: what results call it, a path relative to the input folder with "/" between folders.
    status: "ok", "no_face", "unreadable" or "error"; message: why, in one sentence.
    image: (H, W, 3) uint8 RGB. letterbox, transform: what the detector's `preprocess` made of it.
    boxes: (N, 5) x1 y1 x2 y2 score in image pixels. faces: what the predictor found.
    given: (N, 5), boxes to use instead of the detector's; proposed: these are a tracker's, to be judged like the
        detector's. time: of a video's frame, seconds from its beginning.
    """

    name: str
    path: Path | None = None
    status: str = "ok"
    message: str = ""
    image: np.ndarray | None = None
    letterbox: np.ndarray | None = None
    transform: object = None
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    faces: list = field(default_factory=list)
    given: np.ndarray | None = None
    proposed: bool = False
    time: float | None = None

    def fail(self, status: str, message: str) -> None:
        self.status, self.message, self.image, self.letterbox = status, message, None, None

    def record(self) -> dict:
        """The manifest's entry."""
        entry = {"image": self.name, "status": self.status, "faces": len(self.faces)}
        if self.time is not None:
            entry["time"] = round(self.time, 6)
        return {**entry, "message": self.message} if self.message else entry


def folder_jobs(folder: Path, option: str = "--indir") -> list[Job]:
    """A job for every picture under a folder, but for those that a run of demo.py drew. option: what named the folder.

    Raises:
        FileNotFoundError: no such folder; ValueError: not a folder, or no picture in it.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{option} {folder} does not exist; name a folder of pictures")
    if not folder.is_dir():
        raise ValueError(f"{option} {folder} is not a folder")
    jobs = [Job(path.as_posix(), folder / path) for path in find_images(folder) if not _is_drawn(folder / path)]
    if not jobs:
        raise ValueError(f"{option} {folder} holds no pictures; formats are known by their extension (.jpg, .png, ...)")
    return jobs


def input_jobs(where: Path) -> list[Job]:
    """Jobs for a folder (walked), one picture, or a pattern such as "photos/**/*.jpg", but for what demo.py drew.

    A pattern's names are relative to its last folder without a wildcard; folders that it matches are walked.

    Raises:
        FileNotFoundError, ValueError: nothing there, or no picture among it.
    """
    if where.is_dir() or not (where.exists() or glob.has_magic(str(where))):
        return folder_jobs(where)
    if where.exists():
        return [Job(where.name, where)]
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), where.parts))
    jobs: dict[Path, Job] = {}
    for match in sorted(map(Path, glob.glob(str(where), recursive=True)), key=os.fsencode):  # noqa: PTH207
        inside = [match / path for path in find_images(match)] if match.is_dir() else [match]
        for path in inside:
            if path.suffix.lower() in IMAGE_EXTENSIONS:
                jobs[path] = Job(path.relative_to(base).as_posix(), path)
    found = [job for path, job in jobs.items() if not _is_drawn(path)]
    if not found:
        raise ValueError(f"--indir {where} matches no pictures; formats are known by their extension (.jpg, .png, ...)")
    return found


def _is_drawn(path: Path) -> bool:
    """Whether an earlier run drew this picture: it lies in a `vis` beside such a run's record."""
    folders = path.parent.resolve() / path.name  # links to pictures stay what they are
    return any(folder.name == "vis" and (folder.parent / RECORD).is_file() for folder in folders.parents)


def frame_jobs(frames: Iterable) -> Iterator[Job]:
    """A job for every `video.Frame`, named as AlphaPose names them: 0.jpg, 1.jpg, ..."""
    with source(frames) as iterator:
        for number, frame in enumerate(iterator):
            job = Job(f"{number}.jpg", image=frame.image, time=frame.time)
            if frame.image is None:
                job.fail("unreadable", frame.message)
            yield job


def read_boxes(path: Path) -> dict[str, np.ndarray]:
    """Boxes from a file, by picture: {name: (N, 5) x1 y1 x2 y2 score}; the score is 1 where the file has none.

    .csv: a header and a box a line, `image,x1,y1,x2,y2` and perhaps `score`; or --format csv's own landmarks.csv.
    .json: an object {name: [[x1, y1, x2, y2], ...]}, with or without a fifth number, the score; or a list of COCO
    results or AlphaPose detections, {"image_id": name, "bbox": [x, y, width, height], "score": s}.

    Raises:
        FileNotFoundError: no such file; ValueError: it is none of these, names the file and the row or entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f"--boxes {path} does not exist; name a .json or .csv file of boxes")
    kind = {".csv": _csv_boxes, ".json": _json_boxes}.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"--boxes {path}: unknown kind {path.suffix!r}; choose .json or .csv")
    rows: dict[str, list] = {}
    try:
        for where, name, box in kind(path.read_text(encoding="utf-8-sig")):
            try:
                rows.setdefault(name, []).extend([] if box is None else as_boxes([box]))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # of JSON, of UTF-8, or of what a row lacks
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"--boxes {path}: {reason}") from error
    return {name: np.array(boxes, np.float32).reshape(-1, 5) for name, boxes in rows.items()}


def _csv_boxes(text: str) -> Iterator[tuple[str, str, list]]:
    reader = csv.DictReader(text.splitlines())
    # in our own landmarks.csv, x1 y1 x2 y2 are landmarks
    corners = next((own for own in BOX_COLUMNS if set(own) <= set(reader.fieldnames or ())), BOX_COLUMNS[-1])
    for row in reader:
        where = f"line {reader.line_num}"
        missing = [name for name in ("image", *corners) if row.get(name) is None]
        if missing:
            raise ValueError(f"{where} lacks {', '.join(missing)}; expected the header image,x1,y1,x2,y2 or with score")
        yield where, row["image"], [*(row[name] for name in corners), row.get("score") or 1]


def _json_boxes(text: str) -> Iterator[tuple[str, str, list | None]]:
    content = json.loads(text)
    if isinstance(content, dict):
        for name, boxes in content.items():
            yield name, name, None  # a picture without boxes is named all the same
            yield from ((f"{name!r}, box {i}", name, box) for i, box in enumerate(boxes))
    else:
        for i, entry in enumerate(content):
            try:
                x, y, width, height = map(float, entry["bbox"])
                yield f"entry {i}", str(entry["image_id"]), [x, y, x + width, y + height, entry.get("score", 1)]
            except (KeyError, TypeError, ValueError) as error:
                expected = 'expected {"image_id": name, "bbox": [x, y, width, height]}'
                raise ValueError(f"entry {i} is {str(entry)[:100]}; {expected}") from error


def as_boxes(boxes: ArrayLike) -> np.ndarray:
    """Boxes (N, 4) x1 y1 x2 y2 or (N, 5) with a score -> (N, 5) float32, the score 1 where there is none.

    Raises:
        ValueError: another shape, a number that is none, or a box without an area; names the first.
    """
    array = np.asarray(boxes, np.float32)
    array = array.reshape(-1, 5) if array.size == 0 else np.atleast_2d(array)
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise ValueError(f"boxes of shape {array.shape}; expected (N, 4) x1 y1 x2 y2, or (N, 5) with a score")
    bad = ~(np.isfinite(array).all(axis=1) & (array[:, 2] > array[:, 0]) & (array[:, 3] > array[:, 1]))
    if bad.any():
        number = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"box {number} is {array[number].tolist()}; expected numbers x1 y1 x2 y2 with x1 < x2, y1 < y2"
        )
    return array if array.shape[1] == 5 else np.column_stack([array, np.ones(len(array), np.float32)])


def give_boxes(jobs: Iterable[Job], boxes: dict[str, np.ndarray]) -> Iterator[Job]:
    """Jobs with the boxes of `read_boxes`; a picture that these do not name has none, and its record says so."""
    for job in jobs:
        job.given = boxes.get(job.name, np.zeros((0, 5), np.float32))
        if job.name not in boxes and not job.message:
            job.message = "no boxes were given for it"
        yield job


def list_jobs(listing: Path, folder: Path | None = None) -> list[Job]:
    """A job for every line of a text file; paths are relative to `folder`, by default the list's own.

    Raises:
        FileNotFoundError: no such list; ValueError: it is no text, or names no picture.
    """
    if not listing.is_file():
        raise FileNotFoundError(f"--list {listing} does not exist; name a text file with a picture a line")
    try:
        lines = [line.strip() for line in listing.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"--list {listing} is not UTF-8 text ({error.reason}); write one path a line") from error
    paths = [Path(line) for line in lines if line]
    if not paths:
        raise ValueError(f"--list {listing} names no picture; write one path a line")
    base = folder or listing.parent
    return [Job(name, base / path) for name, path in zip(_result_names(paths), paths)]


def _result_names(paths: list[Path]) -> list[str]:
    """Names below the output folder, each once: "/a/x.jpg" is "a/x.jpg", and a second one "a/x~2.jpg"."""
    names, seen = [], set()
    for path in paths:
        inside = Path(*(part for part in path.parts if part not in ("..", path.anchor)))
        name, number = inside, 2
        while name in seen:
            name, number = inside.with_name(f"{inside.stem}~{number}{inside.suffix}"), number + 1
        seen.add(name)
        names.append(name.as_posix())
    return names


def read_job(job: Job, preprocess: Callable) -> Job:
    """Read a job's picture and make the detector's input of it; what cannot be read is recorded in the job."""
    if job.status != "ok":
        return job
    try:
        if job.image is None:
            job.image = load_image(job.path)  # type: ignore[arg-type]  # a job has one or the other
        if job.given is None:
            job.letterbox, job.transform = preprocess(job.image)
        else:
            job.boxes = _inside(job.given, job.image)
            outside = len(job.given) - len(job.boxes)
            if outside:
                job.message = f"{outside} of the {len(job.given)} given boxes lie outside the picture"
    except (UnreadableImage, OSError) as error:
        job.fail("unreadable", str(error))
    except Exception as error:  # one odd picture must not end a run of thousands; it is recorded
        job.fail("error", f"{job.name}: {type(error).__name__}: {error}")
    return job


def _inside(boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    """The boxes (N, 5) that meet the picture (H, W, 3)."""
    height, width = image.shape[:2]
    return boxes[(boxes[:, 0] < width) & (boxes[:, 1] < height) & (boxes[:, 2] > 0) & (boxes[:, 3] > 0)]


@contextlib.contextmanager
def source(items: Iterable[T]) -> Iterator[Iterator[T]]:
    """Iterate over a stage's input and close it when the stage ends, however it ends: threads upstream then stop."""
    iterator = iter(items)
    try:
        yield iterator
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def ordered_map(
    function: Callable[[T], T], items: Iterable[T], threads: int, initializer: Callable | None = None
) -> Iterator[T]:
    """`map` in a pool of threads, in order, with a bounded number of items under way (threads 0: plain `map`).

    When `items` fails, what it gave before comes out first, and then its exception. `initializer`: called first in each
    thread.
    """
    failure, waiting = None, deque[Future]()
    with source(items) as iterator, ThreadPoolExecutor(threads or 1, "worker", initializer) as pool:
        if not threads:
            yield from map(function, iterator)
            return
        try:
            while failure is None:
                try:
                    item = next(iterator)
                except StopIteration:
                    break
                except Exception as error:
                    failure = error
                    break
                waiting.append(pool.submit(function, item))
                while waiting and (len(waiting) > threads or waiting[0].done()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
    if failure is not None:
        raise failure


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` items; the last may be shorter."""
    with source(items) as iterator:
        while batch := list(islice(iterator, size)):
            yield batch


class _End:
    """The sentinel that ends a queue, with the exception that ended its stage, if any."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def prefetch(items: Iterable[T], size: int = QUEUE_SIZE) -> Iterator[T]:
    """Run an iterable in its own thread, at most `size` items ahead.

    Its end and its exceptions come out here. Closing this iterator (a later stage failed, or the user stopped the run)
    stops the thread: it finds `stopped` set at its next item, and closes the iterable.
    """
    out: queue.Queue = queue.Queue(size)
    stopped = threading.Event()

    def run() -> None:
        error = None
        try:
            with source(items) as iterator:
                for item in iterator:
                    out.put(item)
                    if stopped.is_set():
                        break
        except BaseException as caught:  # handed to the consumer, which raises it
            error = caught
        out.put(_End(error))
        del error  # its traceback holds this frame, and with it the stages before

    thread = threading.Thread(target=run, name="stage", daemon=True)
    thread.start()
    ended = False
    try:
        while not ended:
            item = out.get()
            if isinstance(item, _End):
                ended = True
                if item.error is not None:
                    raise item.error
            else:
                yield item
    finally:
        stopped.set()
        while not ended:  # a blocked put goes through, the thread sees `stopped` and sends its end
            ended = isinstance(out.get(), _End)
        thread.join()
