"""FastPose: AlphaPose's names and values, its smaller sisters, weights files."""

import pytest
import torch
from torch import nn

from SPPE.src.main_fast_inference import Estimator, InferenNet, InferenNet_fast, load_checkpoint, load_model
from SPPE.src.models.FastPose import config_of, createModel
from SPPE.src.models.layers.DUC import DUC
from SPPE.src.models.layers.SE_module import SELayer
from SPPE.src.models.layers.SE_Resnet import SEResnet
from SPPE.src.utils.pose import mirror_heatmaps

SMALL = {"depth": 18, "width": 0.25, "duc": (64, 64)}


def test_published_network_has_alphaposes_parameters():
    model = createModel(nClasses=106)
    state = model.state_dict()
    assert len(state) == 654
    assert sum(p.numel() for p in model.parameters()) == 59_672_490
    assert {key.split(".")[0] for key in state} == {"preact", "duc1", "duc2", "conv_out"}
    gates = {key.rsplit(".", 1)[0] for key in state if ".se." in key}
    assert gates == {f"preact.layer{stage}.0.se.fc.{i}" for stage in (1, 2, 3, 4) for i in (0, 2)}
    assert state["preact.layer4.0.se.fc.0.weight"].shape == (2048, 2048)  # reduction 1
    assert state["duc1.conv.weight"].shape == (1024, 512, 3, 3)
    assert state["duc2.conv.weight"].shape == (512, 256, 3, 3)


@pytest.mark.parametrize("depth", [18, 50, 101])
def test_trunk_without_gates_is_torchvisions_resnet(depth):
    try:
        from torchvision import models
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        pytest.skip(f"torchvision does not load beside this torch: {error}")
    torch.manual_seed(0)
    ours, theirs = SEResnet(depth).eval(), getattr(models, f"resnet{depth}")().eval()
    for module in ours.modules():
        if isinstance(getattr(module, "se", None), SELayer):
            module.se = nn.Identity()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    ours.load_state_dict(state)
    body = nn.Sequential(*list(theirs.children())[:-2])
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.allclose(ours(x), body(x), atol=1e-4)


def test_se_layer_by_hand():
    layer = SELayer(2)
    for p in layer.parameters():
        nn.init.zeros_(p)
    nn.init.eye_(layer.fc[0].weight)
    nn.init.eye_(layer.fc[2].weight)
    x = torch.stack([torch.full((4, 4), 2.0), torch.full((4, 4), -1.0)])[None]
    gate = torch.sigmoid(torch.tensor([2.0, 0.0]))
    assert torch.allclose(layer(x), x * gate[None, :, None, None])


def test_duc_moves_channels_to_space():
    duc = DUC(8, 16).eval()
    assert duc(torch.randn(2, 8, 5, 7)).shape == (2, 4, 10, 14)


@pytest.mark.parametrize(
    "numbers",
    [
        SMALL,
        {"depth": 34, "width": 0.5, "duc": (128, 64)},
        {"depth": 50, "width": 0.25, "duc": (64, 64)},
        {**SMALL, "lateral": True},
        {"depth": 50, "width": 0.25, "duc": (32, 64), "lateral": True},
    ],
)
def test_config_is_read_back_from_the_weights(numbers):
    model = createModel(7, **numbers).eval()
    assert config_of(model.state_dict()) == {"nClasses": 7, **numbers}
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 7, 16, 24)


def test_a_width_between_whole_channels_is_what_the_weights_tell():
    model = createModel(7, depth=18, width=0.7, duc=(64, 64))
    assert config_of(model.state_dict()) == model.config


def test_lateral_connections_start_without_effect_and_then_carry_detail():
    torch.manual_seed(0)
    plain, lateral = createModel(7, **SMALL).eval(), createModel(7, **SMALL, lateral=True).eval()
    missing = lateral.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("lateral.") for name in missing)
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(plain(x), lateral(x))
    lateral(x).sum().backward()
    assert all(connection.weight.grad.abs().max() > 0 for connection in lateral.lateral)


def test_a_deeper_trunk_starts_as_the_shallower_one():
    torch.manual_seed(0)
    shallow, deep = SEResnet(18, 0.25).eval(), SEResnet(22, 0.25).eval()
    missing = deep.load_state_dict(shallow.state_dict(), strict=False).missing_keys
    assert {name.split(".")[1] for name in missing} == {"2"}
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(shallow(x), deep(x))


def test_lateral_connections_are_the_se_resnets():
    with pytest.raises(ValueError, match="not for timm:resnet18"):
        createModel(7, backbone="timm:resnet18", lateral=True)


def test_unknown_depth_names_the_choices():
    with pytest.raises(ValueError, match=r"19.*\[18, 22, 34, 50, 101\]"):
        createModel(106, depth=19)


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save(createModel(106, **SMALL).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_bare_wrapped_half_and_prefixed_weights_load_alike(weights, tmp_path):
    state, _ = load_checkpoint(weights)
    wrapped = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in state.items()}
    torch.save({"state_dict": wrapped, "meta": {"input_size": (128, 128)}}, tmp_path / "wrapped.pth")
    again, meta = load_checkpoint(tmp_path / "wrapped.pth")
    assert meta == {"input_size": (128, 128)}
    assert state.keys() == again.keys()
    assert all(torch.allclose(state[k].float(), again[k].float(), atol=1e-3) for k in state)


def test_flip_test_is_the_mean_of_both_sides(weights):
    plain, both = InferenNet_fast(weights=weights), InferenNet(weights=weights)
    plain.eval(), both.eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        mean = (plain(x) + mirror_heatmaps(plain(x.flip(3)))) / 2
        assert torch.allclose(both(x), mean, atol=1e-5)
        assert torch.allclose(both(x.flip(3)), mirror_heatmaps(both(x)), atol=1e-5)


def test_bf16_estimates_are_those_of_fp32(weights):
    import numpy as np

    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    maps = [Estimator(weights, device="cpu", precision=p).heatmaps(crops) for p in ("fp32", "bf16")]
    assert (maps[0] - maps[1]).abs().max() < 0.02 * maps[0].abs().max() + 0.01


def test_wrong_weights_are_named(weights, tmp_path):
    with pytest.raises(ValueError, match=r"106 points, not 68; say --nClasses 106"):
        load_model(weights, nClasses=68)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_model(tmp_path / "nowhere.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"broken\.pth cannot be read"):
        load_model(broken)
    torch.save({"some.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: not the state dict of a FastPose"):
        load_model(tmp_path / "other.pth")


def test_pickled_objects_are_refused(tmp_path):
    torch.save({"state_dict": createModel(3, **SMALL)}, tmp_path / "object.pth")
    with pytest.raises(ValueError, match=r"object\.pth cannot be read"):
        load_checkpoint(tmp_path / "object.pth")
