"""What several sources need: one convention, shares, losses, a learnt DPG, labels by the network itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine import PEAK_WEIGHT, heatmap_loss
from headpose import RIGID
from SPPE.src.convention import IBUG_FROM_LAPA, LAPA_FROM_IBUG
from SPPE.src.landmarks import FLIP_ORDER, IBUG68, MEAN_FACE, to_68
from SPPE.src.utils.eval import decode_heatmaps
from SPPE.src.utils.pose import draw_gaussians
from tiny import turned_head
from utils.dataset.balance import pose_copies
from utils.dataset.base import Annotations, join
from utils.dataset.mix import MixedSampler
from utils.dpg import build_dpg, describe, fit

FACE = np.array(MEAN_FACE, float) * 0.1 + 120  # 100 pixels between the eyes


def test_conventions_turn_into_each_other():
    there = LAPA_FROM_IBUG @ FACE
    assert IBUG_FROM_LAPA @ there == pytest.approx(FACE, abs=1.0)
    assert np.abs(there - FACE).max() > 8  # inner lips and the ends of the jaw lie far apart
    assert there[0, 1] == pytest.approx(FACE[0, 1] - 10, abs=1.5)  # the jaw begins 10 % of the eye distance higher
    lips = (there[96:99, 0] - there[98, 0]) / (there[96, 0] - there[98, 0])
    assert lips[1] == pytest.approx(0.6, abs=0.03)


def test_the_conversion_holds_in_every_frame_and_in_the_mirror():
    turned = FACE @ np.array([[0.6, -0.8], [0.8, 0.6]]) * 3 + (7, -20)
    again = (LAPA_FROM_IBUG @ FACE) @ np.array([[0.6, -0.8], [0.8, 0.6]]) * 3 + (7, -20)
    assert LAPA_FROM_IBUG @ turned == pytest.approx(again)
    order = list(FLIP_ORDER)
    assert LAPA_FROM_IBUG[order][:, order] == pytest.approx(LAPA_FROM_IBUG, abs=1e-9)


def test_to_68_takes_arrays_and_tensors_of_any_shape():
    there = np.stack([LAPA_FROM_IBUG @ FACE] * 2)[None]
    assert to_68(there) == pytest.approx(np.broadcast_to(FACE[list(IBUG68)], (1, 2, 68, 2)), abs=1.0)
    assert to_68(torch.from_numpy(there)).numpy() == pytest.approx(to_68(there))


def annotations(n, **attributes):
    points = np.ones((n, 106, 2), np.float32)
    images = [Path(f"{i}.jpg") for i in range(n)]
    return Annotations(images, np.ones((n, 4)), points, np.full((n, 106), 2, np.uint8), attributes)


def ones(n):
    return np.ones(n, int)


def test_sources_are_joined():
    both = join([annotations(2, source=np.array(["a", "b"])), annotations(3)])
    assert len(both) == 5 and not both.attributes


def test_shares_hold_and_nothing_comes_twice_before_all_came():
    sampler = MixedSampler([ones(40), ones(100)], [0.8, 0.2])
    seen = []
    for epoch in range(10):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert sorted(i for i in order if i < 40) == list(range(40))
        seen += [i for i in order if i >= 40]
        assert len(order) == len(sampler) == 50
    assert sorted(seen) == list(range(40, 140))  # ten epochs of ten: one pass


def test_a_small_source_comes_again_as_other_crops():
    sampler = MixedSampler([ones(6), ones(2)], [0.5, 0.5])
    again = [i for i in sampler if isinstance(i, tuple)]
    assert sorted(again) == [(6, 1), (6, 2), (7, 1), (7, 2)]
    assert sorted(i for i in sampler if not isinstance(i, tuple)) == list(range(8))
    assert len(list(MixedSampler([ones(1), ones(100)], [0.9, 0.1]))) == 2


def test_samples_of_more_copies_come_again_in_a_pass():
    order = list(MixedSampler([np.array([1, 3, 1]), ones(2)], None))
    assert sorted(map(str, order)) == sorted(map(str, [0, 1, (1, 1), (1, 2), 2, 3, 4]))


def test_turned_heads_are_balanced_by_the_root_of_their_rarity():
    data = annotations(90 + 10 + 1 + 1)
    data.points = np.stack([turned_head(yaw, 0, 0) for yaw in [3] * 90 + [45] * 5 + [-45] * 5 + [65] * 2])
    data.visible[-1, RIGID[0]] = 0  # no pose is known of this one
    assert pose_copies(data).tolist() == [1] * 90 + [3] * 10 + [4, 1]


def test_processes_share_an_epoch():
    parts = [list(MixedSampler([ones(7)], None, world=2, rank=rank)) for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 4
    assert set(parts[0] + parts[1]) == set(range(7))


def test_awing_is_the_papers_and_so_is_its_gradient():
    def plain(heatmaps, targets):
        power = 2.1 - targets
        at = 0.5**power
        slope = 14 / (1 + at) * power * 0.5 ** (power - 1)
        error = (heatmaps - targets).abs()
        return torch.where(error < 0.5, 14 * torch.log1p(error**power), slope * (error - 0.5) + 14 * torch.log1p(at))

    generator = torch.Generator().manual_seed(0)
    heatmaps = (1.4 * torch.rand((3, 4, 8, 8), generator=generator)).requires_grad_()
    truth, mask = 8 * torch.rand((3, 4, 2), generator=generator), torch.tensor([[1, 0, 1, 1]] * 3).float()
    targets = draw_gaussians(truth, 8, 8, 1.5)
    wanted = (plain(heatmaps, targets) * (PEAK_WEIGHT * targets + 1) * mask[..., None, None]).sum() / mask.sum() / 64
    (gradient,) = torch.autograd.grad(wanted, heatmaps)
    found = heatmap_loss(heatmaps, truth, mask, "awing", 1.5)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert torch.allclose(torch.autograd.grad(found, heatmaps)[0], gradient, atol=1e-6)


@pytest.mark.parametrize(("crit", "decode"), [("mse", "dark"), ("awing", "dark"), ("dsnt", "dsnt")])
def test_descending_a_loss_brings_the_points(crit, decode):
    truth, mask = torch.tensor([[[3.3, 9.8], [11.6, 4.1]]]), torch.ones(1, 2)
    heatmaps = torch.zeros((1, 2, 16, 16), requires_grad=True)
    optimiser = torch.optim.Adam([heatmaps], 0.05)
    for _ in range(150):
        optimiser.zero_grad()
        heatmap_loss(heatmaps, truth, mask, crit, 1.5).backward()
        optimiser.step()
    points, scores = decode_heatmaps(heatmaps.detach(), decode)
    assert torch.allclose(points, truth, atol=0.15)
    assert ((scores > 0) & (scores <= 1.2)).all()


def test_dsnt_leaves_out_points_beyond_the_map():
    heatmaps = torch.randn((1, 1, 8, 8), requires_grad=True)
    heatmap_loss(heatmaps, torch.tensor([[[-3.0, 4.0]]]), torch.ones(1, 1), "dsnt", 1.0).backward()
    assert (heatmaps.grad == 0).all()


def test_dpg_learns_what_a_detector_does_with_each_pose(tmp_path):
    rng = np.random.default_rng(0)
    turned = FACE + np.where(np.arange(106) > 32, 20, 0)[:, None] * (1, 0)  # eyes, nose and mouth aside
    points = np.stack([(FACE if i % 2 else turned) + rng.normal(0, 1, (106, 2)) for i in range(200)])
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    size = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    shift = np.where(np.arange(200) % 2, 0.1, -0.1)[:, None]  # to the right, to the left on turned ones
    found = boxes + size * (shift * (1, 0, 1, 0) + rng.normal(0, 0.01, (200, 4)))
    path = tmp_path / "dpg.json"
    path.write_text(json.dumps(fit(points, boxes, found, clusters=2)))
    dpg = build_dpg(str(path))
    assert describe(points, boxes).shape == (200, 212)
    for index, expected in ((1, 0.1), (2, -0.1)):
        drawn = np.stack([dpg.errors(boxes[index], points[index], rng) for _ in range(300)])
        assert drawn.mean(0) == pytest.approx((expected, 0, expected, 0), abs=0.01)
        assert drawn.std(0) == pytest.approx([0.01] * 4, abs=0.004)
        known = np.arange(106) % 2 == 0  # the others are not annotated: (0, 0)
        part = np.where(known[:, None], points[index], 0)
        drawn = np.stack([dpg.errors(boxes[index], part, rng, known) for _ in range(300)])
        assert drawn.mean(0) == pytest.approx((expected, 0, expected, 0), abs=0.01)


@pytest.mark.parametrize(("text", "message"), [(None, "no file"), ("[1]", "not a file of"), ("{", "not a file of")])
def test_a_bad_dpg_file_is_named(tmp_path, text, message):
    path = tmp_path / "dpg.json"
    if text:
        path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build_dpg(str(path))
