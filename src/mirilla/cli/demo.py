"""`mirilla demo`: the main job on drawn pictures, without network or downloads."""

from __future__ import annotations

import argparse

from mirilla.cli.arguments import add_options, read_options
from mirilla.job.options import DemoOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Takes some minutes on two cores. Run the same command again to resume where it stopped."
    add_options(parser, DemoOptions)


def run(args: argparse.Namespace) -> int:
    from mirilla.job.demo import run_demo

    run_demo(read_options(DemoOptions, args))
    return 0
