"""Read, write, change and check a pipeline.config, make the sample, and derive the network's specification.

    >>> from mirilla import config
    >>> pipeline = config.load("pipeline.config")            # doctest: +SKIP
    >>> pipeline.model.ssd.num_classes                       # doctest: +SKIP
    1
    >>> config.require(pipeline)                             # doctest: +SKIP

The messages have the names, fields and defaults of the TensorFlow Object Detection API; docs/config.md lists what each
field does in Mirilla.
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
