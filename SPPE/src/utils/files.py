"""Files that are whole or not there: written under another name beside their own, then renamed."""

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import torch


def write_whole(data: bytes | Iterable[bytes], path: Path) -> None:
    """Write bytes; makes the file's folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")  # not the name with more: that may be too long
    try:
        with temporary.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(content, path: Path) -> None:
    """As `write_whole`; names that are not text come out as JSON escapes."""
    write_whole(json.dumps(content).encode("ascii"), path)


def save_whole(content: dict, path: Path) -> None:
    """torch.save; what a kill leaves half is overwritten by the next try."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    temporary.replace(path)
