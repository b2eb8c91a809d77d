"""mirilla demo: the main job on drawn pictures, without network or downloads."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "demo"
HELP = "draw a toy data set and train, evaluate, export and detect on it (no network)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Takes some minutes on two cores. Run again, it goes on where it stopped."
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("mirilla-demo"),
        metavar="DIR",
        help="folder for everything that is made (default: mirilla-demo)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="training steps (default: 3000)")
    parser.add_argument("--pictures", type=int, metavar="N", help="pictures drawn for training (default: 600)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the drawing and the training (default: 1)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda or mps (default: the best there is)")
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier demo made in DIR")


def run(args: argparse.Namespace) -> int:
    from mirilla.job.demo import DEFAULT_STEPS, TRAIN_PICTURES, DemoOptions, run_demo

    run_demo(
        DemoOptions(
            out=args.out,
            steps=DEFAULT_STEPS if args.steps is None else args.steps,
            seed=args.seed,
            pictures=TRAIN_PICTURES if args.pictures is None else args.pictures,
            device=args.device,
            restart=args.restart,
        )
    )
    return 0
