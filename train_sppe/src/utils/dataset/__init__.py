"""The data sets that training and evaluation can name; one file each, one builder."""

from pathlib import Path

from . import dt_fac_106_ldmks, lapa, w300
from .base import SPLITS, Annotations

# name -> load(root, split)
READERS = {"dt_fac_106_ldmks": dt_fac_106_ldmks.load, "lapa": lapa.load, "300w": w300.load}


def build_dataset(name: str, root: Path, split: str) -> Annotations:
    """Read one split ("train", "val" or "test") of a data set in the folder `root`.

    Raises:
        ValueError: unknown name or split, or malformed annotations.
        FileNotFoundError: the folder, the annotations or a picture is missing.
    """
    if name == "coco":
        raise ValueError(
            "--dataset coco is AlphaPose's 17 body joints, which this project does not train; "
            f"choose one of {', '.join(READERS)}"
        )
    if name not in READERS:
        raise ValueError(f"unknown data set {name!r}; choose one of {', '.join(READERS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise FileNotFoundError(f"no data set at {root}; tools/make_h5.py makes one from pictures and points")
    return READERS[name](root, split)
