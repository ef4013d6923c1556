"""Crops, affines, heatmaps: round trips and invariants."""

import cv2
import numpy as np
import pytest
import torch

from SPPE.src.utils import img, pose
from SPPE.src.utils.eval import DECODERS, decode_heatmaps


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_boxes(rng, n, width=640, height=480):
    corner = rng.uniform(-20, 400, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(8, 300, (n, 2))], axis=1)


def test_grown_boxes_are_thirty_percent_larger_and_inside_the_image():
    grown = img.grow_boxes([[100, 100, 200, 300], [-50, -50, 700, 500]], 640, 480)
    assert grown[0] == pytest.approx([85, 70, 215, 330])
    assert grown[1] == pytest.approx([0, 0, 639, 479])


def test_a_degenerate_box_still_has_an_affine():
    affines = img.crop_affines(img.grow_boxes([[5, 5, 5, 5], [900, 900, 950, 950]], 100, 100), 128, 128)
    assert np.isfinite(affines).all() and np.isfinite(img.invert_affines(affines)).all()


def test_affines_show_the_whole_box_centred_with_its_aspect(rng):
    boxes = random_boxes(rng, 50)
    affines = img.crop_affines(boxes, 96, 128)
    corners = img.apply_affines(affines, boxes.reshape(-1, 2, 2))
    assert (corners.min((0, 1)) > -1).all() and (corners.max((0, 1)) < [128, 96]).all()
    assert corners.mean(1) == pytest.approx(np.tile([63.5, 47.5], (50, 1)))
    assert img.apply_affines(img.invert_affines(affines), corners) == pytest.approx(boxes.reshape(-1, 2, 2))


def test_crops_show_what_their_affine_says(rng):
    """A smooth picture whose value is its own x: every crop pixel must hold the x its affine maps back to."""
    width, height = 600, 400
    picture = np.repeat((np.arange(width)[None, :, None] * 255 / width).astype(np.uint8), 3, 2).repeat(height, 0)
    for size in (20, 60, 150, 350):  # enlarged, about one to one, shrunk by warping, shrunk by averaging first
        box = np.array([[120.0, 20, 120 + size, 20 + size]])
        crops, affines = img.crop_boxes(picture, box, 64, 64)
        x = img.apply_affines(img.invert_affines(affines), np.array([[[20.0, 32], [32, 32], [44, 32]]]))[0, :, 0]
        assert crops[0, 32, [20, 32, 44], 0] == pytest.approx(x * 255 / width, abs=1.6)


def test_outside_the_grown_box_is_the_mean_colour():
    crops, _ = img.crop_boxes(np.full((200, 200, 3), 255, np.uint8), np.array([[90.0, 20, 110, 180]]), 64, 64)
    assert (crops[0, :, 2] == img.PAD_COLOUR).all() and (crops[0, 32, 32] == 255).all()
    assert img.normalise(torch.from_numpy(crops))[0, :, 32, 2].abs().max() < 0.003


def test_no_boxes_give_empty_arrays():
    crops, affines = img.crop_boxes(np.zeros((10, 10, 3), np.uint8), np.zeros((0, 4)), 64, 64)
    assert crops.shape == (0, 64, 64, 3) and affines.shape == (0, 2, 3)


def test_frames_round_trip():
    points = torch.rand(5, 106, 2) * 128
    assert torch.allclose(pose.heatmap_to_crop(pose.crop_to_heatmap(points, 4), 4), points, atol=1e-4)


# How far each decode may be from a clean Gaussian's centre, in heatmap pixels.
@pytest.mark.parametrize(("decode", "bar"), [("dark", 0.02), ("alphapose", 0.3)])
def test_drawn_points_are_decoded(decode, bar):
    generator = torch.Generator().manual_seed(0)
    points = 5 + 22 * torch.rand(4, 106, 2, generator=generator)
    found, scores = decode_heatmaps(pose.draw_gaussians(points, 32, 32, 1.5), decode)
    assert (found - points).abs().max() < bar
    assert (scores > 0.8).all()


def test_alphapose_decode_is_a_quarter_pixel_towards_the_higher_neighbour():
    heatmap = torch.zeros(1, 1, 16, 16)
    heatmap[0, 0, 7, 5], heatmap[0, 0, 7, 6], heatmap[0, 0, 6, 5] = 1.0, 0.5, 0.2
    found, _ = decode_heatmaps(heatmap, "alphapose")
    assert found[0, 0].tolist() == pytest.approx([5.25, 6.75])


@pytest.mark.parametrize("decode", DECODERS)
def test_flat_and_border_heatmaps_decode_to_finite_points(decode):
    corner = torch.zeros(1, 1, 8, 8)
    corner[0, 0, 0, 7] = 1
    for heatmaps in (torch.zeros(2, 106, 8, 8), corner, -torch.ones(1, 3, 8, 8)):
        found, _ = decode_heatmaps(heatmaps, decode)
        assert found.isfinite().all() and found.min() >= -1.5 and found.max() <= 8.5


def test_unknown_decode_names_the_choices():
    with pytest.raises(ValueError, match=r"'best'.*dark, alphapose"):
        decode_heatmaps(torch.zeros(1, 1, 8, 8), "best")


def test_mirrored_heatmaps_decode_to_mirrored_points():
    generator = torch.Generator().manual_seed(1)
    points = 5 + 22 * torch.rand(2, 106, 2, generator=generator)
    heatmaps = pose.draw_gaussians(points, 32, 32, 1.5)
    plain, _ = decode_heatmaps(heatmaps, "dark")
    mirrored, _ = decode_heatmaps(pose.mirror_heatmaps(heatmaps), "dark")
    assert torch.allclose(pose.mirror_points(mirrored, 32), plain, atol=1e-3)
    assert torch.equal(pose.mirror_heatmaps(pose.mirror_heatmaps(heatmaps)), heatmaps)


def test_points_return_to_the_image(rng):
    """image points -> crop -> heatmap -> Gaussian -> decode -> image."""
    boxes = random_boxes(rng, 8)
    affines = img.crop_affines(boxes, 128, 128)
    truth = boxes[:, None, :2] + rng.uniform(0.2, 0.8, (8, 106, 2)) * (boxes[:, None, 2:] - boxes[:, None, :2])
    heat = pose.crop_to_heatmap(torch.from_numpy(img.apply_affines(affines, truth)), 4)
    found, _ = decode_heatmaps(pose.draw_gaussians(heat, 32, 32, 1.5), "dark")
    found = img.apply_affines(img.invert_affines(affines), pose.heatmap_to_crop(found, 4).numpy())
    pixel = 4 / affines[:, 0, 0]  # a heatmap pixel in image pixels
    assert (np.abs(found - truth).max((1, 2)) < 0.1 * pixel).all()


def test_opencv_reads_our_affines_as_we_do(rng):
    """cv2.warpAffine puts a dot where apply_affines says."""
    picture = np.zeros((200, 200, 3), np.uint8)
    cv2.circle(picture, (80, 120), 5, (255, 255, 255), -1)
    crops, affines = img.crop_boxes(picture, np.array([[40.0, 60, 140, 160]]), 128, 128)
    y, x = np.argwhere(crops[0, ..., 0] > 200).mean(0)
    assert img.apply_affines(affines, np.array([[[80.0, 120]]]))[0, 0] == pytest.approx([x, y], abs=0.3)
