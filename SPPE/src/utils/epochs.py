"""Logs of trainings: a JSON line an epoch."""

import json
from collections.abc import Callable
from pathlib import Path


def keep_epochs(log: Path, wanted: Callable[[int | str], bool]) -> None:
    """Keep the lines of a log whose "epoch" is wanted; a line that a kill tore goes. Temporary name, then rename."""
    kept = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            kept += [line] if wanted(json.loads(line)["epoch"]) else []
        except ValueError:
            continue
    temporary = log.with_name(log.name + ".tmp")
    temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    temporary.replace(log)
