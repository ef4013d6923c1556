"""Data sets: readers, splits, crops and their points; what is missing or malformed is named."""

import shutil

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from SPPE.src.landmarks import FLIP_ORDER, IBUG68, MEAN_FACE, NUM_POINTS, PARTS, PUPILS
from SPPE.src.utils.img import apply_affines, invert_affines
from SPPE.src.utils.pose import mirror_points
from tiny import face_shape, make_tiny_dataset
from utils.command import sentence
from utils.dataset import READERS, build_dataset
from utils.dataset.base import PUBLISHED_SIZES, Augmentation, FaceDataset, _rows, boxes_of, make_loader, read_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME
from utils.dataset.lapa import read_txt
from utils.dataset.w300 import read_pts
from utils.dpg import build_dpg

NAME = "dt_fac_106_ldmks"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_tiny_dataset(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture
def own(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made, tmp_path / "own")


def test_a_partly_annotated_face_has_the_whole_faces_box():
    """What is missing is where the mean face has it; a face with iBUG's 68 has the box of those."""
    turn = 80 * np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    points = (np.array(MEAN_FACE) / 1000 @ turn + (200, 150)).astype(np.float32)
    whole = boxes_of(points[None], np.ones((1, NUM_POINTS)))[0]
    for missing in (range(33), range(17, 33), [*range(51, 66), *range(84, 104)]):
        visible = np.full((1, NUM_POINTS), 2)
        visible[:, list(missing)] = 0
        assert boxes_of(np.where(visible[..., None] > 0, points, 0), visible)[0] == pytest.approx(whole, abs=0.1)
    visible = np.zeros((1, NUM_POINTS))
    visible[:, list(IBUG68)] = 1
    low, high = points[list(IBUG68)].min(0), points[list(IBUG68)].max(0)
    assert boxes_of(points[None], visible)[0][[0, 2, 3]] == pytest.approx([low[0], high[0], high[1]])
    visible[:, 4:] = 0
    assert boxes_of(points[None], visible)[0][[0, 2]] == pytest.approx([points[:3:2, 0].min(), points[:3:2, 0].max()])


# The drawn faces themselves


def test_the_drawn_face_is_symmetric_and_whole():
    shape = face_shape()
    assert np.isfinite(shape).all()
    assert shape[list(FLIP_ORDER)] * (-1, 1) == pytest.approx(shape)


# The builder


def test_builder_reads_both_splits(made):
    train, val = (build_dataset(NAME, made, split) for split in ("train", "val"))
    assert (len(train), len(val), len(build_dataset(NAME, made, "test"))) == (9, 3, 0)
    assert train.points.shape == (9, NUM_POINTS, 2)
    assert train.boxes.shape == (9, 4)
    assert (train.visible == 2).all()
    assert val.attributes["half"].tolist() == ["first", "second", "second"]
    assert not set(train.images) & set(val.images)


@pytest.mark.parametrize(
    ("name", "split", "told"),
    [
        ("celeba", "train", "unknown data set 'celeba'; choose one of dt_fac_106_ldmks, lapa, 300w"),
        ("coco", "train", "17 body joints"),
        (NAME, "dev", "unknown split 'dev'; choose one of train, val, test"),
    ],
)
def test_builder_names_what_it_does_not_know(made, name, split, told):
    with pytest.raises(ValueError, match=told):
        build_dataset(name, made, split)


@pytest.mark.parametrize("name", READERS)
def test_builder_names_a_missing_folder(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no data set at .*nowhere"):
        build_dataset(name, tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        build_dataset(name, tmp_path, "train")


# HDF5


def change(folder, name, value=None):
    """Replace (or take away) one data set of the file."""
    with h5py.File(folder / FILE_NAME, "a") as file:
        if name in file:
            del file[name]
        if value is not None:
            file[name] = value


def read(folder, split=None):
    return read_h5(folder / FILE_NAME, folder / "images", split)


def test_alphapose_character_codes_are_names(own):
    names = [path.name for path in read(own).images]
    codes = np.zeros((len(names), 16))
    for row, name in enumerate(names):
        codes[row, : len(name)] = list(map(ord, name))
    change(own, "imgname", codes)
    assert [path.name for path in read(own).images] == names


def test_alphapose_marks_unannotated_points_by_zeros(own):
    points = read(own).points
    points[2, 7] = 0
    change(own, "part", points)
    change(own, "visible")
    visible = read(own).visible
    assert visible[2, 7] == 0
    assert (visible > 0).sum() == visible.size - 1


def test_split_files_come_first(own):
    (own / "train.txt").write_text("face_03.png\nface_01.png\n\n", encoding="utf-8")
    (own / "val.txt").write_text("face_02.png\r\n", encoding="utf-8")
    assert [p.name for p in read(own, "train").images] == ["face_01.png", "face_03.png"]
    assert [p.name for p in read(own, "val").images] == ["face_02.png"]
    with pytest.raises(FileNotFoundError, match=r"test\.txt"):
        read(own, "test")


def test_split_files_name_pictures_with_all_their_faces(own):
    names = [path.name for path in read(own).images]
    change(own, "imgname", np.array([names[0]] * 2 + names[2:], dtype=h5py.string_dtype()))
    (own / "val.txt").write_text(names[0], encoding="utf-8")
    assert len(read(own, "val")) == 2


def test_split_file_with_an_unknown_name(own):
    (own / "val.txt").write_text("face_03.png\nface_99.png\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"val\.txt, line 2: 'face_99\.png' is not in the annotations"):
        read(own, "val")


def test_published_sizes_without_a_split(own, tmp_path):
    total = sum(PUBLISHED_SIZES.values())
    rows = {split: _rows(split, ["name"] * total, None, tmp_path) for split in PUBLISHED_SIZES}
    assert {split: len(r) for split, r in rows.items()} == PUBLISHED_SIZES
    assert np.concatenate(list(rows.values())).tolist() == list(range(total))
    change(own, "split")
    assert [len(read(own, split)) for split in PUBLISHED_SIZES] == [9, 1, 2]  # 12 faces in the same proportions


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("part", None, r"lacks the data set\(s\) part"),
        ("part", np.ones((12, 68, 2)), r"part is \(12, 68, 2\); 12 imgname need \(12, 106, 2\)"),
        ("bndbox", np.ones((12, 1, 5)), r"bndbox is \(12, 1, 5\)"),
        ("visible", np.ones((12, 68)), r"visible is \(12, 68\)"),
        ("bndbox", np.ones((12, 4)), r"row 0 \(face_00\.png\) has a box that is not x1 < x2, y1 < y2; 12 such rows"),
        ("visible", np.zeros((12, 106)), r"row 0 \(face_00\.png\) has no annotated point"),
        ("part", np.full((12, 106, 2), np.nan), r"row 0 \(face_00\.png\) has a point that is not a finite number"),
    ],
)
def test_malformed_files_are_named(own, name, value, told):
    change(own, name, value)
    with pytest.raises(ValueError, match=f"{FILE_NAME}.*{told}"):
        read(own)


def test_a_truncated_file_is_named(own):
    whole = (own / FILE_NAME).read_bytes()
    (own / FILE_NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a whole HDF5 file"):
        read(own)


def test_missing_pictures_are_named(own):
    (own / "images" / "face_05.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"row 5: no picture at .*face_05\.png; 1 missing in all"):
        read(own, "train")
    assert len(read(own, "val")) == 3
    shutil.rmtree(own / "images")
    with pytest.raises(FileNotFoundError, match="no pictures' folder"):
        read(own)


# Crops


def test_points_lie_where_the_crop_shows_them(made):
    """However a crop is turned, scaled and mirrored, the pupils stay the dark discs and the sclera white."""
    data = FaceDataset(build_dataset(NAME, made, "train"), (128, 128), Augmentation(), build_dpg("face"))
    white = [66, 70, 75, 79]
    for epoch in range(4):
        data.set_epoch(epoch)
        for sample in data:
            crop, points = sample["crop"].numpy().astype(int), sample["points"].numpy()
            inside = ((points > 2) & (points < 125)).all(axis=1)
            x, y = np.rint(points[list(PUPILS)]).clip(0, 127).astype(int).T
            if inside[list(PUPILS)].all():
                assert (crop[y, x] < 80).all()
            if inside[white].all():  # a quarter of the way from the corner to the centre
                x, y = np.rint(0.75 * points[white] + 0.25 * points[[104, 104, 105, 105]]).astype(int).T
                assert (crop[y, x] > 180).all()


def test_affine_leads_back_to_the_picture(made):
    annotations = build_dataset(NAME, made, "train")
    for sample in FaceDataset(annotations, (96, 64), Augmentation(flip=0.0), build_dpg("face")):
        back = apply_affines(invert_affines(sample["affine"].numpy()), sample["points"].numpy())
        assert back == pytest.approx(annotations.points[sample["index"]], abs=1e-3)


def test_a_mirrored_sample_is_the_mirror_image(made):
    annotations = build_dataset(NAME, made, "train")
    still = dict.fromkeys(("scale", "rotate", "shift"), 0.0)
    plain = FaceDataset(annotations, (128, 128))[0]
    mirrored = FaceDataset(annotations, (128, 128), Augmentation(**still, flip=1.0))[0]
    assert mirrored["points"].numpy() == pytest.approx(mirror_points(plain["points"].numpy(), 128), abs=1e-3)
    # the points are shown, not only said: left of the picture is left
    assert mirrored["points"][PUPILS[0], 0] < mirrored["points"][PUPILS[1], 0]
    difference = mirrored["crop"].flip(1).int() - plain["crop"].int()
    assert difference.abs().float().mean() < 2  # both were interpolated


def test_a_mirrored_mask_is_mirrored_too(tmp_path):
    annotations = build_dataset(NAME, make_tiny_dataset(tmp_path / "set", n=4, unannotated=(33, 74)), "train")
    flips = {}
    for flip in (0.0, 1.0):
        sample = FaceDataset(annotations, (64, 64), Augmentation(flip=flip))[0]
        flips[flip] = (sample["mask"] == 0).nonzero().flatten().tolist()
        assert (sample["points"][flips[flip]] == 0).all()
    assert flips == {0.0: [33, 74], 1.0: [46, 83]}


def test_samples_depend_on_seed_epoch_and_index_alone(made):
    annotations = build_dataset(NAME, made, "train")

    def points(seed, epochs, workers=0):
        data = FaceDataset(annotations, (64, 64), Augmentation(), build_dpg("face"), seed)
        loader = make_loader(data, 4, workers)
        for epoch in epochs:  # the last one's; processes live on from epoch to epoch
            data.set_epoch(epoch)
            drawn = torch.cat([batch["points"] for batch in loader])
        return drawn

    assert torch.equal(points(0, [1]), points(0, [2, 1], workers=1))
    assert not torch.equal(points(0, [1]), points(0, [2]))
    assert not torch.equal(points(0, [1]), points(1, [1]))


def test_a_face_that_comes_again_is_drawn_anew(made):
    data = FaceDataset(build_dataset(NAME, made, "train"), (64, 64), Augmentation())
    first, same, again = data[1], data[1, 0], data[1, 1]
    assert torch.equal(first["points"], same["points"]) and first["index"] == again["index"] == 1
    assert not torch.equal(first["points"], again["points"])


def test_cached_pictures_give_the_same_samples(made):
    annotations = build_dataset(NAME, made, "val")
    plain, cached = (FaceDataset(annotations, (64, 64), cache=cache) for cache in (False, True))
    assert all(torch.equal(a["crop"], b["crop"]) for a, b in zip(plain, cached))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_told_in_one_sentence(own, workers):
    annotations = build_dataset(NAME, own, "val")
    annotations.images[1].write_bytes(b"no picture")
    with pytest.raises(ValueError) as caught:
        list(DataLoader(FaceDataset(annotations, (64, 64)), 4, num_workers=workers))
    assert sentence(caught.value).startswith(str(annotations.images[1]))


# LaPa and 300-W


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((64, 64, 3), np.uint8))


def write_lapa(path, points):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("106\n" + "".join(f"{x} {y}\n" for x, y in points), encoding="utf-8")


def write_pts(path, points):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{x} {y}\n" for x, y in points)
    path.write_text(f"version: 1\nn_points:  {len(points)}\n{{\n{lines}}}\n", encoding="utf-8")


def test_lapa(tmp_path):
    points = 20 * face_shape() + 32
    for split, count in (("train", 2), ("val", 1)):
        for i in range(count):
            picture(tmp_path / split / "images" / f"{i}.jpg")
            write_lapa(tmp_path / split / "landmarks" / f"{i}.txt", points)
    train = build_dataset("lapa", tmp_path, "train")
    assert [p.name for p in train.images] == ["0.jpg", "1.jpg"]
    assert train.points[1] == pytest.approx(points, abs=1e-4)
    assert (train.visible == 2).all()
    assert train.boxes[0, [0, 3]] == pytest.approx([12, 32 + 24], abs=1e-4)  # left cheek and chin
    assert len(build_dataset("lapa", tmp_path, "val")) == 1
    with pytest.raises(FileNotFoundError, match=r"test.landmarks"):
        build_dataset("lapa", tmp_path, "test")


def test_lapa_picture_missing_or_twice(tmp_path):
    picture(tmp_path / "train" / "images" / "a.jpg")
    write_lapa(tmp_path / "train" / "landmarks" / "b.txt", face_shape())
    with pytest.raises(FileNotFoundError, match=r"b\.txt: no picture of that name in .*images"):
        build_dataset("lapa", tmp_path, "train")
    picture(tmp_path / "train" / "images" / "b.jpg")
    picture(tmp_path / "train" / "images" / "b.png")
    with pytest.raises(ValueError, match=r"b\.txt: several pictures of that name .*b\.jpg, b\.png"):
        build_dataset("lapa", tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("68\n", r"line 1: '68', expected the number of points, 106"),
        ("", r"line 1: '', expected"),
        ("106\n1 2\n3 4 5\n", r"line 3: '3 4 5' is not a pair of numbers"),
        ("106\n1 2\nthree 4\n", r"line 3: 'three 4' is not a pair of numbers"),
        ("106\n" + "1 2\n" * 105, r"105 points, expected 106"),
        ("106\n" + "1 2\n" * 107, r"107 points, expected 106"),
    ],
)
def test_malformed_lapa_files_are_named(tmp_path, text, told):
    path = tmp_path / "face.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"face\.txt.*{told}"):
        read_txt(path)


def test_300w(tmp_path):
    points = (20 * face_shape() + 32)[list(IBUG68)]
    parts = ("afw", "helen/trainset", "lfpw/trainset", "helen/testset", "lfpw/testset", "ibug")
    for part in parts:
        picture(tmp_path / part / "image 1.png")
        write_pts(tmp_path / part / "image 1.pts", points + 1)  # its first pixel is (1, 1)
    sets = {split: build_dataset("300w", tmp_path, split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in sets.items()} == {"train": 3, "val": 2, "test": 3}
    assert sets["train"].attributes["source"].tolist() == ["afw", "helen/trainset", "lfpw/trainset"]
    data = sets["test"]
    assert (data.visible[0] > 0).nonzero()[0].tolist() == sorted(IBUG68)
    assert data.points[0][list(IBUG68)] == pytest.approx(points, abs=1e-4)
    assert data.boxes[0, [0, 3]] == pytest.approx([12, 32 + 24], abs=1e-4)
    sample = FaceDataset(data, (64, 64), Augmentation(flip=1.0))[0]
    assert sample["mask"].sum() == 68


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 2\n3 4\n", "not a .pts file"),
        ("version: 1\nn_points: 68\n{\n1 2\n", "not a .pts file"),
        ("version: 1\n{\n}\n", "n_points is missing, expected 68"),
        ("version: 1\nn_points: 49\n{\n}\n", "n_points is 49, expected 68"),
        ("version: 1\nn_points: 68\n{\n1 2\n1,2\n}\n", "line 5: '1,2' is not a pair"),
        ("version: 1\nn_points: 68\n{\n1 2\n}\n", "1 points, expected 68"),
    ],
)
def test_malformed_pts_files_are_named(tmp_path, text, told):
    path = tmp_path / "face.pts"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"face\.pts.*{told}"):
        read_pts(path, (68,))


def test_the_parts_of_a_drawn_face_are_annotated_in_order(made):
    """A left eye left of the right eye, brows above eyes, mouth below: the order of the points is the schema's."""
    points = build_dataset(NAME, made, "train").points
    middle = {part: points[:, list(indices)].mean(axis=1) for part, indices in PARTS.items()}
    assert (middle["left_eye"][:, 0] < middle["right_eye"][:, 0]).all()
    assert (middle["left_brow"][:, 1] < middle["left_eye"][:, 1]).all()
    assert (middle["inner_lip"][:, 1] > middle["nose"][:, 1]).all()
