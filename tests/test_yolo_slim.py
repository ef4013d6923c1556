"""A narrower network out of a trained one."""

import pytest
import torch

from yolo.darknet import Darknet
from yolo.detector import FACE_CFG
from yolo.slim import main, slim

WIDE_CFG = FACE_CFG.with_name("face106-wide.cfg")

CFG = """
[net]
width=32
height=32
channels=3
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters={}
size=1
stride=1
pad=1
activation=leaky
[convolutional]
batch_normalize=1
filters=8
size=3
stride=1
pad=1
activation=leaky
[shortcut]
from=-3
activation=linear
[convolutional]
filters=6
size=1
stride=1
pad=1
activation=linear
[yolo]
mask=0
anchors=8,10
classes=1
num=1
"""


@pytest.fixture
def network(tmp_path):
    """filters of the middle layer -> a Darknet of that width."""

    def build(filters, text=CFG):
        path = tmp_path / f"{filters}.cfg"
        path.write_text(text.format(filters))
        return Darknet(path).eval()

    return build


def test_filters_that_nothing_comes_out_of_are_the_ones_to_go(network):
    torch.manual_seed(0)
    wide = network(6)
    silent = [1, 4]
    for tensor in (wide.layers[1].norm.weight, wide.layers[1].norm.bias):
        tensor.data.normal_()
        tensor.data[silent] = 0
    narrow = slim(wide, network(4))
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(narrow(x), wide(x))
        wide.layers[1].norm.bias[0] = 9
        assert not torch.allclose(narrow(x), wide(x))


def test_what_cannot_be_narrowed_is_named(network):
    wide = network(6)
    with pytest.raises(ValueError, match=r"layer 1: 8 filters in .*8\.cfg, 6 to take from"):
        slim(wide, network(8))
    with pytest.raises(ValueError, match=r"layer 0 of .* cannot be narrowed"):
        slim(wide, network(7, CFG.replace("filters=8", "filters=4")))
    with pytest.raises(ValueError, match="has other layers"):
        slim(wide, network(5, CFG.replace("[shortcut]\nfrom=-3\nactivation=linear\n", "")))


def test_the_face_network_is_cut_from_the_wide_one(tmp_path):
    wide = Darknet(WIDE_CFG)
    wide.seen = 77
    wide.save_weights(tmp_path / "wide.weights")
    out = tmp_path / "new" / "slim.weights"
    main(
        ["--cfg", str(WIDE_CFG), "--weights", str(tmp_path / "wide.weights"), "--to", str(FACE_CFG), "--out", str(out)]
    )
    narrow = Darknet(FACE_CFG).load_weights(out)
    assert narrow.seen == 77
    assert sum(p.numel() for p in narrow.parameters()) < 0.7 * sum(p.numel() for p in wide.parameters())
    assert torch.equal(narrow.layers[0].conv.weight, wide.layers[0].conv.weight)
