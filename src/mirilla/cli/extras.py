"""Optional dependencies that verbs ask for before they begin."""

from __future__ import annotations

import importlib.util

from mirilla.errors import MissingExtraError


def need_torch(purpose: str) -> None:
    """Raises MissingExtraError where PyTorch or what training needs beside it is not installed."""
    for module, package in (("torch", "torch"), ("cv2", "opencv-python-headless")):
        need(module, package, "train", purpose)


def need(module: str, package: str, extra: str, purpose: str) -> None:
    """Raises MissingExtraError where `module` of `package` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(package, extra, purpose)
