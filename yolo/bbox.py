"""Boxes as tensors, nothing else: every function is pure and runs on the device of its arguments.

A box is (x1, y1, x2, y2) in pixels, x to the right and y down, unless a name says `xywh` (centre x, centre y, width,
height).
"""

import torch

# A tiny number that keeps a division of two empty areas at zero instead of nan.
EPS = 1e-9


def xywh_to_xyxy(boxes):
    """Centre form (..., 4+) to corner form; further columns are kept."""
    half = boxes[..., 2:4] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half, boxes[..., 4:]), -1)


def xyxy_to_xywh(boxes):
    """Corner form (..., 4+) to centre form; further columns are kept."""
    low, high = boxes[..., :2], boxes[..., 2:4]
    return torch.cat(((low + high) / 2, high - low, boxes[..., 4:]), -1)


def area(boxes):
    """(..., 4+) corner form -> (...); an inside-out box has no area."""
    return (boxes[..., 2:4] - boxes[..., :2]).clamp(min=0).prod(-1)


def intersection(a, b):
    """(N, 4+) and (M, 4+) corner form -> (N, M) shared areas."""
    low = torch.maximum(a[:, None, :2], b[None, :, :2])
    high = torch.minimum(a[:, None, 2:4], b[None, :, 2:4])
    return (high - low).clamp(min=0).prod(-1)


def iou_matrix(a, b):
    """(N, 4+) and (M, 4+) corner form -> (N, M) intersection over union."""
    shared = intersection(a, b)
    return shared / (area(a)[:, None] + area(b)[None, :] - shared + EPS)


def coverage_matrix(a, b):
    """(N, 4+) and (M, 4+) corner form -> (N, M): how much of each `a` lies inside each `b`, 0 to 1."""
    return intersection(a, b) / (area(a)[:, None] + EPS)


# The box that detectors trained on WIDER FACE draw, from a face's landmarks: measured on 502 crops of 300-W where
# CenterFace and MTCNN agree (IoU 0.88 in the median). Left, right and bottom are those of the tight box of the
# contour and the inner points (medians 0.000, -0.002, -0.005 of its size, deviations 0.03); the top lies 0.333 of its
# height (deviation 0.07) above the brows.
FOREHEAD = 0.333


def face_box(points):
    """Landmarks of whole faces (..., K, 2), (x, y), contour and brows among them (68 or 106) -> (..., 4) face boxes."""
    low, high = points.amin(-2), points.amax(-2)
    forehead = FOREHEAD * (high[..., 1] - low[..., 1])
    return torch.stack((low[..., 0], low[..., 1] - forehead, high[..., 0], high[..., 1]), -1)
