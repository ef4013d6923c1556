"""torchrun: two processes on the CPU train as one process with the double batch does.

Batch norm is the one thing that a batch's division changes: each process normalises with its own half. On CUDA train.py
makes it SyncBatchNorm, which takes the statistics of all processes; that has no CPU version, so here the statistics are
frozen (batch norm in eval mode) and everything else is train.py as it is: sampler, augmentation, loss, gradients, clip.
"""

import json
import subprocess
import sys

import pytest
import torch

from test_train import SRC, data, script  # noqa: F401  fixtures

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
# Three steps of 4 faces in one process, or of 2 in each of two. Colour changes are drawn for a batch as a whole, so
# they are left out.
OPTIONS = ["--nEpochs", "2", "--trainIters", "3", "--noColour", "--warmup", "4", "--addDPG"]

FREEZE = """
import torch
plain = torch.nn.Module.train
torch.nn.BatchNorm2d.train = lambda self, mode=True: plain(self, False)
"""


@pytest.fixture
def run(script, tmp_path):  # noqa: F811
    """(name, processes, batch, frozen) -> the log of a training."""
    (path, *arguments), options = script
    frozen = tmp_path / "frozen.py"
    frozen.write_text(FREEZE + (tmp_path / "run.py").read_text())

    def command(name, processes, batch, freeze=True):
        start = [sys.executable, *(TORCHRUN if processes == 2 else []), str(frozen if freeze else path)]
        line = [*start, *arguments, *OPTIONS, "--trainBatch", str(batch), "--expID", name]
        done = subprocess.run(line, capture_output=True, **options)
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in (tmp_path / "exp" / "coco" / name / "log.jsonl").read_text().splitlines()]

    command.folder = tmp_path / "exp" / "coco"
    return command


def test_two_processes_train_as_one_with_the_double_batch(run):
    one, two = run("one", 1, 4), run("two", 2, 2)
    for epoch, (a, b) in enumerate(zip(one, two, strict=True)):
        for figure in ("train/loss", "train/accuracy", "val/loss", "val/nme"):
            assert b[figure] == pytest.approx(a[figure], rel=1e-4), (epoch, figure)
    first, second = (weights(run.folder / "one" / f"model_{epoch}.pkl") for epoch in (1, 2))
    moved = (second - first).norm()
    assert (weights(run.folder / "two" / "model_2.pkl") - second).norm() < 0.01 * moved


def weights(path):
    state = torch.load(path, weights_only=True)
    return torch.cat([v.flatten() for v in state.values() if v.is_floating_point()])
