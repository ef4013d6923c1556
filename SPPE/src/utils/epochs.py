"""Logs of trainings: a JSON line an epoch."""

import json
from collections.abc import Callable
from pathlib import Path

from .files import write_whole


def keep_epochs(log: Path, wanted: Callable[[int | str], bool]) -> None:
    """Keep the lines of a log whose "epoch" is wanted; a line that a kill tore goes."""
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            kept += [line] if wanted(json.loads(line)["epoch"]) else []
        except ValueError:
            continue
    write_whole("".join(f"{line}\n" for line in kept).encode(), log)
