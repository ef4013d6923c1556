"""Datatang's 106 points, or any set made by tools/make_h5.py: ROOT/{annot_dt_fac_106_ldmks.h5, images/}."""

from pathlib import Path

from .base import Annotations, read_h5

FILE_NAME = "annot_dt_fac_106_ldmks.h5"


def load(root: Path, split: str) -> Annotations:
    """Read one split; layout, splits and errors are `base.read_h5`'s."""
    return read_h5(root / FILE_NAME, root / "images", split)
