"""Trains the one-class face detector.

    python -m yolo.label --scenes SCENES --out labels.json
    python -m yolo.label --scenes CROPS --scales 1 --out crop_labels.json
    python -m yolo.train --expID det1 --scenes SCENES --labels labels.json --crops CROPS --landmarks landmarks68.csv \
        --crop_labels crop_labels.json [--rendered DIR] [--Continue]

Writes yolo/runs/EXPID/: `log.jsonl` (a line an epoch), `state.pt` (to go on from, with the same command and
--Continue), `last.weights` and `best.weights` (averaged weights, Darknet format; best by the AP of the validation
scenes). `--start FILE` begins with a trained network, whose AP is measured first: best.weights is then written only
by what beats it. The pictures of an epoch follow from the seed and the epoch's number alone, so a run that was cut goes
on as if it had not been.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from SPPE.src.utils.device import choose_device, choose_precision
from SPPE.src.utils.epochs import keep_epochs
from SPPE.src.utils.files import save_whole

from .darknet import Darknet
from .dataset import Composer, load_heads, relabel
from .detector import FACE_CFG, FACE_CONF, FACE_NMS, Detector
from .evaluate import CURVE_CONF, add_data_arguments, evaluate_portraits, evaluate_scenes, existing, load_split
from .loss import detection_loss
from .preprocess import to_input

RUNS = Path(__file__).resolve().parent / "runs"
# The averaged weights forget over this many steps; a shorter memory at the start, where the early weights are useless.
EMA_DECAY, EMA_RAMP = 0.999, 400
# Steps over which the learning rate rises (a tenth of a short run), and the part of it that is left at the end of the
# cosine.
WARMUP_STEPS, FINAL_RATE = 200, 0.02
# Largest gradient norm: a batch of a hundred tiny faces is otherwise a jump.
CLIP_NORM = 10.0
# Options that --Continue must repeat.
FIXED = (
    *("scenes", "labels", "crops", "landmarks", "crop_labels", "train_labels", "rendered", "cfg", "inp_dim", "sizes"),
    *("steps", "trainBatch", "LR", "weightDecay", "seed"),
)
# The chance that a cell holds a face before anything is learnt (focal loss, Lin et al. 2017, section 4.1).
PRIOR = 0.01


def build_net(cfg):
    """A fresh network: He initialisation, objectness starting at PRIOR."""
    net = Darknet(cfg)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, a=0.1, nonlinearity="leaky_relu")
            if module.bias is not None:
                torch.nn.init.normal_(module.weight, std=0.01)
                torch.nn.init.zeros_(module.bias)
                module.bias.data.view(-1, 5 + net.classes)[:, 4] = -math.log((1 - PRIOR) / PRIOR)
    return net.to(memory_format=torch.channels_last)


def build_optimizer(net, rate, decay):
    """AdamW; biases and batch norms are not decayed."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate)


def rate_at(step, steps, rate):
    """Linear rise, then a cosine down to FINAL_RATE of the peak."""
    rise = max(1, min(WARMUP_STEPS, steps // 10))
    if step < rise:
        return rate * (step + 1) / rise
    done = (step - rise) / max(1, steps - rise)
    return rate * (FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * done)))


@torch.no_grad()
def update_average(average, net, step):
    """Move the averaged network a little towards the trained one, running statistics included."""
    decay = EMA_DECAY * (1 - math.exp(-(step + 1) / EMA_RAMP))
    for slow, fast in zip(average.stored(), net.stored()):
        slow.lerp_(fast, 1 - decay)


def make_batch(composer, size, count, rng, device):
    """-> (x (B, 3, S, S), faces, ignore: lists of (N, 4) tensors)."""
    canvases, faces, ignore = zip(*(composer(size, rng) for _ in range(count)))
    boxes = [[torch.from_numpy(b.astype(np.float32)).to(device) for b in part] for part in (faces, ignore)]
    return to_input(np.stack(canvases), device), *boxes


def train_one_epoch(net, average, optimizer, composer, epoch, args):
    """-> {"box", "object", "class", "rate", "images_per_second"}, means over the epoch."""
    net.train()
    rng = np.random.default_rng([args.seed, epoch])
    sums, start = {}, time.perf_counter()
    for index in range(args.steps):
        step = epoch * args.steps + index
        rate = rate_at(step, args.nEpochs * args.steps, args.LR)
        for group in optimizer.param_groups:
            group["lr"] = rate
        size = int(args.sizes[rng.integers(len(args.sizes))])
        x, faces, ignore = make_batch(composer, size, args.trainBatch, rng, args.device)
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.autocast):
            maps = net.maps(x)
        loss, parts = detection_loss(net, maps, faces, ignore)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimizer.step()
        update_average(average, net, step)
        average.seen += args.trainBatch
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value / args.steps
    speed = args.steps * args.trainBatch / (time.perf_counter() - start)
    return {
        **{name: round(value, 4) for name, value in sums.items()},
        "rate": rate,
        "images_per_second": round(speed, 1),
    }


def fixed_options(args):
    """What a run cannot change on its way and still be one run."""
    return {name: str(getattr(args, name)) for name in FIXED}


def save_state(path, net, average, optimizer, epoch, best, fixed):
    """Everything a run needs to go on. fixed: see `fixed_options`."""
    state = {"net": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
    save_whole({**state, "epoch": epoch, "best": best, "seen": average.seen, "fixed": fixed}, path)


def load_state(path, net, average, optimizer, fixed):
    """-> (the next epoch, the best AP so far). Raises ValueError where the run was begun with other options."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    begun = {**fixed, **state.get("fixed", {})}  # 0.1.0 did not note them
    different = [f"--{name} {begun[name]}" for name in FIXED if begun[name] != fixed[name]]
    if different:
        raise ValueError(f"--Continue: {path.parent} was begun with {', '.join(different)}; say the same")
    net.load_state_dict(state["net"])
    average.load_state_dict(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    average.seen = state["seen"]
    return state["epoch"] + 1, state["best"]


def validate(weights, scenes, crops, args):
    """The figures of a weights file on the validation parts."""
    detector = Detector(args.cfg, weights, args.device, "auto", CURVE_CONF, FACE_NMS, args.inp_dim)
    portraits = evaluate_portraits(detector, crops, FACE_CONF)
    return {**evaluate_scenes(detector, scenes, FACE_CONF), "missed_portraits": len(portraits["missed"])}


def record(run, figures):
    """A line of the log, on the screen too."""
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps(figures) + "\n")
    print(json.dumps(figures), flush=True)


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_arguments(parser)
    parser.add_argument("--expID", required=True, help="name of the run")
    parser.add_argument("--cfg", type=existing, default=FACE_CFG)
    parser.add_argument("--rendered", type=existing, help="a set of rendered heads in the dt_fac_106_ldmks form")
    parser.add_argument(
        "--train_labels",
        type=existing,
        help="other labels of the training photographs (yolo.label --third); the validation keeps to --labels",
    )
    parser.add_argument("--start", type=existing, help="a .weights file to start from instead of random values")
    parser.add_argument("--nEpochs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50, help="batches in an epoch")
    parser.add_argument("--trainBatch", type=int, default=16)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[320, 352, 384], help="sides of the training pictures, drawn per batch"
    )
    parser.add_argument("--inp_dim", type=int, help="side of the validation input; the cfg's own where not given")
    parser.add_argument("--LR", type=float, default=2e-3)
    parser.add_argument("--weightDecay", type=float, default=0.02)
    parser.add_argument("--valid_every", type=int, default=5, help="epochs between two validations")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all")
    parser.add_argument(
        "--autocast",
        action=argparse.BooleanOptionalAction,
        help="bfloat16 in the convolutions; default: where the hardware multiplies it",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--Continue", action="store_true", help="go on from the run's state.pt")
    args = parser.parse_args(argv)
    for name in ("nEpochs", "steps", "trainBatch", "valid_every"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1")
    started = (RUNS / args.expID / "state.pt").is_file()
    if args.Continue and not started:
        parser.error(f"--Continue: {RUNS / args.expID} has no state.pt to go on from")
    if not args.Continue and (started or (RUNS / args.expID / "best.weights").is_file()):
        parser.error(f"{RUNS / args.expID} holds a run: add --Continue, or choose another --expID")
    return args


def main(argv=None):
    args = parse_arguments(argv)
    try:
        train(args)
    except (ValueError, OSError) as error:
        sys.exit(f"yolo.train: {error}")


def train(args):
    """The run that the options describe. Raises ValueError and OSError for data, weights or options that do not fit."""
    args.device = choose_device(args.device)
    if args.autocast is None:
        args.autocast = choose_precision("auto", args.device) is torch.bfloat16
    if args.threads:
        torch.set_num_threads(args.threads)
        cv2.setNumThreads(args.threads)
    run = RUNS / args.expID
    torch.manual_seed(args.seed)
    net, average = build_net(args.cfg).to(args.device), build_net(args.cfg).to(args.device)
    sides = [*args.sizes, args.inp_dim or net.width]
    if any(side <= 0 or side % net.stride for side in sides):
        raise ValueError(f"--sizes and --inp_dim {sides}: {args.cfg} needs multiples of {net.stride}")
    if net.classes != 1:
        raise ValueError(f"{args.cfg} has {net.classes} classes; a face detector's has one, and 6 filters an anchor")
    if args.start:
        net.load_weights(args.start)
    average.load_state_dict(net.state_dict())
    average.seen = net.seen
    optimizer = build_optimizer(net, args.LR, args.weightDecay)
    (scenes, crops), (valid_scenes, valid_crops) = load_split(args)
    scenes = relabel(scenes, args.train_labels) if args.train_labels else scenes
    heads = load_heads(args.rendered) if args.rendered else []
    print(
        f"training: {len(scenes)} photographs with {sum(len(s.boxes) for s in scenes)} faces, {len(crops)} crops, "
        f"{len(heads)} rendered heads; validation: {len(valid_scenes)}, {len(valid_crops)}"
    )
    first, best = 0, 0.0
    if args.Continue:
        first, best = load_state(run / "state.pt", net, average, optimizer, fixed_options(args))
        keep_epochs(run / "log.jsonl", lambda epoch: epoch == "start" or epoch < first)
    else:
        run.mkdir(parents=True, exist_ok=True)
        (run / "log.jsonl").unlink(missing_ok=True)  # of a run that was cut before its first state
        if args.start:
            figures = validate(args.start, valid_scenes, valid_crops, args)
            best = figures["ap"]
            record(run, {"epoch": "start", **figures})
    composer = Composer(scenes, crops, heads)

    for epoch in range(first, args.nEpochs):
        figures = {"epoch": epoch, **train_one_epoch(net, average, optimizer, composer, epoch, args)}
        average.save_weights(run / "last.weights")
        if (epoch + 1) % args.valid_every == 0 or epoch + 1 == args.nEpochs:
            figures |= validate(run / "last.weights", valid_scenes, valid_crops, args)
            if figures["ap"] > best:
                best = figures["ap"]
                average.save_weights(run / "best.weights")
        record(run, figures)
        save_state(run / "state.pt", net, average, optimizer, epoch, best, fixed_options(args))


if __name__ == "__main__":
    main()
