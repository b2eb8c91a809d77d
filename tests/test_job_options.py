"""Options declared once: the command line of a class, its defaults, and the values that it refuses."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

import pytest

from mirilla.cli.arguments import add_options, read_options
from mirilla.errors import UsageError
from mirilla.job.option_fields import option_of
from mirilla.job.options import DemoOptions, InitOptions, JobOptions

CLASSES = [
    (JobOptions, ["photos", "--out", "faces"]),
    (DemoOptions, []),
    (InitOptions, ["photos", "--out", "p.config"]),
]


def parser_of(options: type) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_options(parser, options)
    return parser


@pytest.mark.parametrize(("options", "arguments"), CLASSES)
def test_the_command_line_has_the_defaults_of_the_class(options, arguments):
    read = read_options(options, parser_of(options).parse_args(arguments))
    given = {"out": Path(arguments[-1])} | {"datasets": ("photos",)} if arguments else {}
    assert read == options(**given)


@pytest.mark.parametrize(("options", "arguments"), CLASSES)
def test_every_field_has_a_help_text(options, arguments):
    text = parser_of(options).format_help()
    for item in fields(options):
        declared = option_of(item)
        assert declared.help
        assert (declared.flag or declared.metavar) in text


def test_values_become_the_fields_types():
    arguments = ["a", "b@train", "--out", "o", "--size", "128", "--minutes", "2.5", "--teacher", "t.onnx", "--restart"]
    read = read_options(JobOptions, parser_of(JobOptions).parse_args(arguments))
    expected = JobOptions(("a", "b@train"), Path("o"), size_px=128, minutes=2.5, teacher=Path("t.onnx"), restart=True)
    assert read == expected


def test_options_of_a_group_exclude_each_other():
    with pytest.raises(SystemExit):
        parser_of(JobOptions).parse_args(["a", "--out", "o", "--steps", "5", "--minutes", "1"])
    with pytest.raises(UsageError, match="--steps and --minutes exclude each other"):
        JobOptions(("a",), Path("o"), steps=5, minutes=1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"steps": 0}, "--steps 0: it must be at least 1"),
        ({"minutes": -1.0}, "--minutes -1.0: it must be more than 0"),
        ({"eval_share": 1.0}, "--eval-share 1.0: it must lie between 0 and 1"),
        ({"size_px": 31}, "--size 31: it must be at least 32"),
        ({"recipe": "old"}, "Unknown recipe 'old'. Choose from: mirilla, tf1."),
        ({"resize": "crop"}, "Unknown resize 'crop'. Choose from: squash, letterbox."),
    ],
)
def test_values_out_of_range_are_refused(value, message):
    with pytest.raises(UsageError) as caught:
        JobOptions(("a",), Path("o"), **value)
    assert message in str(caught.value)
