"""`mirilla init`: write a pipeline.config for a data set."""

from __future__ import annotations

import argparse

from mirilla.cli.arguments import add_options, read_options
from mirilla.job.options import InitOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_options(parser, InitOptions)


def run(args: argparse.Namespace) -> int:
    """Write the files, and print what was made and what to do next."""
    from mirilla.console import echo, print_table, warn
    from mirilla.job.initialise import initialise, next_commands

    options = read_options(InitOptions, args)
    initialised = initialise(options)
    split = initialised.split
    rows = [
        (name, len(dataset), dataset.boxes, dataset.source)
        for name, dataset in (("train", split.train), ("evaluation", split.evaluation))
    ]
    print_table("", ("part", "pictures", "boxes", "from"), rows)
    echo(f"Classes: {', '.join(f'{label.id} {label.shown}' for label in list(initialised.labels)[:20])}")
    if initialised.left_out:
        echo(f"Classes without a box in the training data are left out: {', '.join(initialised.left_out)}")
    for finding in initialised.warnings:
        warn(f"{finding.where}: {finding.what} {finding.remedy}".rstrip())
    unusable = sum(
        problem.severity == "error" for dataset in (split.train, split.evaluation) for problem in dataset.problems
    )
    if unusable:
        warn(f"{unusable} pictures or boxes cannot be used; 'mirilla data check' lists them.")
    echo(f"Wrote: {', '.join(map(str, initialised.made))}")
    echo("Next:")
    for command in next_commands(options, initialised):
        echo(f"  {command}")
    return 0
