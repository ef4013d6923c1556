"""The training command's options; building the parser parses nothing."""

import argparse
from pathlib import Path

from SPPE.src.utils.eval import DECODERS, DEFAULT_DECODER
from SPPE.src.utils.img import BOX_GROWTH
from utils.command import one_of

OPTIMISERS = ("adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "cosine", "step")
LOSSES = ("mse", "weighted_mse", "awing", "dsnt")
DEFAULT_DPG = "face"
DATASETS = ("dt_fac_106_ldmks", "lapa", "300w")


AT_LEAST = {
    **dict.fromkeys(("nEpochs", "trainBatch", "validBatch"), 1),
    **dict.fromkeys(
        ("nThreads", "snapshot", "seed", "trainIters", "validIters", "warmup", "clip", "ema", "LR", "growth"), 0
    ),
}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train FastPose on facial landmarks. @FILE stands for the options in a file, as in recipes/.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        fromfile_prefix_chars="@",
    )
    parser.convert_arg_line_to_args = lambda line: line.partition("#")[0].split()
    add = parser.add_argument_group("experiment").add_argument
    add("--expID", default="default", help="name of the run; weights go to ../exp/coco/EXPID")
    add("--dataset", nargs="+", default=["dt_fac_106_ldmks"], help=f"one or more of {', '.join(DATASETS)}")
    add("--dataRoot", nargs="+", help="folder of each data set; default ../data/DATASET. The first is validated on")
    add("--share", type=float, nargs="+", help="part of an epoch that each data set makes up; default: by their sizes")
    add("--pdb", action="store_true", help="pose-based data balancing: heads that are turned come more often")
    add("--exclude", help="list of faces of the first data set to leave out, as tools/audit.py writes it")
    add("--nThreads", type=int, default=4, help="worker processes that load pictures; no more than there are cores")
    add(
        "--cache",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep decoded pictures in memory, best with --nThreads 0 (small data sets)",
    )
    add("--snapshot", type=int, default=1, help="write model_N.pkl every so many epochs; 0: never")
    add("--seed", type=int, default=0, help="of weights, order and augmentation")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--precision", default="auto", help="auto, fp32, bf16 or fp16 (autocast)")
    add("--visdom", action="store_true", help="show losses and pictures in a visdom server on this machine too")
    add("--overwrite", action="store_true", help="start anew in a run's folder that already holds a training")

    add = parser.add_argument_group("network").add_argument
    add("--nClasses", type=int, default=106, help="number of landmarks")
    add("--depth", type=int, default=101, help="of the SE-ResNet: 18, 22, 34, 50 or 101")
    add("--width", type=float, default=1.0, help="factor on the trunk's channels")
    add("--backbone", help="timm:NAME, a trunk of the timm library instead of the SE-ResNet (then no --depth, --width)")
    add("--pretrained", help="file of timm's own weights for that trunk")
    add("--duc", type=int, nargs=2, default=(1024, 512), help="channels of the two DUC convolutions")
    add("--lateral", action="store_true", help="add the trunk's stages to the head's maps (SE-ResNet)")
    add("--inputResH", type=int, default=256, help="height of the crops")
    add("--inputResW", type=int, default=256, help="width of the crops")
    add("--outputResH", type=int, default=64, help="height of the heatmaps: inputResH / 4")
    add("--outputResW", type=int, default=64, help="width of the heatmaps: inputResW / 4")
    add(
        "--loadModel",
        help="start from these weights, of the same trunk or a shallower one: model_N.pkl or a shipped .pth",
    )
    add("--Continue", **SWITCH, help="go on with this expID where it was stopped")

    add = parser.add_argument_group("optimisation").add_argument
    add("--nEpochs", type=int, default=50, help="epochs in all")
    add("--trainBatch", type=int, default=32, help="faces a step, on each process")
    add("--validBatch", type=int, default=32, help="faces a step in validation")
    add("--trainIters", type=int, default=0, help="steps an epoch; 0: the whole data set")
    add("--validIters", "--valIters", type=int, default=0, help="steps a validation; 0: the whole data set")
    add("--optMethod", type=str.lower, default="adam", help=f"one of {', '.join(OPTIMISERS)}")
    add("--LR", type=float, default=1e-4, help="learning rate")
    add("--schedule", default="constant", help=f"of the learning rate, one of {', '.join(SCHEDULES)}")
    add("--warmup", type=int, default=0, help="steps over which the learning rate rises from zero")
    add("--lrSteps", type=int, nargs="+", default=(90, 120), help="epochs at which --schedule step divides LR by 10")
    add("--momentum", type=float, default=0.0, help="of rmsprop")
    add("--weightDecay", type=float, default=0.0)
    add("--clip", type=float, default=2.0, help="largest norm of the gradient, in its own running mean; 0: do not clip")
    add(
        "--ema",
        type=float,
        default=0.0,
        help="decay of a moving average of the weights, which is what is saved; 0: off",
    )
    add("--crit", type=str.lower, default="mse", help=f"one of {', '.join(LOSSES)}")

    add = parser.add_argument_group("data").add_argument
    add("--growth", type=float, default=BOX_GROWTH, help="part of its sides by which a box grows before it is cropped")
    add("--hmGauss", type=float, default=1.5, help="sigma of the targets in heatmap pixels")
    add("--scale", type=float, default=0.25, help="random scale, log2 range")
    add("--rotate", type=float, default=30.0, help="random rotation, degrees")
    add("--shift", type=float, default=0.05, help="random shift, fraction of the crop")
    add("--noColour", action="store_true", help="no colour, blur, noise and occlusion")
    add("--addDPG", **SWITCH, help="stage 2: boxes that err as a detector's, and partial faces")
    add("--dpg", default=DEFAULT_DPG, help="whose errors: face, alphapose, or a .json that tools/dpg.py learnt")
    add("--decode", help=f"heatmaps to points: {', '.join(DECODERS)}; default: dsnt for --crit dsnt, else dark")
    for name in IGNORED:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    return parser


def truth(text: str) -> bool:
    """True or False as AlphaPose's users write them."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


# AlphaPose's switches take a word (`--addDPG True`); ours need none.
SWITCH = {"nargs": "?", "const": True, "default": False, "type": truth}

# AlphaPose's options that have no meaning here; published commands that give them still run.
IGNORED = ("netType", "nFeats", "nStack", "nResidual", "init", "debug", "epoch", "baseWidth", "cardinality")


def check(opt: argparse.Namespace) -> None:
    """Raise ValueError naming the first option that makes no sense, its value and the remedy."""
    opt.decode = opt.decode or ("dsnt" if opt.crit == "dsnt" else DEFAULT_DECODER)
    for name in opt.dataset:
        if name not in DATASETS:
            raise ValueError(f"unknown --dataset {name!r}; choose one of {', '.join(DATASETS)}")
    sources = max(len(opt.dataset), len(opt.dataRoot or ()))
    if len(opt.dataset) not in (1, sources) or (opt.dataRoot and len(opt.dataRoot) != sources):
        raise ValueError(f"{len(opt.dataset)} --dataset and {len(opt.dataRoot or ())} --dataRoot: give as many of each")
    if opt.share and (len(opt.share) != sources or min(opt.share) <= 0):
        raise ValueError(f"--share {opt.share}: {sources} numbers above 0 are needed, one for each data set")
    one_of(opt, optMethod=OPTIMISERS, schedule=SCHEDULES, crit=LOSSES, decode=DECODERS)
    for name in ("H", "W"):
        size, out = getattr(opt, f"inputRes{name}"), getattr(opt, f"outputRes{name}")
        if size % 32 or size <= 0:
            raise ValueError(f"--inputRes{name} {size} is not a positive multiple of 32")
        if size != 4 * out:
            raise ValueError(f"--outputRes{name} {out} does not fit --inputRes{name} {size}; say {size // 4}")
    if not opt.expID or opt.expID.startswith(".") or Path(opt.expID).name != opt.expID:
        raise ValueError(f"--expID {opt.expID!r} is not a folder's name; take letters, digits and _")
    for name, least in AT_LEAST.items():
        if getattr(opt, name) < least:
            raise ValueError(f"--{name} {getattr(opt, name)} must be at least {least}")
    if not opt.hmGauss > 0 or not opt.width > 0:
        raise ValueError(f"--hmGauss {opt.hmGauss} and --width {opt.width} must be above 0")
    if any(channels % 4 or channels <= 0 for channels in opt.duc):
        raise ValueError(f"--duc {opt.duc[0]} {opt.duc[1]}: each DUC divides its channels by 4")
    if opt.dpg != DEFAULT_DPG and not opt.addDPG:
        raise ValueError(f"--dpg {opt.dpg} says how boxes err in stage 2: add --addDPG, or leave it out")
    if opt.pretrained and not opt.backbone:
        raise ValueError(f"--pretrained {opt.pretrained} is for a timm trunk; say which: --backbone timm:NAME")
    if opt.Continue and opt.loadModel:
        raise ValueError("--Continue and --loadModel exclude each other: the first goes on, the second starts anew")
