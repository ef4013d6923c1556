"""Pose-based data balancing: turned heads are few among photographs, so they come again (Feng et al., "Wing Loss",
CVPR 2018, section 5).

The paper sorts faces by that component of their shapes which turns them, and repeats those of rare bins. Here yaw is
measured (`headpose`), and rare faces come again by the root of their rarity: all the way, the few turned furthest would
be learnt by heart.
"""

import numpy as np

from headpose import RIGID, head_pose

from .base import Annotations

# Degrees of |yaw| that one bin holds: crops are mirrored at random, so both sides count as one.
BIN = 10.0

MOST_COPIES = 4


def pose_copies(data: Annotations) -> np.ndarray:
    """How often each face is to come in a pass, (N,) int from 1 to MOST_COPIES.

    Faces of unknown pose (a rigid point is not annotated, or no pose fits) come once.
    """
    bins = np.array([pose_bin(*face) for face in zip(data.points, data.visible)])
    known = bins >= 0
    occupied = np.bincount(bins[known], minlength=1)
    rarity = np.where(known, occupied.max() / occupied[bins.clip(0)].clip(1), 1)
    return np.rint(np.sqrt(rarity)).clip(1, MOST_COPIES).astype(int)


def pose_bin(points: np.ndarray, visible: np.ndarray) -> int:
    """The bin of a face's |yaw|, -1 where that is unknown; points (106, 2), visible (106,)."""
    if not visible[list(RIGID)].all():
        return -1
    try:
        return int(abs(head_pose(points).yaw) // BIN)
    except ValueError:
        return -1
