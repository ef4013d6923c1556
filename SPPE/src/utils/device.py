"""Where and in which precision networks run: CUDA, Apple MPS or CPU; fp32, bf16 or fp16."""

import contextlib

import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """ "auto" is CUDA, then MPS, then CPU; any other name is torch's own.

    Raises:
        ValueError: the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used ({str(error).splitlines()[0]}); try --device cpu") from error
    return device


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bf16 where the hardware multiplies it natively, else fp16 on a GPU and fp32 on a CPU.

    Raises:
        ValueError: unknown precision.
    """
    if name != "auto":
        if name not in PRECISIONS:
            raise ValueError(f"unknown precision {name!r}; choose one of auto, {', '.join(PRECISIONS)}")
        return PRECISIONS[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and _has_bf16_units():
        return torch.bfloat16
    return torch.float32


def _has_bf16_units() -> bool:
    # oneDNN also "supports" bf16 by emulation on AVX-512 without the bf16 instructions, slower than fp32.
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Autocast to dtype on that device; nothing for fp32."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=dtype)
