"""Mirilla: train a tiny object detector and run it on tiny devices.

    >>> import mirilla
    >>> detector = mirilla.Detector.load("frozen_inference_graph.pb")   # doctest: +SKIP
    >>> detector(picture)                                               # doctest: +SKIP

Names are imported when first used, so that `import mirilla` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mirilla.version import __version__

if TYPE_CHECKING:
    from mirilla.data import read_dataset
    from mirilla.data.sample import Sample
    from mirilla.detect.detector import Detector
    from mirilla.detections import Detections
    from mirilla.errors import MirillaError
    from mirilla.labels import LabelMap
    from mirilla.model.spec import ModelSpec

# public name -> module
_HOME = {
    "Detections": "mirilla.detections",
    "Detector": "mirilla.detect.detector",
    "LabelMap": "mirilla.labels",
    "MirillaError": "mirilla.errors",
    "ModelSpec": "mirilla.model.spec",
    "Sample": "mirilla.data.sample",
    "read_dataset": "mirilla.data",
}

__all__ = [
    "Detections",
    "Detector",
    "LabelMap",
    "MirillaError",
    "ModelSpec",
    "Sample",
    "__version__",
    "read_dataset",
]


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mirilla' has no attribute {name!r}")
