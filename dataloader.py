"""What is read and how it flows: sources, decoding, batches, and stages that run in their own threads.

A stage is a generator: an iterable of items in, an iterator of items out, in the same order. `ordered_map` runs a
stage's function in threads of its own; `prefetch` runs a whole chain ahead of its consumer behind a bounded queue. With
no threads the same chain runs in one thread and gives the same results.
"""

import contextlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from SPPE.src.utils.imread import UnreadableImage, find_images, load_image

T = TypeVar("T")

# Decoding a 12-megapixel JPEG takes about as long as both networks do, so a few threads keep up with them.
DECODE_THREADS = max(1, min(4, os.cpu_count() or 1))

# Items that wait between two stages: enough that neither waits for the other, few enough to bound the memory.
QUEUE_SIZE = 2


@dataclass
class Job:
    """One input on its way through the stages; every input ends as one record, whatever happens to it.

    name: what results call it, a path relative to the input folder with "/" between folders.
    status: "ok", "no_face", "unreadable" or "error"; message: why, in one sentence.
    image: (H, W, 3) uint8 RGB. letterbox, transform: what the detector's `preprocess` made of it.
    boxes: (N, 5) x1 y1 x2 y2 score in image pixels. faces: what the predictor found.
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

    def fail(self, status: str, message: str) -> None:
        self.status, self.message, self.image, self.letterbox = status, message, None, None

    def record(self) -> dict:
        """The manifest's entry."""
        entry = {"image": self.name, "status": self.status, "faces": len(self.faces)}
        return {**entry, "message": self.message} if self.message else entry


def folder_jobs(folder: Path, leave_out: Path | None = None) -> list[Job]:
    """A job for every picture under a folder, but for those under `leave_out` (an earlier run's results).

    Raises:
        FileNotFoundError: no such folder; ValueError: not a folder, or no picture in it.
    """
    if not folder.exists():
        raise FileNotFoundError(f"--indir {folder} does not exist; name a folder of pictures")
    if not folder.is_dir():
        raise ValueError(f"--indir {folder} is not a folder; say --image for one picture")
    jobs = [Job(path.as_posix(), folder / path) for path in find_images(folder)]
    if leave_out:
        own = leave_out.resolve()
        jobs = [job for job in jobs if not job.path.absolute().is_relative_to(own)]
    if not jobs:
        raise ValueError(f"--indir {folder} holds no pictures; formats are known by their extension (.jpg, .png, ...)")
    return jobs


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
    try:
        if job.image is None:
            job.image = load_image(job.path)
        job.letterbox, job.transform = preprocess(job.image)
    except (UnreadableImage, OSError) as error:
        job.fail("unreadable", str(error))
    except Exception as error:  # one odd picture must not end a run of thousands; it is recorded
        job.fail("error", f"{job.name}: {type(error).__name__}: {error}")
    return job


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
    failure, waiting = None, deque()
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
                if len(waiting) > threads:
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
