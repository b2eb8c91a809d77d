"""Run a script by its name: read its flags, and call its module."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Sequence

from mirilla import console
from mirilla.errors import UsageError
from mirilla.tf1 import flags

# script -> module of this room and its function, which takes the flags' values and returns the exit code
_SCRIPTS = {
    "down_data": ("tutorial", "down_data"),
    "data_to_pascal_xml": ("tutorial", "data_to_pascal_xml"),
    "xml_to_csv": ("tutorial", "xml_to_csv"),
    "generate_tfrecord": ("tutorial", "generate_tfrecord"),
    "model_main": ("model_main", "model_main"),
    "export_inference_graph": ("export", "export_inference_graph"),
    "train": ("legacy", "train"),
    "eval": ("legacy", "evaluate"),
}


def script_named(text: str) -> str:
    """The script of a name or file name: 'model_main', '001_down_data.py', 'object_detection/legacy/train.py'.

    Raises:
        UsageError: there is no such script.
    """
    name = text.replace("\\", "/").rpartition("/")[2].removesuffix(".py")
    name = re.sub(r"^\d+_", "", name).replace("-", "_")
    if name in _SCRIPTS:
        return name
    near = difflib.get_close_matches(name, _SCRIPTS, 1)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    raise UsageError(f"Unknown script '{text}'.{guess} Choose from: {', '.join(_SCRIPTS)}.")


def run_script(text: str, words: Sequence[str]) -> int:
    """Run a script with its command line; returns the exit code.

    Raises:
        UsageError: an unknown script, or wrong flags.
        MirillaError: what the script raises.
    """
    script = script_named(text)
    values = flags.parse(script, words, console.echo)
    if values.wants_help:
        console.echo(flags.help_text(script))
        return 0
    if values.switch("only_check_args"):
        console.echo(f"{script}: the flags are correct.")
        return 0
    module, function = _SCRIPTS[script]
    return getattr(importlib.import_module(f"mirilla.tf1.{module}"), function)(values)
