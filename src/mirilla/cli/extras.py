"""Checks for optional dependencies, before a verb starts its work."""

from __future__ import annotations

import importlib.util

from mirilla.errors import MissingExtraError


def need_torch(purpose: str) -> None:
    """Raise MissingExtraError if PyTorch or OpenCV is not installed."""
    for module, package in (("torch", "torch"), ("cv2", "opencv-python-headless")):
        need(module, package, "train", purpose)


def need(module: str, package: str, extra: str, purpose: str) -> None:
    """Raise MissingExtraError if `module` of `package` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra, purpose)
