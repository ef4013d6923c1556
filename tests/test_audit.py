"""tools/audit.py: planted label errors are found, right labels are left alone; and the lists that it writes."""

import json
import shutil
import sys

import numpy as np
import pytest

from conftest import ROOT
from SPPE.src.landmarks import FLIP_ORDER, NUM_POINTS, PARTS
from tiny import SIDE, make_tiny_dataset, make_tiny_network
from utils.dataset import build_dataset
from utils.dataset.base import read_h5, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME
from utils.lists import listed, names_of, numbers_of, read_list, write_list

sys.path.append(str(ROOT / "train_sppe" / "src" / "tools"))
import audit

ORDER = list(FLIP_ORDER)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_dataset("dt_fac_106_ldmks", make_tiny_dataset(tmp_path_factory.mktemp("set") / "data"), "train")


def opinion_of(data, truth, doubt=0.01):
    """A network that finds every true point to about 1 %, and agrees with itself to `doubt`."""
    points = truth + np.random.default_rng(0).normal(0, 0.3, truth.shape)
    scale = np.full(len(truth), 40.0)
    errors = np.linalg.norm(points - data.points, axis=2) / scale[:, None]
    doubts = np.full_like(errors, doubt)
    parts = [np.stack([v[:, list(p)].mean(axis=1) for p in PARTS.values()], 1) for v in (errors, doubts)]
    return audit.Opinion(points, scale, errors, errors.mean(axis=1), doubts.mean(axis=1), *parts)


def judged(data, truth, doubt=0.01):
    reasons, sizes = [{} for _ in truth], np.full((len(truth), 2), SIDE)
    opinion = opinion_of(data, truth, doubt)
    audit.judge_residual(reasons, data, opinion, 0.1)
    audit.judge_swaps(reasons, data, opinion, sizes)
    audit.judge_outside(reasons, data, opinion, sizes)
    return reasons


def changed(data, row, points):
    other = data.take(np.arange(len(data)))
    other.points = data.points.copy()
    other.points[row] = points
    return other


def test_right_labels_are_left_alone(data):
    assert judged(data, data.points) == [{} for _ in data.images]


@pytest.mark.parametrize("kind", ["right swapped", "mirrored picture", "mirrored, but"])
def test_a_face_of_the_other_side_is_found(data, kind):
    mirror = data.points[2] * (-1, 1) + (SIDE - 1, 0)
    points = {"right swapped": data.points[2][ORDER], "mirrored picture": mirror[ORDER], "mirrored, but": mirror}
    reasons = judged(changed(data, 2, points[kind]), data.points)
    assert kind in reasons[2]["swap"]
    assert [bool(reason) for reason in reasons] == [row == 2 for row in range(len(data))]


def test_swapped_eyes_alone_are_found(data):
    points, eyes = data.points[1].copy(), list(PARTS["left_eye"] + PARTS["right_eye"])
    points[eyes] = data.points[1][[FLIP_ORDER[i] for i in eyes]]
    reasons = judged(changed(data, 1, points), data.points)
    assert "eyes" in reasons[1]["swap"]
    assert not any(reasons[:1] + reasons[2:])


def test_a_contour_that_slid_is_doubted_unless_the_network_doubts_itself(data):
    points, contour = data.points[0].copy(), list(PARTS["contour"])
    points[contour] += (12, 0)
    reasons = judged(changed(data, 0, points), data.points)
    assert "contour" in reasons[0]["residual"]
    assert not any(reasons[1:])
    assert judged(changed(data, 0, points), data.points, doubt=0.4)[0] == {}


def test_a_part_that_is_surely_off_is_found_beside_one_that_is_further_off(data):
    """The network doubts itself on the contour and not on the mouth."""
    points = data.points[0].copy()
    points[list(PARTS["contour"])] += (12, 0)
    points[list(PARTS["outer_lip"])] += (8, 0)
    other = changed(data, 0, points)
    opinion, reasons = opinion_of(other, data.points), [{} for _ in data.images]
    opinion.doubt[0], opinion.part_doubt[0, list(PARTS).index("contour")] = 1, 1
    audit.judge_residual(reasons, other, opinion, 0.1)
    assert "outer_lip" in reasons[0]["residual"] and not any(reasons[1:])


def test_a_point_far_outside_is_found_and_one_at_the_edge_is_not(data):
    points = data.points[3].copy()
    points[16] = (80, SIDE + 3)
    assert "outside" not in judged(changed(data, 3, points), data.points)[3]
    points[16] = (80, SIDE + 30)
    assert "point 16" in judged(changed(data, 3, points), data.points)[3]["outside"]


def test_copies_leave_one_whatever_their_labels(data):
    """Of a face that is there three times, with two labels alike and one not, one stays: not the doubtful one."""
    copies = data.take(np.array([0, 0, 0, 1, 2]))
    copies.points = copies.points.copy()
    copies.points[0, list(PARTS["contour"])] += (25, 0)
    looks = np.eye(5, dtype=np.float32)[[0, 0, 0, 1, 2]]
    reasons = [{} for _ in copies.images]
    truth = data.points[[0, 0, 0, 1, 2]]
    pairs = audit.judge_duplicates(reasons, copies, opinion_of(copies, truth), looks, list("abcde"))
    assert len(pairs) == 2
    assert list(reasons[0]) == ["conflict"]
    assert sorted(bool(reason) for reason in reasons[1:3]) == [False, True]
    assert not any(reasons[3:])


def test_the_command_finds_copies_and_leaks(tmp_path, capsys):
    """A copied picture in train, and one of val that is in train too; the other faces differ."""
    root = make_tiny_dataset(tmp_path / "data")
    everything = read_h5(root / FILE_NAME, root / "images")
    split = np.array(["val" if i % 4 == 3 else "train" for i in range(12)] + ["train", "val"])
    rows = np.array([*range(12), 4, 5])
    for number, row in ((12, 4), (13, 5)):
        shutil.copy(everything.images[row], root / "images" / f"copy_{number}.png")
    more = everything.take(rows)
    more.images[12:] = [root / "images" / f"copy_{number}.png" for number in (12, 13)]
    write_h5(root / FILE_NAME, more, root / "images", split)
    weights, out = make_tiny_network(tmp_path / "small.pth"), tmp_path / "out"
    given = ["--dataRoot", root, "--weights", weights, "--outdir", out, "--nThreads", 0, "--bar", 9]
    audit.main([str(argument) for argument in given])
    assert "1 duplicate" in capsys.readouterr().out
    found = json.loads((out / "audit.json").read_text())["faces"]
    reasons = {face["image"]: face["reasons"] for face in found}
    assert len(reasons) == 10
    assert "duplicate of face_04.png" in reasons["copy_12.png"]["duplicate"]
    assert "copy_13.png of val" in reasons["face_05.png"]["leak"]
    assert (out / "worst.jpg").is_file()
    assert (out / "duplicates.jpg").is_file()
    train = build_dataset("dt_fac_106_ldmks", root, "train")
    excluded = {name for name, out in zip(names_of(train, root), listed(train, root, out / "exclude.txt")) if out}
    assert {"copy_12.png", "face_05.png"} <= excluded


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    for arguments, told in (
        (["--dataRoot", "nowhere"], "no data set at nowhere"),
        (["--split", "dev"], "--split 'dev'"),
    ):
        with pytest.raises(SystemExit):
            audit.main([*arguments, "--outdir", str(tmp_path / "out")])
        assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# Lists


def test_a_list_comes_back_as_it_was_written(tmp_path):
    faces = [("a b/脸.png", None, ""), ("c.png", 2, "why not"), ("d.png", 0, "")]
    write_list(tmp_path / "list.txt", faces)
    assert read_list(tmp_path / "list.txt") == {(name, face) for name, face, _ in faces}


def test_lists_name_pictures_or_faces_in_them(data, tmp_path):
    twice = data.take(np.array([0, 0, 1]))
    root = data.images[0].parent.parent
    names = names_of(twice, root)
    assert numbers_of(names) == [0, 1, 0]
    path = tmp_path / "list.txt"
    path.write_text(f"# a remark\n\n{names[0]}\t1\nof_another_split.png\n", encoding="utf-8")
    assert listed(twice, root, path).tolist() == [False, True, False]
    path.write_text(f"{names[0]}\n", encoding="utf-8")
    assert listed(twice, root, path).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("text", "told"),
    [("a.png\tfirst\n", "line 1: 'a.png\\\\tfirst'"), ("nobody.png\n", "none of its 1 names is a picture of")],
)
def test_a_list_that_cannot_be_meant_is_refused(data, tmp_path, text, told):
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=told):
        listed(data, data.images[0].parent.parent, tmp_path / "list.txt")
    with pytest.raises(FileNotFoundError, match="no list at"):
        read_list(tmp_path / "nothing.txt")


def test_points_that_are_not_annotated_are_not_judged(data):
    other = changed(data, 0, np.full((NUM_POINTS, 2), 9999.0, np.float32))
    other.visible = data.visible.copy()
    other.visible[0, 1:] = 0
    other.points[0, 0] = data.points[0, 0]
    assert "outside" not in judged(other, data.points)[0]
    assert "swap" not in judged(other, data.points)[0]
