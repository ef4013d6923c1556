"""Where the tests import from: the repository root, then train_sppe/src (of the two `opt`, the root's comes first)."""

import sys
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "train_sppe" / "src")]

cv2.setNumThreads(1)  # the machines that run the tests have few cores

import demo  # noqa: F401  first of all: of the two `opt`, the root's must be the one that is kept
