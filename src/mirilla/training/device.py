"""Choose the torch device to train on, and its float32 precision."""

from __future__ import annotations

import torch

from mirilla.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The torch device with a name; 'auto' prefers CUDA, then MPS, then the CPU.

    Raises:
        UsageError: this machine has no such device.
    """
    if name in ("", "auto"):
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"Device '{name}' cannot be used on this machine ({str(error).splitlines()[0]}).",
            "Use --device cpu, or auto.",
        ) from error
    return device


def set_precision(precision: str) -> None:
    """Set the precision of a GPU's float32 products: torch's default is TF32 in convolutions."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = True  # all input shapes are constant
