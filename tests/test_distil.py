"""tools/distil.py and tools/pseudo.py: labels from a mesh that tells the points, and from the network itself."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "train_sppe" / "src" / "tools"))

import distil
import pseudo

from SPPE.src.landmarks import FLIP_ORDER
from tiny import make_tiny_dataset, make_tiny_network
from utils.dataset.base import link_pictures, read_h5, write_h5
from utils.dataset.dt_fac_106_ldmks import FILE_NAME

WRONG = 3.0  # pixels that half of the people's labels are off


@pytest.fixture
def sets(tmp_path):
    """A labelled set whose labels err by WRONG, an "unlabelled" one, each with meshes, and the true points of both."""
    rng = np.random.default_rng(0)
    mixing = rng.dirichlet(np.full(106, 0.2), 478)  # each vertex is a mean of points
    shapes = rng.normal(0, 1, (5, 106, 2))  # faces differ in five ways
    mixing[distil.EYES[0]], mixing[distil.EYES[1]] = np.eye(106)[66], np.eye(106)[79]
    truth = {}
    for name, n in (("labelled", 60), ("unlabelled", 12)):
        root = tmp_path / name
        make_tiny_dataset(root, n=n)
        data = read_h5(root / FILE_NAME, root / "images")
        truth[name] = data.points + np.einsum("nk,kpd->npd", rng.normal(0, 0.7, (n, 5)), shapes)
        mirrored = (truth[name] * (-1, 1))[:, list(FLIP_ORDER)]
        vertices = np.stack([mixing @ truth[name], (mixing @ mirrored) * (-1, 1)], axis=1)
        vertices += rng.normal(0, 0.02, vertices.shape)
        np.savez(root / "mesh.npz", vertices=vertices.astype(np.float32))
        data.points = (truth[name] + rng.normal(0, WRONG / 2**0.5, truth[name].shape)).astype(np.float32)
        split = np.array(["train"] * n)
        split[: n // 6] = "val" if name == "labelled" else "train"
        write_h5(root / FILE_NAME, data, root / "images", split)
    return tmp_path, truth


def test_unlabelled_faces_get_the_points_that_their_mesh_tells(sets, capsys):
    root, truth = sets
    distil.main(
        ["--labelled", str(root / "labelled"), "--unlabelled", str(root / "unlabelled"), "--out", str(root / "out")]
    )
    assert "mesh to points: NME" in capsys.readouterr().out
    data = read_h5(root / "out" / FILE_NAME, root / "out" / "images", "train")
    assert len(data) == 12
    before = read_h5(root / "unlabelled" / FILE_NAME, root / "unlabelled" / "images")
    error = np.linalg.norm(data.points - truth["unlabelled"], axis=2).mean()
    assert error < 0.6 * np.linalg.norm(before.points - truth["unlabelled"], axis=2).mean()


def test_labels_and_mesh_together_are_better_than_labels(sets):
    root, truth = sets
    distil.main(["--labelled", str(root / "labelled"), "--out", str(root / "out")])
    before = read_h5(root / "labelled" / FILE_NAME, root / "labelled" / "images", "train")
    after = read_h5(root / "out" / FILE_NAME, root / "out" / "images", "train")
    wanted = truth["labelled"][10:]
    assert (
        np.linalg.norm(after.points - wanted, axis=2).mean()
        < 0.8 * np.linalg.norm(before.points - wanted, axis=2).mean()
    )
    kept, own = (read_h5(r / FILE_NAME, r / "images", "val").points for r in (root / "out", root / "labelled"))
    assert (kept == own).all()  # validation labels stay people's


def test_missing_meshes_are_named(sets, capsys):
    root, _ = sets
    (root / "labelled" / "mesh.npz").unlink()
    with pytest.raises(SystemExit):
        distil.main(["--labelled", str(root / "labelled"), "--out", str(root / "out")])
    assert "tools/mesh.py makes it" in capsys.readouterr().err


def test_a_steady_network_labels_and_an_unsteady_one_does_not(tmp_path, capsys):
    """Untrained, it answers by chance: its views scatter over the face."""
    examples = Path(__file__).resolve().parents[1] / "examples" / "imgs"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("joe_biden.jpg", "grace_hopper.jpg"):
        (pictures / name).symlink_to(examples / name)
    (pictures / "broken.jpg").write_bytes(b"no picture")
    shipped = Path(__file__).resolve().parents[1] / "models" / "sppe" / "face106-lite.pth"
    given = ["--images", str(pictures), "--out", str(tmp_path / "out"), "--spread", "0.04"]
    pseudo.main([*given, "--weights", str(shipped)])
    out = capsys.readouterr()
    assert "broken.jpg" in out.err
    data = read_h5(tmp_path / "out" / FILE_NAME, tmp_path / "out" / "images", "train")
    assert len(data) >= 2 and ((data.visible > 0).mean(axis=1) > 0.8).all()
    with pytest.raises(SystemExit):
        pseudo.main([*given, "--weights", str(make_tiny_network(tmp_path / "net"))])
    assert "a larger --spread keeps more" in capsys.readouterr().err


def test_labels_that_are_read_are_not_overwritten(sets, capsys):
    root, _ = sets
    with pytest.raises(SystemExit):
        distil.main(["--labelled", str(root / "labelled"), "--out", str(root / "labelled")])
    assert "would overwrite" in capsys.readouterr().err


def test_labels_lie_beside_the_pictures_that_they_are_of(tmp_path):
    for name in ("first", "second", "out"):
        (tmp_path / name).mkdir()
    for name in ("first", "second"):
        link_pictures(tmp_path / "out", tmp_path / name)
        assert (tmp_path / "out" / "images").resolve() == tmp_path / name
    (tmp_path / "second").rmdir()  # a link to nothing
    link_pictures(tmp_path / "out", tmp_path / "first")
    (tmp_path / "whole" / "images").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds other pictures"):
        link_pictures(tmp_path / "whole", tmp_path / "first")
