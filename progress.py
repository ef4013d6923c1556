"""What a run has finished, line by line in OUTDIR/progress.jsonl, so that a run that was killed goes on (--resume)."""

import json
import os
from pathlib import Path

import numpy as np

from dataloader import Job
from face import Face
from SPPE.src.utils.files import write_whole

# What needs no second try. Inputs that were unreadable or failed are tried again: they may have been mended.
DONE = ("ok", "no_face")


class Progress:
    """The file of a run: a line of settings, then a line for every finished input with its record and faces.

    Args:
        path: of the file. settings: options that shape the results, plain values by name.
        resume: keep what an earlier run with the same settings has finished; otherwise begin anew.
    Raises:
        ValueError: the earlier run had other settings; names the first.
    """

    def __init__(self, path: Path, settings: dict, resume: bool):
        lines = _read(path) if resume else []
        self._done: dict[str, dict] = {line["name"]: line for line in lines if "name" in line}
        self.finished = next((line["finished"] for line in reversed(lines) if "finished" in line), None)
        if lines:
            before = lines[0].get("settings", {})
            for name in sorted(before.keys() | settings.keys()):
                if before.get(name) != settings.get(name):
                    raise ValueError(
                        f"--resume: {path} was made with {name} {before.get(name)!r}, now it is "
                        f"{settings.get(name)!r}; say the same, or leave --resume out to begin anew"
                    )
        # kept lines are written anew: the last may be broken, where the run was killed
        kept = [{"settings": settings}, *lines[1:]]
        write_whole("".join(json.dumps(line) + "\n" for line in kept).encode("ascii"), path)
        self._file = path.open("a", encoding="ascii")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def add(self, job: Job) -> None:
        """Note a finished job."""
        line = {"name": job.name, "stamp": stamp(job.path), "given": _short(job.given), "status": job.status}
        self._write({**line, "message": job.message, "faces": [_to_plain(face) for face in job.faces]})

    def finish(self, outputs: dict) -> None:
        """Note that the whole run is finished (a video's, whose frames depend on each other), and what it wrote."""
        self._write({"finished": outputs})

    def restore(self, job: Job, hollow: np.ndarray) -> bool:
        """Give a job the faces that an earlier run found; False if it did not, or the file has changed since."""
        line = self._done.get(job.name)
        if line is None or line["status"] not in DONE:
            return False
        if line["stamp"] is None or line["stamp"] != stamp(job.path) or line["given"] != _short(job.given):
            return False
        job.status, job.message = line["status"], line["message"]
        job.faces = [_from_plain(face, hollow) for face in line["faces"]]
        return True

    def _write(self, line: dict) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _read(path: Path) -> list[dict]:
    """The whole lines of the file; none if it is not there."""
    lines = []
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        return []
    for line in text.splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            break
    return lines


def stamp(path: Path | None) -> list | None:
    """What tells whether a file is still the same; None where there is none."""
    try:
        status = path.stat()  # type: ignore[union-attr]
    except (OSError, AttributeError, ValueError):
        return None
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]  # noqa: PTH100 (links stay as they are)


def _short(array: np.ndarray | None) -> list | None:
    """A float32 array as the shortest decimals that give it back."""
    if array is None:
        return None
    flat = [float(str(v)) for v in np.asarray(array, np.float32).ravel()]
    return np.array(flat).reshape(np.shape(array)).tolist()


def _to_plain(face: Face) -> dict:
    arrays = {name: _short(getattr(face, name)) for name in ("box", "landmarks", "confidence")}
    return {**arrays, "score": face.score, "pose_score": face.pose_score}


def _from_plain(line: dict, hollow: np.ndarray) -> Face:
    arrays = {name: np.array(line[name], np.float32) for name in ("box", "landmarks", "confidence")}
    return Face(**arrays, score=line["score"], pose_score=line["pose_score"], hollow=hollow)
