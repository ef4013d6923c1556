"""Trunks of the timm library under FastPose's head: built, trained, released and used by the demo, by name alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

import demo
from conftest import ROOT
from SPPE.src.main_fast_inference import Estimator, load_model
from SPPE.src.models.FastPose import config_of, createModel, sync_batch_norm
from SPPE.src.utils.img import MEAN_RGB
from test_train import data, train  # noqa: F401  fixtures

timm = pytest.importorskip("timm")
NAME = "timm:mobilenetv4_conv_small"


def test_any_trunk_of_stride_32_goes_under_the_head():
    for name in (NAME, "timm:resnet18"):
        model = createModel(7, backbone=name, duc=(64, 32)).eval()
        assert model(torch.zeros(2, 3, 64, 96)).shape == (2, 7, 16, 24)
        assert config_of(model.state_dict()) == model.config == {"nClasses": 7, "backbone": name, "duc": (64, 32)}


def test_synchronised_batch_norm_keeps_the_trunks_activations():
    model = createModel(7, backbone=NAME, duc=(64, 32)).eval()
    x = torch.rand(2, 3, 64, 64)
    before = model(x)
    converted = sync_batch_norm(model).eval()
    kinds = [type(module).__name__ for module in converted.modules()]
    assert "SyncBatchNormAct" in kinds and not any(kind.startswith("BatchNorm") for kind in kinds)
    norms = [module for module in converted.modules() if isinstance(module, torch.nn.SyncBatchNorm)]
    assert norms and torch.allclose(converted(x), before, atol=1e-5)


def test_the_published_networks_state_dict_knows_nothing_of_timm():
    model = createModel(7, depth=18, width=0.25, duc=(64, 64))
    assert not any("name" in key for key in model.state_dict()) and "backbone" not in config_of(model.state_dict())


def test_local_weights_start_the_trunk_as_timm_would(tmp_path):
    """The trunk's features of one of our crops are those of timm's own network on the picture as timm prepares it."""
    torch.manual_seed(1)
    theirs = timm.create_model("mobilenetv4_conv_small", num_classes=10).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # fresh statistics would hide a wrong input
            module.running_mean.uniform_(-0.5, 0.5)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = createModel(5, backbone=NAME, pretrained=tmp_path / "theirs.pth").preact.eval()
    picture = torch.rand(1, 3, 64, 64)
    mean, deviation = (torch.tensor(theirs.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.inference_mode():
        expected = theirs.forward_intermediates((picture - mean) / deviation, indices=1, intermediates_only=True)[-1]
        found = ours(picture - torch.tensor(MEAN_RGB).view(3, 1, 1))
    assert torch.allclose(found, expected, atol=1e-4) and expected.std() > 0.01


def test_what_cannot_stand_under_the_head_is_named(tmp_path):
    with pytest.raises(ValueError, match="'resnet18'; say timm:NAME"):
        createModel(5, backbone="resnet18")
    with pytest.raises(ValueError, match=r"'mobilenetv9'.*like it: "):
        createModel(5, backbone="timm:mobilenetv9")
    with pytest.raises(ValueError, match="vit_tiny_patch16_224"):
        createModel(5, backbone="timm:vit_tiny_patch16_224")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        createModel(5, backbone=NAME, pretrained=tmp_path / "none.pth")
    (tmp_path / "torn.pth").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"torn\.pth cannot be made"):
        createModel(5, backbone=NAME, pretrained=tmp_path / "torn.pth")
    with pytest.raises(ValueError, match="a timm trunk's weights"):
        createModel(5, pretrained=tmp_path / "torn.pth")


def test_train_release_and_demo(train, tmp_path, capsys):  # noqa: F811
    network = ("--expID", "mobile", "--duc", 64, 32, "--growth", 0.1, "--ema", "0.9")
    assert train(*network, "--nEpochs", 1, "--backbone", NAME) == 0
    folder = train.exp / "mobile"
    model, meta = load_model(folder / "model_1.pkl", nClasses=106)  # a bare state dict
    assert model.config["backbone"] == NAME and meta["input_size"] == (64, 64)
    fresh = createModel(106, backbone=NAME, duc=(64, 32)).state_dict()
    changed = [k for k, v in model.state_dict().items() if k.endswith("weight") and not torch.equal(v, fresh[k])]
    assert any(k.startswith("preact.net.") for k in changed) and "conv_out.weight" in changed

    assert train(*network, "--nEpochs", 2, "--backbone", NAME, "--Continue") == 0
    assert train(*network, "--nEpochs", 3, "--Continue") == 2
    assert f"started with --backbone {NAME}" in capsys.readouterr().err
    assert train("--expID", "other", "--nEpochs", 1, "--loadModel", folder / "model_1.pkl") == 2
    assert f"backbone {NAME}, here None" in capsys.readouterr().err

    released, tool = tmp_path / "mine.pth", ROOT / "train_sppe" / "src" / "tools" / "release.py"
    command = [sys.executable, str(tool), "--model", str(folder / "model_2.pkl"), "--out", str(released)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    estimator = Estimator(released, 106, device="cpu")
    assert estimator.input_size == (64, 64) and estimator.growth == 0.1
    box = np.array([[20.0, 20, 60, 60]])
    (crop,), (affine,) = estimator.crop(np.zeros((100, 100, 3), np.uint8), box)
    assert crop.shape == (64, 64, 3) and affine[0, 0] == pytest.approx(64 / 44)
    picture = ROOT / "examples" / "imgs" / "grace_hopper.jpg"
    assert demo.main(["--image", str(picture), "--sppe", str(released), "--outdir", str(tmp_path / "out")]) == 0
    (record,) = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert record["status"] in ("ok", "no_face")  # two epochs on twenty drawn faces promise no more
