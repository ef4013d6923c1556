"""Files that are whole or not there."""

from pathlib import Path

import torch


def save_whole(content: dict, path: Path) -> None:
    """torch.save under a temporary name, then rename: a kill leaves the file before or the file after, never half."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save(content, temporary)
    temporary.replace(path)
