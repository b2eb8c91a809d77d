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
    for note in dict.fromkeys((*split.train.notes, *split.evaluation.notes, *split.notes)):
        echo(note)
    problems = dict.fromkeys((*split.train.problems, *split.evaluation.problems))
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        more = f"; {len(errors) - 1} more, 'mirilla data check' lists them" if len(errors) > 1 else ""
        warn(f"{errors[0].where}: {errors[0].what} [{errors[0].code}]{more}")
    echo(f"Wrote: {', '.join(map(str, initialised.made))}")
    echo("Next:")
    for command in next_commands(options, initialised):
        echo(f"  {command}")
    return 0
