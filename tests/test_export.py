"""Exported files and runtimes against PyTorch, with the shipped weights on the example photographs."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import export
from predictor import FacePredictor
from runtime import OnnxRuntime, OpenVino, load_runtime, to_onnx
from SPPE.src.landmarks import NUM_POINTS
from SPPE.src.main_fast_inference import WEIGHTS_FOLDER, Estimator, Landmarker, load_model
from SPPE.src.models.FastPose import FastPose
from SPPE.src.utils.eval import DECODERS
from SPPE.src.utils.imread import load_image
from yolo.detector import Detector, Finder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "imgs"
LITE = WEIGHTS_FOLDER / "face106-lite.pth"
SMALL = {"depth": 18, "width": 0.25, "duc": (64, 64)}


@pytest.fixture(scope="module")
def portrait():
    return load_image(EXAMPLES / "nikola_tesla.jpg")


@pytest.fixture
def few(tmp_path):
    """A folder with one small photograph and one broken one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    shutil.copy(EXAMPLES / "nikola_tesla.jpg", folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_runtimes_find_the_same_faces(portrait, runtime):
    expected = FacePredictor(device="cpu", precision="fp32")(portrait)
    found = FacePredictor(runtime=runtime, precision="fp32")(portrait)
    assert len(found) == len(expected) > 0
    for a, b in zip(found, expected):
        assert np.abs(a.landmarks - b.landmarks).max() < 0.1 * max(1, np.ptp(b.box[0::2]) / 128)
        assert np.abs(a.confidence - b.confidence).max() < 0.01
        assert np.abs(a.box - b.box).max() < 0.5


@pytest.mark.parametrize("decode", DECODERS)
@pytest.mark.parametrize("flip", [False, True])
def test_every_decode_is_the_same_inside_the_graph(decode, flip):
    crops = np.random.default_rng(0).integers(0, 256, (3, 128, 128, 3), np.uint8)
    affines = np.tile(np.eye(2, 3), (3, 1, 1))
    plain = Estimator(LITE, device="cpu", precision="fp32", flip=flip, decode=decode)(crops, affines)
    other = Estimator(LITE, flip=flip, decode=decode, runtime=OnnxRuntime("fp32"))(crops, affines)
    close = np.abs(plain[0] - other[0]).max(-1) < 0.1
    assert close.mean() > 0.98  # noise has twin peaks, of which either may be the highest by a rounding
    assert np.abs(plain[1] - other[1]).max() < 1e-3


def test_a_runtime_takes_batches_of_any_length_and_threads():
    crops = np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3), np.uint8)
    affines = np.tile(np.eye(2, 3), (5, 1, 1))
    for kind in (OnnxRuntime, OpenVino):
        estimator = Estimator(LITE, runtime=kind("fp32"))
        together = estimator(crops, affines)[1]
        alone = np.concatenate([estimator(crops[i : i + 1], affines[i : i + 1])[1] for i in range(5)])
        assert np.abs(together - alone).max() < 1e-3
        assert estimator(crops[:0], affines[:0])[0].shape == (0, NUM_POINTS, 2)


def test_the_command_writes_files_that_onnx_runtime_reads(few, tmp_path, capsys):
    options = ["--images", str(few), "--outdir", str(tmp_path)]
    assert export.main([*options, "--with-decode"]) == 0
    told = capsys.readouterr()
    assert "broken.jpg" in told.err and told.out.count("at most 0.0") == 2
    points, scores = OnnxRuntime().load((tmp_path / "face106-lite.onnx").read_bytes())(
        np.zeros((2, 128, 128, 3), np.uint8)
    )
    assert points.shape == (2, NUM_POINTS, 2) and scores.shape == (2, NUM_POINTS)
    model = onnx.load(tmp_path / "face106-det.onnx")
    assert [d.dim_param for d in model.graph.input[0].type.tensor_type.shape.dim[:3]] == ["batch", "height", "width"]
    assert {entry.key for entry in model.metadata_props} >= {"weights_sha256", "cfg"}
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("form", ["torchscript", "pt2"])
def test_torchs_own_formats(few, tmp_path, form):
    assert export.main(["--detector", "none", "--format", form, "--images", str(few), "--outdir", str(tmp_path)]) == 0
    assert [path.suffix for path in tmp_path.glob("face106-lite*")] == [f".{form}"]


def test_a_file_that_differs_is_not_written(few, tmp_path, capsys, monkeypatch):
    def other(graph, example):
        torch.manual_seed(0)
        stranger = FastPose(NUM_POINTS, **SMALL).eval()
        return export.to_onnx(Landmarker(stranger, None, (128, 128)), example)

    monkeypatch.setitem(export.FORMATS, "onnx", other)
    assert export.main(["--detector", "none", "--images", str(few), "--outdir", str(tmp_path)]) == 2
    assert "is not written" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.onnx"))


def test_int8_runs_and_is_tied_to_its_weights(few, tmp_path, portrait):
    lite = shutil.copy(LITE, tmp_path)
    with pytest.raises(ValueError, match=r"int8 needs .*export.py --int8"):
        Estimator(lite, runtime=load_runtime("onnx", "int8"))
    assert export.main(["--sppe", str(lite), "--detector", "none", "--int8", "--images", str(few)]) == 0
    assert (tmp_path / "face106-lite.int8.onnx").stat().st_size < 0.5 * sum(
        4 * p.numel() for p in load_model(LITE)[0].parameters()
    )
    box = FacePredictor(device="cpu", precision="fp32")(portrait)[0].box
    crops, affines = Estimator(lite, device="cpu").crop(portrait, box[None])
    exact = Estimator(lite, device="cpu", precision="fp32")(crops, affines)[0]
    for name in ("onnx", "openvino"):
        points = Estimator(lite, runtime=load_runtime(name, "int8"))(crops, affines)[0]
        distance = np.linalg.norm(points - exact, axis=-1)
        assert 0 < np.median(distance) < 0.03 * np.ptp(box[0::2])
    with pytest.raises(ValueError, match="decode"):
        Estimator(lite, decode="alphapose", runtime=load_runtime("onnx", "int8"))


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_the_shipped_networks_run_in_8_bits(runtime, portrait):
    """Their quantised twins are of the weights beside them: after a new training, export.py --int8 makes them anew."""
    (face,) = FacePredictor(runtime=runtime, precision="int8")(portrait)
    (exact,) = FacePredictor(device="cpu", precision="fp32")(portrait)
    assert np.linalg.norm(face.landmarks - exact.landmarks, axis=1).mean() < 0.02 * np.ptp(exact.box[0::2])


def test_last_convolutions_are_those_whose_output_is_decoded():
    detector, lite = Detector(), Estimator(LITE, device="cpu")
    graphs = Finder(detector.net.float()), Landmarker(lite.net, "dark", lite.input_size)
    sides = 64, lite.input_size[0]
    heads, out = (
        export.last_convolutions(
            onnx.load_model_from_string(to_onnx(graph, np.zeros((1, side, side, 3), np.uint8))).graph
        )
        for graph, side in zip(graphs, sides)
    )
    assert len(heads) == 3  # one a stride
    assert [name.split("/")[-2] for name in out] == ["conv_out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tensorrt",), "unknown runtime 'tensorrt'"),
        (("onnx", "bf16"), "precision 'bf16'"),
        (("openvino", "auto", "cuda"), "runs on the CPU"),
    ],
)
def test_what_a_runtime_cannot_do_is_said(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_runtime(*arguments)


def test_impossible_exports_are_said(tmp_path, capsys):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert export.main(["--images", str(tmp_path), "--outdir", str(tmp_path)]) == 2
    assert "none of the pictures" in capsys.readouterr().err
    assert export.main(["--int8"]) == 2
    assert "--images" in capsys.readouterr().err
    assert export.main(["--format", "caffe"]) == 2
    assert "caffe" in capsys.readouterr().err
