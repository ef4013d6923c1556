"""Train FastPose in stages; from train_sppe/src:

    python train.py --dataset dt_fac_106_ldmks --expID stg_1 --nClasses 106 --LR 1e-4 --trainBatch 32 --nEpochs 100
    python train.py --dataset dt_fac_106_ldmks --expID stg_2 --nClasses 106 --LR 1e-4 --trainBatch 32 --nEpochs 100 \
        --loadModel ../exp/coco/stg_1/model_30.pkl --addDPG
    torchrun --nproc_per_node 4 train.py ...
    tensorboard --logdir .tensorboard/coco/stg_1/

Writes ../exp/coco/EXPID/: model_N.pkl (bare state dict after N epochs), model_best.pkl (lowest validation NME),
checkpoint.pt (what --Continue needs), log.jsonl (a line an epoch), option.json.
"""

import argparse
import json
import math
import os
import shutil
import sys
from datetime import timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1]))  # appended, so that `import opt` stays the training one

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

import engine
from opt import build_parser, check
from SPPE.src.landmarks import NUM_POINTS
from SPPE.src.main_fast_inference import load_checkpoint
from SPPE.src.models.FastPose import config_of, createModel, sync_batch_norm
from SPPE.src.models.layers.SE_Resnet import goes_on_in
from SPPE.src.utils.device import choose_device, choose_precision
from SPPE.src.utils.files import save_whole
from SPPE.src.utils.img import BOX_GROWTH
from utils.command import complaints, sentence
from utils.dataset import build_dataset
from utils.dataset.balance import pose_copies
from utils.dataset.base import Annotations, Augmentation, FaceDataset, join, make_loader
from utils.dataset.mix import MixedSampler
from utils.dpg import build_dpg
from utils.lists import listed
from utils.watch import Watch, connect_visdom

# The first process validates while the others wait for it.
VALIDATION_TIME = timedelta(hours=2)


def main(argv: list[str] | None = None) -> None:
    opt = build_parser().parse_args(argv)
    try:
        with complaints("train.py", FloatingPointError):
            check(opt)
            train(opt)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def train(opt: argparse.Namespace) -> None:
    rank, world, device = start_processes(opt.device)
    torch.backends.cudnn.benchmark = True  # but for the last of a validation, batches are of one size
    train_set, val_set, copies = datasets(opt)
    torch.manual_seed(opt.seed)
    trunk = {name: getattr(opt, name) for name in ("depth", "width", "backbone", "pretrained", "lateral")}
    model = createModel(opt.nClasses, duc=tuple(opt.duc), **trunk)
    if opt.loadModel:
        load_weights(model, Path(opt.loadModel))
    if world > 1 and device.type == "cuda":  # batch norm over all processes, as one process with the whole batch has it
        model = sync_batch_norm(model)
    model.to(device, memory_format=torch.channels_last)
    state = TrainingState(opt, model, device)
    visdom = connect_visdom(opt.expID) if opt.visdom and rank == 0 else None
    folder = HERE.parent / "exp" / "coco" / opt.expID
    if opt.Continue:
        state.load(folder / "checkpoint.pt")
    elif rank == 0:
        claim_folder(folder, opt)  # the first thing written, after all that can be wrong was looked at
    parallel = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    step = engine.Step(parallel, device, state.dtype, opt.hmGauss, opt.crit, opt.decode)

    sampler = MixedSampler(copies, opt.share, world, rank, opt.seed)
    pin, whole = torch.cuda.is_available(), len(sampler) >= opt.trainBatch
    loader = make_loader(train_set, opt.trainBatch, opt.nThreads, sampler=sampler, drop_last=whole, pin_memory=pin)
    val_loader = make_loader(val_set, opt.validBatch, opt.nThreads, pin_memory=pin)
    steps_an_epoch = min(opt.trainIters or len(loader), len(loader))
    set_rate = learning_rate(opt, steps_an_epoch)
    watch = Watch(folder / "log.jsonl", events_folder(opt), visdom, state.epoch) if rank == 0 else None
    if rank == 0:
        told = " + ".join(str(len(times)) for times in copies)
        print(f"{told} faces to train on, {len(val_set)} to validate on; {device}, {state.dtype}; {folder}")

    while state.epoch < opt.nEpochs:
        train_set.set_epoch(state.epoch)
        sampler.set_epoch(state.epoch)
        figures = {
            "train": engine.train_one_epoch(
                # of this run's steps an epoch: it may go on with more processes, or fewer steps
                *(step, loader, state.optimiser, state.scaler, set_rate, state.epoch * steps_an_epoch),
                seed=None if opt.noColour else (opt.seed, rank),
                clip=state.clip,
                ema=state.ema,
                iters=opt.trainIters,
            )
        }
        state.epoch += 1
        if rank == 0:
            validate_and_save(opt, state, step, val_loader, folder, figures, watch)
        if world > 1:
            dist.barrier()
    if watch:
        watch.close()


def start_processes(device_name: str) -> tuple[int, int, torch.device]:
    """(rank, number of processes, device); more than one process when torchrun started them."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if world == 1:
        return 0, 1, choose_device(device_name)
    if device_name in ("auto", "cuda") and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before anything else takes memory on the first GPU
        device_name = f"cuda:{os.environ['LOCAL_RANK']}"
    device = choose_device(device_name)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=VALIDATION_TIME)
    return rank, world, device


def claim_folder(folder: Path, opt: argparse.Namespace) -> None:
    """Make a new run's folder. A training is never overwritten unasked.

    Raises:
        ValueError: the folder is not empty, without --overwrite.
    """
    if folder.exists() and any(folder.iterdir()) and not opt.overwrite:
        raise ValueError(f"{folder} is not empty: --Continue goes on, --overwrite starts anew, or take another --expID")
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in ("model_*.pkl", "checkpoint.pt", "log.jsonl", "option.json"):
        for old in folder.glob(pattern):
            old.unlink()
    shutil.rmtree(events_folder(opt), ignore_errors=True)
    (folder / "option.json").write_text(json.dumps(vars(opt), indent=1), encoding="utf-8")


def events_folder(opt: argparse.Namespace) -> Path:
    return HERE / ".tensorboard" / "coco" / opt.expID


def datasets(opt: argparse.Namespace) -> tuple[FaceDataset, FaceDataset, list[np.ndarray]]:
    """The training set, all sources one after the other; the validation set, the first source's; for each source, how
    often each of its faces comes in a pass.
    """
    if opt.nClasses != NUM_POINTS:
        raise ValueError(f"--nClasses {opt.nClasses}: the data sets here have {NUM_POINTS} points; say {NUM_POINTS}")
    roots = source_roots(opt)
    sources, val = [samples(*root, "train") for root in roots], samples(*roots[0], "val")
    if opt.exclude:
        sources[0] = sources[0].take(np.flatnonzero(~listed(sources[0], roots[0][1], Path(opt.exclude))))
    size = (opt.inputResH, opt.inputResW)
    augmentation = Augmentation(opt.scale, opt.rotate, opt.shift)
    dpg = build_dpg(opt.dpg) if opt.addDPG else None
    train_set = FaceDataset(join(sources), size, augmentation, dpg, opt.seed, opt.cache, opt.growth)
    copies = [pose_copies(data) if opt.pdb else np.ones(len(data), int) for data in sources]
    return train_set, FaceDataset(val, size, cache=opt.cache, growth=opt.growth), copies


def samples(name: str, root: Path, split: str) -> Annotations:
    """One split of a data set; ValueError where it is empty."""
    data = build_dataset(name, root, split)
    if not len(data):
        raise ValueError(f"{root} has no {split} samples; tools/make_h5.py makes a split: --val-tail or --split-files")
    return data


def source_roots(opt: argparse.Namespace) -> list[tuple[str, Path]]:
    """(data set's name, its folder) of every source; one --dataset serves several --dataRoot."""
    roots = [Path(root) for root in opt.dataRoot or ()] or [HERE.parent / "data" / name for name in opt.dataset]
    names = opt.dataset * len(roots) if len(opt.dataset) == 1 else opt.dataset
    return list(zip(names, roots))


def load_weights(model: nn.Module, path: Path) -> None:
    """Start from a weights file of the same trunk, or of a shallower one whose missing blocks then start as the
    identity. Where its head has other channels, or no lateral connections, the layers that do not fit stay as they
    are. All that is told.

    Raises:
        FileNotFoundError, ValueError: it cannot be read, or is of another trunk or number of points.
    """
    state_dict, _ = load_checkpoint(path)
    try:
        theirs, ours = config_of(state_dict), model.config
    except ValueError as error:
        raise ValueError(f"--loadModel {path}: {error}; give a model_N.pkl, a shipped .pth, or none") from error
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    different = [f"{name} {theirs.get(name)}, here {ours.get(name)}" for name in names]
    free = {"duc", "lateral"}
    if "depth" in theirs and "depth" in ours and goes_on_in(theirs["depth"], ours["depth"]):
        free.add("depth")
    if not free.issuperset(names):
        raise ValueError(f"--loadModel {path} is another network: {'; '.join(different)}")
    own = model.state_dict()
    fitting = {name: value for name, value in state_dict.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    if different:
        anew = sorted({name.rpartition(".")[0] for name in own.keys() - fitting.keys()})
        print(f"--loadModel {path}: {'; '.join(different)}; these layers start anew: {', '.join(anew) or 'none'}")


def learning_rate(opt: argparse.Namespace, steps_an_epoch: int):
    """Global step -> learning rate."""
    total = opt.nEpochs * steps_an_epoch

    def rate(step: int) -> float:
        warm = min(1.0, (step + 1) / opt.warmup) if opt.warmup else 1.0
        if opt.schedule == "cosine":
            return opt.LR * warm * 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
        if opt.schedule == "step":
            return opt.LR * warm * 0.1 ** sum(step >= epoch * steps_an_epoch for epoch in opt.lrSteps)
        return opt.LR * warm

    return rate


# Options that a training cannot change on its way and still go on.
FIXED = (
    *("nClasses", "depth", "width", "backbone", "lateral", "duc", "optMethod", "momentum", "precision", "ema"),
    *("seed", "trainBatch", "dataset", "crit", "growth", "addDPG", "dpg"),
    *("inputResH", "inputResW", "hmGauss", "decode", "dataRoot", "share", "pdb", "exclude", "weightDecay"),
)

# Of these, what trainings of version 0.1.0 did not know, and had.
NEW = {"backbone": None, "lateral": False, "growth": BOX_GROWTH, "pdb": False}


def said(name: str, value) -> str:
    """An option and its value, as words of a sentence that can be typed again."""
    if value is None or value is False:
        return f"without --{name}"
    values = value if isinstance(value, list | tuple) else [] if value is True else [value]
    return " ".join([f"with --{name}", *map(str, values)])


class TrainingState:
    """All that --Continue needs, saved and loaded symmetrically: weights, optimiser, average, scaler, progress."""

    def __init__(self, opt: argparse.Namespace, model: nn.Module, device: torch.device):
        self.model, self.fixed = model, {name: getattr(opt, name) for name in FIXED}
        self.dtype = choose_precision(opt.precision, device)
        self.optimiser = make_optimiser(opt, model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.ema = engine.Ema(model, opt.ema) if opt.ema else None
        self.clip = engine.Clip(opt.clip) if opt.clip else None
        self.epoch, self.best = 0, math.inf

    def weights(self) -> dict[str, torch.Tensor]:
        """What is saved as the model: the average where there is one."""
        return self.ema.state if self.ema else self.model.state_dict()

    def save(self, path: Path) -> None:
        content = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema and self.ema.state,
            "clip": self.clip and self.clip.mean,
            "fixed": self.fixed,
            **{"epoch": self.epoch, "steps": self.ema and self.ema.updates, "best": self.best},
        }
        save_whole(content, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            FileNotFoundError: there is none. ValueError: it cannot be read, or was made with other options.
        """
        if not path.is_file():
            raise FileNotFoundError(f"--Continue: no {path}; leave --Continue out to start")
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever the broken bytes led it to
            raise ValueError(
                f"--Continue: {path} cannot be read ({sentence(error)}); start again from a model"
            ) from error
        theirs = {**self.fixed, **NEW, **content.get("fixed", self.fixed)}  # versions told fewer
        told = [(said(name, theirs[name]), said(name, self.fixed[name])) for name in FIXED]
        different = [before for before, now in told if before != now]
        if different:
            raise ValueError(f"--Continue: this training was started {', '.join(different)}; say the same")
        self.model.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        if content["scaler"]:  # empty where the run was none in fp16
            self.scaler.load_state_dict(content["scaler"])
        self.epoch, self.best = content["epoch"], content["best"]
        if self.clip:
            self.clip.mean = content["clip"] or 0.0
        if self.ema:
            self.ema.load(content["ema"], content["steps"])


def make_optimiser(opt: argparse.Namespace, model: nn.Module) -> torch.optim.Optimizer:
    numbers = {"lr": opt.LR, "weight_decay": opt.weightDecay}
    if opt.optMethod == "rmsprop":
        return torch.optim.RMSprop(model.parameters(), momentum=opt.momentum, **numbers)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[opt.optMethod](model.parameters(), **numbers)


def validate_and_save(opt, state: TrainingState, step, loader, folder: Path, figures: dict, watch: Watch) -> None:
    """Judge and save the weights (their average, where there is one), tell, and make the epoch's checkpoint last.

    A kill before it repeats the epoch, and `Watch` drops what was told of it.
    """
    own = {k: v.clone() for k, v in state.model.state_dict().items()} if state.ema else None
    state.model.load_state_dict(state.weights())
    judge = engine.Step(state.model, step.device, step.dtype, step.sigma, step.crit, step.decode)
    figures["val"], first = engine.evaluate(judge, loader, opt.validIters)
    if opt.snapshot and state.epoch % opt.snapshot == 0:
        save_whole(state.model.state_dict(), folder / f"model_{state.epoch}.pkl")
    # without a face whose eye corners are annotated there is no NME: then the loss judges
    worth = figures["val"]["nme" if math.isfinite(figures["val"]["nme"]) else "loss"]
    if worth < state.best:
        state.best = worth
        save_whole(state.model.state_dict(), folder / "model_best.pkl")
    pictures = engine.example_pictures(judge, first)
    if own:
        state.model.load_state_dict(own)
    watch.epoch(state.epoch, figures)
    watch.pictures(state.epoch, *pictures)
    state.save(folder / "checkpoint.pt")
    told = {part: {k: float(f"{v:.5g}") for k, v in values.items()} for part, values in figures.items()}
    print(f"epoch {state.epoch}: {json.dumps(told)}", flush=True)


if __name__ == "__main__":
    main()
