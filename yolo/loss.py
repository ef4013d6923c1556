"""What the detector is taught by: YOLOv3's loss with several anchors a face, CIoU boxes and regions that are left
open.
"""

import math

import torch
import torch.nn.functional as F

from .bbox import EPS, coverage_matrix, iou_matrix, xywh_to_xyxy, xyxy_to_xywh

# An anchor serves a face when neither side differs by more than this factor. Neighbouring anchors are a factor of 1.6
# apart, so a face gets two or three of them: more positives, and no gap between scales.
ANCHOR_RATIO = 1.9
# A prediction that overlaps a face this much is not punished for being a second one (YOLOv3, section 2.1, takes 0.5).
NEAR_FACE_IOU = 0.5
# ... nor is one that lies mostly in a region nobody has labelled.
OPEN_COVERAGE = 0.5
# Only predictions this sure (logit of 0.1) are looked up in those two rules: the others' loss is next to nothing.
SURE_LOGIT = -2.2
# Balance of the three parts, so that each contributes about the same at the end of training.
BOX_WEIGHT, OBJECT_WEIGHT, CLASS_WEIGHT = 2.5, 1.0, 0.1
# Pictures of a batch are laid this far apart (pixels) to match all boxes of the batch at once.
FAR = 8192


def ciou(a, b):
    """Complete IoU of pairs, (N, 4) and (N, 4) in centre form -> (N,), and the plain IoU (Zheng et al. 2020,
    equations 10-12).
    """
    p, q = xywh_to_xyxy(a), xywh_to_xyxy(b)
    shared = (torch.minimum(p[:, 2:], q[:, 2:]) - torch.maximum(p[:, :2], q[:, :2])).clamp(min=0).prod(1)
    iou = shared / (a[:, 2:].prod(1) + b[:, 2:].prod(1) - shared + EPS)
    diagonal = (torch.maximum(p[:, 2:], q[:, 2:]) - torch.minimum(p[:, :2], q[:, :2])).square().sum(1)
    distance = (a[:, :2] - b[:, :2]).square().sum(1)
    aspect = (4 / math.pi**2) * (torch.atan2(a[:, 2], a[:, 3]) - torch.atan2(b[:, 2], b[:, 3])).square()
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + EPS)
    return iou - distance / (diagonal + EPS) - alpha * aspect, iou


def assign(faces, anchors):
    """faces (G, 4) centre form, anchors (A, 2) -> (G, A) bool: which anchors are taught which face; each face has one
    at least.
    """
    ratio = faces[:, None, 2:] / anchors[None]
    worst = torch.maximum(ratio, 1 / ratio).amax(-1)  # (G, A)
    return (worst < ANCHOR_RATIO) | (worst == worst.amin(1, keepdim=True))


def _apart(boxes):
    """A list of (N_b, 4) corner boxes, one a picture -> (sum N_b, 4): each picture's boxes moved to a place of its
    own.
    """
    return torch.cat([b + index * FAR for index, b in enumerate(boxes)])


def detection_loss(net, maps, faces, ignore):
    """The loss of a batch.

    net: Darknet; maps: its `maps(x)`; faces, ignore: lists of (N_b, 4) corner boxes in input pixels, one a picture.
    Returns (scalar, {"box", "object", "class"} floats), each a sum over the batch divided by the number of taught
    anchors.
    """
    owner = torch.cat([torch.full((len(b),), index) for index, b in enumerate(faces)]).to(maps[0].device)
    truth = xyxy_to_xywh(torch.cat(faces))  # (G, 4)
    matched = assign(truth, torch.cat([head.anchors for head in net.heads]).to(truth.device))
    taught = max(1, int(matched.sum()))
    apart, open_apart = _apart(faces), _apart(ignore)
    columns = matched.split([len(head.anchors) for head in net.heads], 1)

    box = objectness = kind = truth.new_zeros(())
    for head, raw, column in zip(net.heads, maps, columns):
        cells = head.cells(raw).float()
        target = torch.zeros_like(cells[..., 4])
        face, anchor = column.nonzero(as_tuple=True)
        corner = (truth[face, :2] / head.stride).long()
        x, y = corner[:, 0].clamp(0, raw.shape[-1] - 1), corner[:, 1].clamp(0, raw.shape[-2] - 1)
        where = (owner[face], y, x, anchor)
        positive = cells[where]
        complete, iou = ciou(head.boxes_at(positive, x, y, anchor), truth[face])
        target[where] = iou.detach().clamp(0, 1)
        counted = ~_left_open(head, cells, target, apart, open_apart)
        box = box + (1 - complete).sum()
        objectness = objectness + F.binary_cross_entropy_with_logits(
            cells[..., 4][counted], target[counted], reduction="sum"
        )
        kind = kind + F.binary_cross_entropy_with_logits(
            positive[:, 5:], torch.ones_like(positive[:, 5:]), reduction="sum"
        )
    parts = {"box": box / taught, "object": objectness / taught, "class": kind / taught}
    total = BOX_WEIGHT * parts["box"] + OBJECT_WEIGHT * parts["object"] + CLASS_WEIGHT * parts["class"]
    return total, {name: value.item() for name, value in parts.items()}


@torch.no_grad()
def _left_open(head, cells, target, faces, ignore):
    """-> bool like `target`: predictions that are neither taught nor punished."""
    mask = torch.zeros_like(target, dtype=torch.bool)
    where = ((cells[..., 4] > SURE_LOGIT) & (target == 0)).nonzero(as_tuple=True)
    owner, y, x, anchor = where
    boxes = xywh_to_xyxy(head.boxes_at(cells[where], x, y, anchor)) + owner[:, None] * FAR
    near = (iou_matrix(boxes, faces) > NEAR_FACE_IOU).any(1)
    mask[where] = near | (coverage_matrix(boxes, ignore) > OPEN_COVERAGE).any(1)
    return mask
