"""One epoch of training and one of validation."""

import math
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from evaluation import nme
from SPPE.src.models.FastPose import HEATMAP_STRIDE
from SPPE.src.utils.device import autocast
from SPPE.src.utils.eval import decode_heatmaps, expectation, log_marginals
from SPPE.src.utils.img import MEAN_RGB
from SPPE.src.utils.pose import crop_to_heatmap, draw_gaussians, heatmap_to_crop
from utils.augment import augment

# A point counts as right in the accuracy when its error is below this share of the heatmap's width (AlphaPose's
# accuracy uses a tenth of the map as the unit and 0.5 of it as the bar).
ACCURACY_BAR = 0.05

# Training accuracy is a figure to watch, and decoding takes time: it is taken on every eighth step.
ACCURACY_EVERY = 8

# `weighted_mse` counts a heatmap's peak this much more than its background: most of a target is empty.
PEAK_WEIGHT = 10.0


def heatmap_loss(
    heatmaps: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor, crit: str, sigma: float
) -> torch.Tensor:
    """Mean loss of heatmaps (B, K, H, W) over the points truth (B, K, 2), heatmap pixels, that mask (B, K) keeps.

    crit:
        mse, weighted_mse: squared error against Gaussians; the second weighs each pixel by 1 + PEAK_WEIGHT * target.
        awing: adaptive wing loss against them, with the same weights.
        dsnt: cross entropy of the softmax against the Gaussian, plus the distance (L1,
            heatmap pixels) from the softmax's mean to the truth.
    """
    heatmaps = heatmaps.float().contiguous()  # channels-last maps and plain targets do not go together fast
    height, width = heatmaps.shape[2:]
    targets = draw_gaussians(truth, height, width, sigma)
    if crit == "dsnt":
        return _dsnt_loss(heatmaps, targets, truth, mask)
    keep, pixels = mask[:, :, None, None], height * width
    if crit == "awing":
        return _AWing.apply(heatmaps, targets, mask) / (mask.sum().clamp(min=1) * pixels)
    # roots of the weights, so that the maps, the largest tensors of a step, are gone through as few times as can be
    weight = keep
    if crit == "weighted_mse":
        weight = (PEAK_WEIGHT * targets).add_(1).sqrt_().mul_(weight)
    error = (heatmaps - targets) * weight
    return (error * error).sum() / (mask.sum().clamp(min=1) * pixels)


def _dsnt_loss(heatmaps, targets, truth, mask) -> torch.Tensor:
    """Points outside the heatmap have no distribution: they do not count."""
    limit = torch.tensor([heatmaps.shape[3], heatmaps.shape[2]], device=truth.device) - 0.5
    mask = mask * ((truth > -0.5) & (truth < limit)).all(dim=-1)
    log, over_x, over_y = log_marginals(heatmaps)
    targets = targets / targets.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
    entropy = -(targets * log).sum(dim=(2, 3))
    mean = torch.stack([expectation(over_x)[0], expectation(over_y)[0]], dim=-1)
    distance = (mean - truth).abs().sum(dim=-1)
    return ((entropy + distance) * mask).sum() / mask.sum().clamp(min=1)


class _AWing(torch.autograd.Function):
    """Sum of the adaptive wing loss (Wang et al., "Adaptive Wing Loss", ICCV 2019, equation 3, its constants).

    Value and gradient in one go: what autograd would keep and go through again costs a quarter of a step.
    Arguments: heatmaps (B, K, H, W), targets alike, mask (B, K).
    """

    OMEGA, THETA, ALPHA = 14.0, 0.5, 2.1  # and epsilon 1

    @staticmethod
    def forward(ctx, heatmaps: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        gradient, loss = torch.empty_like(heatmaps), heatmaps.new_zeros((), dtype=torch.float32)
        step = 1 if heatmaps.device.type == "cpu" else len(heatmaps)  # on a CPU one face at a time stays in the cache
        for part in zip(*(x.split(step) for x in (heatmaps, targets, mask, gradient))):
            loss += _AWing.part(*part)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def part(heatmaps: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The sum over some of the batch; writes its gradient."""
        omega, theta = _AWing.OMEGA, _AWing.THETA
        error = heatmaps - targets
        size = error.abs().clamp_(min=1e-6)
        exponent = _AWing.ALPHA - targets
        at_theta = (exponent * math.log(theta)).exp_()  # theta ** exponent
        slope = (omega / theta) * exponent * at_theta / (1 + at_theta)  # of the straight part
        power = (exponent * size.log()).exp_()  # size ** exponent
        small, weight = size < theta, (PEAK_WEIGHT * targets).add_(1).mul_(mask[:, :, None, None])
        curve = torch.where(small, power, at_theta).add_(1).log_().mul_(omega)
        straight = slope * (size - theta).clamp_(min=0)
        curved = omega * exponent * power / (size * (1 + power))
        gradient.copy_(torch.where(small, curved, slope).mul_(weight).mul_(error.sign_()))
        return ((curve + straight) * weight).sum()

    @staticmethod
    def backward(ctx, scale: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.saved_tensors[0] * scale, None, None


def accuracy(points: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor, width: int) -> torch.Tensor:
    """Share of the kept points (B, K, 2), heatmap pixels, that lie within ACCURACY_BAR of the heatmap's width."""
    right = (points - truth).norm(dim=-1) < ACCURACY_BAR * width
    return (right * mask).sum() / mask.sum().clamp(min=1)


class Step:
    """A batch on its device: crops -> input, points -> targets. One home for what training and validation share."""

    def __init__(
        self, model: nn.Module, device: torch.device, dtype: torch.dtype, sigma: float, crit: str, decode: str
    ):
        self.model, self.device, self.dtype = model, device, dtype
        self.sigma, self.crit, self.decode = sigma, crit, decode

    def __call__(self, batch: dict, generator: torch.Generator | None = None):
        """-> loss, heatmaps (B, K, H/4, W/4), truth (B, K, 2) in heatmap pixels, mask (B, K), input (B, 3, H, W)."""
        x = batch["crop"].to(self.device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
        if generator is not None:
            x = augment(x, generator)
        x = x - torch.tensor(MEAN_RGB, device=self.device).view(3, 1, 1)
        truth = crop_to_heatmap(batch["points"].to(self.device), HEATMAP_STRIDE)
        mask = batch["mask"].to(self.device)
        with autocast(self.device, self.dtype):
            heatmaps = self.model(x.contiguous(memory_format=torch.channels_last))
        return heatmap_loss(heatmaps, truth, mask, self.crit, self.sigma), heatmaps, truth, mask, x


def train_one_epoch(
    step: Step,
    loader: Iterable,
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    set_rate: Callable[[int], float],
    first_step: int,
    seed: tuple[int, ...] | None = None,
    clip: "Clip | None" = None,
    ema: "Ema | None" = None,
    iters: int = 0,
) -> dict[str, float]:
    """Train over a loader (or `iters` steps of it).

    Args:
        set_rate: global step -> learning rate, set before the step.
        first_step: global number of the first step.
        seed: of the photometric augmentation, with the step's number; None: no such augmentation.
    Returns:
        mean loss and accuracy, the last learning rate.
    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    step.model.train()
    losses, accuracies, rate = [], [], 0.0
    for number, batch in enumerate(islice(loader, iters or None), first_step):
        rate = set_rate(number)
        for group in optimiser.param_groups:
            group["lr"] = rate
        generator = None if seed is None else torch.Generator().manual_seed(hash((*seed, number)) % 2**63)
        loss, heatmaps, truth, mask, _ = step(batch, generator)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        if clip is not None:
            scaler.unscale_(optimiser)
            clip(step.model)
        scaler.step(optimiser)
        scaler.update()
        if ema is not None:
            ema.update()
        losses.append(loss.detach())
        if number % ACCURACY_EVERY == 0 or not accuracies:
            accuracies.append(
                accuracy(decode_heatmaps(heatmaps.detach(), step.decode)[0], truth, mask, heatmaps.shape[3])
            )
    mean_loss = over_processes(torch.stack(losses).mean())
    if not math.isfinite(mean_loss):
        raise FloatingPointError(
            f"the loss became {mean_loss} in steps {first_step}..{number}; lower --LR or use --clip"
        )
    return {
        "loss": mean_loss,
        "accuracy": over_processes(torch.stack(accuracies).mean()),
        "LR": rate,
    }


def over_processes(value: torch.Tensor) -> float:
    """A figure's mean over the processes of a training (torchrun); all then see a loss that is no longer finite."""
    if dist.is_initialized():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value.item()


@torch.inference_mode()
def evaluate(step: Step, loader: Iterable, iters: int = 0) -> tuple[dict[str, float], dict]:
    """Mean loss, accuracy and NME (outer eyes, annotated points) over a loader, and its first batch, for pictures.

    NME is nan where no face has its eye corners annotated.
    """
    step.model.eval()
    losses, accuracies, errors, first = [], [], [], None
    for batch in islice(loader, iters or None):
        first = first or batch
        loss, heatmaps, truth, mask, _ = step(batch)
        points, _ = decode_heatmaps(heatmaps, step.decode)
        losses.append(loss * len(points))
        accuracies.append(accuracy(points, truth, mask, heatmaps.shape[3]) * len(points))
        errors.append(nme(points.cpu().numpy(), truth.cpu().numpy(), mask.cpu().numpy()))
    errors = np.concatenate(errors)
    return {
        "loss": float(sum(losses)) / len(errors),
        "accuracy": float(sum(accuracies)) / len(errors),
        "nme": float(np.nanmean(errors)) if np.isfinite(errors).any() else math.nan,
    }, first


class Clip:
    """Gradient clipping relative to the run itself: norms above `factor` times their running mean are cut to it.

    The norm depends on loss, resolution and progress, so no fixed number serves; one odd batch that Adam's small second
    moments would turn into a huge step does not get through (after Seetharaman et al., "AutoClip", MLSP 2020). A
    gradient that is not finite becomes zero.
    """

    MEMORY = 0.98  # of the running mean: about the last fifty steps

    def __init__(self, factor: float):
        self.factor, self.mean = factor, 0.0

    def __call__(self, model: nn.Module) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            torch._foreach_zero_(gradients)
            return
        bar = self.factor * self.mean if self.mean else norm
        if norm > bar:
            torch._foreach_mul_(gradients, bar / norm)
        norm = min(norm, bar)
        self.mean = self.MEMORY * self.mean + (1 - self.MEMORY) * norm if self.mean else norm


class Ema:
    """Moving average of a model's state (Polyak averaging); short at first, so that it forgets the random start."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        theirs = model.state_dict()  # the tensors themselves, which training changes in place
        self.state = {k: v.detach().clone() for k, v in theirs.items()}
        pairs = [(self.state[k], v) for k, v in theirs.items()]
        self.floating = tuple(zip(*(pair for pair in pairs if pair[1].is_floating_point())))
        self.counts = [pair for pair in pairs if not pair[1].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(*self.floating, 1 - decay)
        for mine, theirs in self.counts:
            mine.copy_(theirs)

    def load(self, state: dict[str, torch.Tensor], updates: int) -> None:
        self.updates = updates
        for name, value in state.items():
            self.state[name].copy_(value)


@torch.inference_mode()
def example_pictures(step: Step, batch: dict, count: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first crops (n, H, W, 3) uint8 of a batch with predicted and true points (n, K, 2) in crop pixels."""
    step.model.eval()
    batch = {k: v[:count] for k, v in batch.items()}
    _, heatmaps, truth, mask, _ = step(batch)
    points, _ = decode_heatmaps(heatmaps, step.decode)
    hide = torch.where(mask > 0, 0.0, math.nan)[..., None]
    to_crop = [heatmap_to_crop(p, HEATMAP_STRIDE).cpu().numpy() for p in (points, truth + hide)]
    return batch["crop"].numpy(), *to_crop
