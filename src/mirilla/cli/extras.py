"""Optional dependencies that verbs ask for before they begin."""

from __future__ import annotations

import importlib.util

from mirilla.errors import MissingExtraError


def need_torch(purpose: str) -> None:
    """Raises MissingExtraError where PyTorch or what training needs beside it is not installed."""
    for module, package in (("torch", "torch"), ("safetensors", "safetensors"), ("cv2", "opencv-python-headless")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, "train", purpose)
