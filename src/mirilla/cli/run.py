"""`mirilla run`: the main job on the user's own photos."""

from __future__ import annotations

import argparse

from mirilla.cli.arguments import add_options, read_options
from mirilla.job.options import JobOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Run the same command again to resume where it stopped."
    add_options(parser, JobOptions)


def run(args: argparse.Namespace) -> int:
    from mirilla.job.run import run_job

    run_job(read_options(JobOptions, args))
    return 0
