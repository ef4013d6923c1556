"""From the network's rows to boxes: class selection, threshold, NMS, for a whole batch at once."""

import torch

from .bbox import iou_matrix, xywh_to_xyxy

try:  # A CPU-only torch beside a CUDA torchvision cannot load its compiled operators; the fallback then serves.
    from torchvision.ops import batched_nms as _torchvision_nms
except (ImportError, RuntimeError, OSError, AttributeError):
    _torchvision_nms = None

# A picture with more faces than this is not met; without a bound a threshold near zero would compare every box with
# every other.
MAX_CANDIDATES = 3000


def nms(boxes, scores, threshold, groups=None):
    """Greedy non-maximum suppression.

    boxes (N, 4) corner form, scores (N,), groups (N,) integers (boxes of different groups never suppress each other;
    None: one group) -> (K,) indices of the boxes kept, by falling score. A box goes when its IoU with a kept one
    exceeds `threshold`.
    """
    if groups is None:
        groups = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
    if _torchvision_nms is not None:
        try:
            return _torchvision_nms(boxes, scores, groups, threshold)
        except (RuntimeError, NotImplementedError):  # the module is there, its kernel for this device is not
            pass
    return nms_fallback(boxes, scores, threshold, groups)


def nms_fallback(boxes, scores, threshold, groups):
    """What `nms` returns, in plain tensor operations.

    Whether a box stays depends only on the better boxes that stay; repeating that rule for all boxes at once reaches
    greedy NMS's answer after as many rounds as the longest chain of suppressions (Zheng et al. 2020, "Cluster-NMS").
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, groups = boxes[order], groups[order]
    suppresses = ((iou_matrix(boxes, boxes) > threshold) & (groups[:, None] == groups)).triu(
        1
    )  # (N, N): row beats column
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while True:
        kept = ~(suppresses & keep[:, None]).any(0)
        if torch.equal(kept, keep):
            return order[keep]
        keep = kept


def detections(prediction, conf, nms_threshold, class_id=0, limit=MAX_CANDIDATES):
    """The boxes of one class, for every picture of a batch.

    prediction (B, N, 5 + C) as Darknet.forward gives it; conf: the least objectness × class probability;
    nms_threshold: the IoU over which the weaker of two boxes goes -> a list of B tensors (K, 5): x1, y1, x2, y2 in
    pixels of the network's input and score, by falling score; (0, 5) where there is nothing. A box counts for its
    most probable class only. At most `limit` candidates a picture, the best ones, enter the suppression.
    """
    scores = prediction[..., 4] * prediction[..., 5 + class_id]  # (B, N)
    valid = scores >= conf
    if prediction.shape[-1] > 6:
        valid &= prediction[..., 5:].argmax(-1) == class_id
    most = min(limit, int(valid.sum(1).max()))  # few: a search for 3000 takes as long as a layer
    best, rows = torch.where(valid, scores, -1.0).topk(most, dim=1)  # (B, most)
    picture, column = (best >= conf).nonzero(as_tuple=True)
    rows, best = rows[picture, column], best[picture, column]
    found = torch.cat((xywh_to_xyxy(prediction[picture, rows, :4]), best[:, None]), 1)
    kept = nms(found[:, :4], best, nms_threshold, picture)
    found, picture = found[kept], picture[kept]
    return [found[picture == index] for index in range(len(prediction))]
