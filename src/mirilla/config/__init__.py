"""pipeline.config: its messages, reading and writing, checks, and the sample.

    >>> from mirilla import config
    >>> pipeline = config.load("pipeline.config")            # doctest: +SKIP
    >>> pipeline.model.ssd.num_classes                       # doctest: +SKIP
    1
    >>> config.require(pipeline)                             # doctest: +SKIP

The messages have the TensorFlow Object Detection API's names, field names and defaults; see docs/config.md
for what each field does here.
"""

from __future__ import annotations

from mirilla.config.checks import check, require
from mirilla.config.pipeline import Pipeline, dump, load, loads, merge, override, save
from mirilla.config.sample import sample
from mirilla.protos.text import ConfigSyntaxError

__all__ = [
    "ConfigSyntaxError",
    "Pipeline",
    "check",
    "dump",
    "load",
    "loads",
    "merge",
    "override",
    "require",
    "sample",
    "save",
]
