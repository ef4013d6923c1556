"""train.py on a drawn data set: stages, resume, bad use; by main(), or as a process of its own."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
import torch

from tiny import make_tiny_dataset

SRC = Path(__file__).resolve().parents[1] / "train_sppe" / "src"
SMALL = [
    *("--depth", "18", "--width", "0.25", "--duc", "64", "64", "--trainBatch", "4", "--validBatch", "4"),
    *("--inputResH", "64", "--inputResW", "64", "--outputResH", "16", "--outputResW", "16"),
    *("--nThreads", "0", "--precision", "fp32", "--device", "cpu", "--LR", "1e-3"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_dataset(folder, n=20)
    return folder


@pytest.fixture
def train(tmp_path, monkeypatch, data):
    """The training command with its outputs under tmp_path: (arguments) -> exit code; and the experiments' folder."""
    spec = importlib.util.spec_from_file_location("sppe_train", SRC / "train.py")
    before = sys.modules.pop("opt", None)
    monkeypatch.syspath_prepend(str(SRC))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop("opt", None)
    if before:
        sys.modules["opt"] = before
    (tmp_path / "src").mkdir()
    monkeypatch.setattr(module, "HERE", tmp_path / "src")

    def command(*arguments):
        try:
            module.main([*SMALL, "--dataRoot", str(data), *map(str, arguments)])
        except SystemExit as end:
            return end.code
        return 0

    command.exp = tmp_path / "exp" / "coco"
    return command


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_two_stages_write_what_alphapose_users_expect(train):
    assert train("--expID", "stg_1", "--nEpochs", 2) == 0
    state = torch.load(train.exp / "stg_1" / "model_2.pkl", weights_only=True)
    assert all(isinstance(v, torch.Tensor) for v in state.values()) and "conv_out.weight" in state
    stage_1 = train.exp / "stg_1" / "model_2.pkl"
    assert train("--expID", "stg_2", "--nEpochs", 1, "--loadModel", stage_1, "--addDPG", "--pdb", "--LR", "1e-5") == 0
    assert (train.exp / "stg_2" / "model_1.pkl").is_file()
    assert list((train.exp.parents[1] / "src" / ".tensorboard" / "coco" / "stg_2").glob("events*"))
    assert [set(entry) >= {"epoch", "train/loss", "val/nme"} for entry in log(train.exp / "stg_1")] == [True, True]


def test_a_broken_run_continues_on_the_same_curve(train):
    common = ("--ema", "0.9", "--schedule", "cosine", "--warmup", 3, "--optMethod", "adamw")
    assert train("--expID", "whole", "--nEpochs", 4, *common) == 0

    class Killed(BaseException):
        pass

    # the same run, cut in its third epoch
    module_train = sys.modules["engine"].train_one_epoch
    calls = []

    def cut(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return module_train(*args, **kwargs)

    sys.modules["engine"].train_one_epoch = cut
    try:
        with pytest.raises(Killed):
            train("--expID", "cut", "--nEpochs", 4, *common)
    finally:
        sys.modules["engine"].train_one_epoch = module_train
    assert len(log(train.exp / "cut")) == 2
    assert train("--expID", "cut", "--nEpochs", 4, "--Continue", *common) == 0
    assert log(train.exp / "cut") == log(train.exp / "whole")
    assert train("--expID", "cut", "--nEpochs", 4, "--Continue", *common) == 0  # nothing left to do, nothing changes
    assert log(train.exp / "cut") == log(train.exp / "whole")
    models = [torch.load(train.exp / run / "model_4.pkl", weights_only=True) for run in ("whole", "cut")]
    assert all(torch.equal(models[0][k], models[1][k]) for k in models[0])


def test_a_run_that_goes_on_with_other_steps_keeps_its_curve(train):
    """Half of its epochs are done: the rate is half of what it was, however many steps an epoch now has."""
    common = ("--expID", "a", "--schedule", "cosine", "--LR", 1e-3)
    assert train(*common, "--nEpochs", 4, "--trainIters", 2) == 0
    assert train(*common, "--nEpochs", 8, "--trainIters", 1, "--Continue") == 0
    rates = [entry["train/LR"] for entry in log(train.exp / "a")]
    assert rates[4] == pytest.approx(5e-4) and rates[7] == pytest.approx(0.5e-3 * (1 + math.cos(7 / 8 * math.pi)))


def test_training_learns_the_drawn_faces(train):
    """A few epochs must bring the error far below that of a network that knows nothing."""
    options = ("--nEpochs", 25, "--LR", "3e-3", "--crit", "weighted_mse", "--schedule", "cosine", "--noColour")
    options += ("--scale", 0.1, "--rotate", 5, "--shift", 0, "--snapshot", 0, "--decode", "dark")
    assert train("--expID", "learn", *options) == 0
    entries = log(train.exp / "learn")
    assert entries[-1]["val/nme"] < 0.25 * entries[0]["val/nme"]
    assert not list((train.exp / "learn").glob("model_[0-9]*")) and (train.exp / "learn" / "model_best.pkl").is_file()


@pytest.fixture
def script(tmp_path, data):
    """The training command as a file to run, its outputs under tmp_path, and what to run it with."""
    (tmp_path / "src").mkdir()
    path = tmp_path / "run.py"
    path.write_text(f"import pathlib, train; train.HERE = pathlib.Path({str(tmp_path / 'src')!r}); train.main()")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SRC)}
    return [str(path), *SMALL, "--dataRoot", str(data)], {"env": environment, "cwd": tmp_path, "text": True}


def test_a_kill_leaves_a_checkpoint_that_goes_on_as_if_nothing_was(script, tmp_path):
    """SIGKILL at an arbitrary moment; the continued run has the log of one that was left alone."""
    arguments, options = script
    command = [sys.executable, *arguments, "--expID", "k"]
    process = subprocess.Popen([*command, "--nEpochs", "100000"], stdout=subprocess.PIPE, **options)
    for line in process.stdout:
        if line.startswith("epoch 2"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder = tmp_path / "exp" / "coco" / "k"
    epochs = str(torch.load(folder / "checkpoint.pt", weights_only=True)["epoch"] + 1)
    for more in ([*command, "--Continue"], [sys.executable, *arguments, "--expID", "whole"]):
        done = subprocess.run([*more, "--nEpochs", epochs], capture_output=True, **options)
        assert done.returncode == 0, done.stderr
    assert log(folder) == log(tmp_path / "exp" / "coco" / "whole")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "mpii"], "'mpii'"),
        (["--optMethod", "lion"], "'lion'"),
        (["--schedule", "zigzag"], "'zigzag'"),
        (["--crit", "l1"], "'l1'"),
        (["--decode", "best"], "'best'"),
        (["--addDPG", "--dpg", "theirs"], "'theirs'"),
        (["--dpg", "alphapose"], "add --addDPG"),
        (["--inputResH", "100"], "--inputResH 100"),
        (["--outputResW", "64"], "say 16"),
        (["--dataRoot", "/nowhere"], "/nowhere"),
        (["--loadModel", "no.pkl"], "no.pkl"),
        (["--Continue"], "--Continue"),
        (["--depth", "19"], "19"),
        (["--nClasses", "68"], "--nClasses 68"),
        (["--hmGauss", "0"], "--hmGauss 0"),
        (["--nThreads", "-1"], "--nThreads -1"),
        (["--duc", "10", "64"], "--duc 10 64"),
        (["--expID", ".."], "'..'"),
        (["--expID", ""], "''"),
        (["--visdom"], "visdom.server"),
        (["--device", "abacus"], "'abacus'"),
    ],
)
def test_bad_use_gets_one_sentence(train, capsys, arguments, message):
    assert train("--expID", "bad", "--nEpochs", 1, *arguments) == 2
    err = capsys.readouterr().err.strip()
    assert message in err and "\n" not in err
    assert not train.exp.exists()


def test_a_training_is_not_overwritten_unasked(train, capsys):
    assert train("--expID", "mine", "--nEpochs", 1) == 0
    assert train("--expID", "mine", "--nEpochs", 1) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert train("--expID", "mine", "--nEpochs", 1, "--overwrite") == 0


def test_weights_of_another_network_are_named(train, capsys):
    assert train("--expID", "many", "--nEpochs", 1) == 0
    state = torch.load(train.exp / "many" / "model_1.pkl", weights_only=True)
    state["conv_out.weight"], state["conv_out.bias"] = state["conv_out.weight"][:17], state["conv_out.bias"][:17]
    torch.save(state, train.exp / "seventeen.pkl")
    more = ("--expID", "more", "--nEpochs", 1, "--loadModel")
    assert train(*more, train.exp / "seventeen.pkl") == 2
    assert "seventeen.pkl is another network: nClasses 17, here 106" in capsys.readouterr().err
    torch.save({"fc.weight": torch.zeros(3)}, train.exp / "theirs.pkl")
    assert train(*more, train.exp / "theirs.pkl") == 2
    assert "theirs.pkl: not the state dict of a FastPose network" in capsys.readouterr().err
    assert train(*more, train.exp / "many" / "model_1.pkl", "--depth", 50) == 2
    assert "depth 18, here 50" in capsys.readouterr().err


def test_a_trained_trunk_goes_under_another_head(train, capsys):
    assert train("--expID", "wide", "--nEpochs", 1) == 0
    wide = train.exp / "wide" / "model_1.pkl"
    assert train("--expID", "slim", "--nEpochs", 1, "--loadModel", wide, "--duc", 64, 32, "--lateral", "--LR", 0) == 0
    told = capsys.readouterr().out
    assert "duc (64, 64), here (64, 32); lateral None, here True; these layers start anew: conv_out, duc2.bn" in told
    slim = torch.load(train.exp / "slim" / "model_1.pkl", weights_only=True)
    kept = torch.load(wide, weights_only=True)
    assert all(torch.equal(slim[key], kept[key]) for key in ("preact.conv1.weight", "duc1.conv.weight"))
    assert slim["conv_out.weight"].shape[1] == 8 and "lateral.0.weight" in slim


def test_a_trained_trunk_goes_on_deeper(train, capsys):
    """The blocks that it lacks change nothing until they are trained; the other way round blocks would be lost."""
    assert train("--expID", "few", "--nEpochs", 1) == 0
    few = train.exp / "few" / "model_1.pkl"
    assert train("--expID", "deep", "--nEpochs", 1, "--loadModel", few, "--depth", 22, "--LR", 0, "--noColour") == 0
    assert "depth 18, here 22; these layers start anew: preact.layer3.2.bn1" in capsys.readouterr().out
    deep = train.exp / "deep" / "model_1.pkl"
    state = torch.load(deep, weights_only=True)
    assert not state["preact.layer4.2.bn2.weight"].any() and state["preact.layer4.2.conv2.weight"].any()
    assert train("--expID", "shallow", "--nEpochs", 1, "--loadModel", deep) == 2
    assert "depth 22, here 18" in capsys.readouterr().err


def test_a_run_is_not_continued_with_other_options(train, capsys):
    assert train("--expID", "a", "--nEpochs", 1) == 0
    assert train("--expID", "a", "--nEpochs", 2, "--Continue", "--optMethod", "rmsprop") == 2
    assert "started with --optMethod adam" in capsys.readouterr().err
    assert train("--expID", "a", "--nEpochs", 2, "--Continue", "--hmGauss", 3) == 2
    assert "started with --hmGauss" in capsys.readouterr().err
    assert train("--expID", "a", "--nEpochs", 2, "--Continue", "--addDPG", "--lateral") == 2
    assert "started without --lateral, without --addDPG; say the same" in capsys.readouterr().err
    (train.exp / "a" / "checkpoint.pt").write_bytes(b"torn")
    assert train("--expID", "a", "--nEpochs", 2, "--Continue") == 2
    assert "checkpoint.pt cannot be read" in capsys.readouterr().err


def test_without_eye_corners_the_loss_judges(train, tmp_path):
    """Where no face has what NME is taken between, there is a best model all the same."""
    make_tiny_dataset(tmp_path / "set", n=20)
    with h5py.File(tmp_path / "set" / "annot_dt_fac_106_ldmks.h5", "r+") as file:
        visible = file["visible"][:]
        visible[:, [66, 79]] = 0
        file["visible"][:] = visible
    assert train("--dataRoot", tmp_path / "set", "--expID", "a", "--nEpochs", 1, "--snapshot", 0) == 0
    assert (train.exp / "a" / "model_best.pkl").is_file() and log(train.exp / "a")[0]["val/nme"] is None


def test_two_processes_train_one_network(script, tmp_path):
    """torchrun with two processes on the CPU, with an average of the weights."""
    arguments, options = script
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, *arguments, "--expID", "two", "--nEpochs", "2", "--ema", "0.9"]
    done = subprocess.run(command, capture_output=True, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(log(tmp_path / "exp" / "coco" / "two")) == 2


def test_an_odd_gradient_does_not_move_the_weights():
    import engine

    layer = torch.nn.Linear(2, 2)
    clip = engine.Clip(2.0)
    for scale in (1.0, 1.0, 50.0):
        layer.weight.grad, layer.bias.grad = torch.full((2, 2), scale), torch.zeros(2)
        clip(layer)
    assert layer.weight.grad.norm() == pytest.approx(4.0)  # twice the mean norm of 2
    layer.weight.grad[0, 0] = float("inf")
    clip(layer)
    assert not layer.weight.grad.any() and clip.mean < 2.1
