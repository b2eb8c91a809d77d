"""Data sets: one sample type, a reader and a writer per format, checks, statistics, and fetching.

Names are imported when first used, so that `mirilla.data.formats` can be listed without numpy and Pillow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirilla.data.dataset import Dataset, combine
    from mirilla.data.read import read_dataset
    from mirilla.data.sample import Sample

_HOME = {
    "Dataset": "mirilla.data.dataset",
    "Sample": "mirilla.data.sample",
    "combine": "mirilla.data.dataset",
    "read_dataset": "mirilla.data.read",
}

__all__ = ["Dataset", "Sample", "combine", "read_dataset"]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mirilla.data' has no attribute {name!r}")
