"""mirilla run: the main job on the user's own photos."""

from __future__ import annotations

import argparse
from pathlib import Path

NAME = "run"
HELP = "the main job on your photos: convert, train, evaluate, export, detect, report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Run again with the same options, it goes on where it stopped."
    parser.add_argument(
        "datasets",
        nargs="+",
        metavar="DATASET",
        help="folder or annotation file of any known format; DATASET@train takes one part only",
    )
    parser.add_argument(
        "--eval",
        dest="eval_dataset",
        metavar="DATASET",
        help="evaluate on this set (its eval part where it has a split)",
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for everything that is made")
    parser.add_argument(
        "--eval-share",
        type=float,
        default=0.1,
        metavar="S",
        help="without --eval and without a split: hold back this share (default: 0.1)",
    )
    parser.add_argument("--split-file", type=Path, metavar="F", help="rows 'file,train' or 'file,eval'")
    parser.add_argument("--label-map", type=Path, metavar="P", help="label map (default: the data's own classes)")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="training steps (default: 12000)")
    length.add_argument("--minutes", type=float, metavar="M", help="train about so long on this machine")
    parser.add_argument("--batch-size", type=int, default=24, metavar="B", help="pictures per step (default: 24)")
    parser.add_argument(
        "--size",
        type=int,
        default=256,
        metavar="N",
        help="side of the network's input in pixels (default: 256)",
    )
    parser.add_argument(
        "--depth-multiplier",
        type=float,
        metavar="D",
        help="width of the network (default: the model's own)",
    )
    parser.add_argument(
        "--model", default="kit", metavar="NAME", help="a network that 'mirilla zoo' lists (default: kit)"
    )
    parser.add_argument(
        "--recipe",
        default="mirilla",
        metavar="NAME",
        help="how it learns: mirilla, or tf1 for the original's matching, losses and augmentation (default: mirilla)",
    )
    parser.add_argument(
        "--start",
        default="shipped",
        metavar="W",
        help="first weights: shipped, scratch, or the path of a checkpoint or model (default: shipped)",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="ONNX",
        help="a face detector such as YuNet: what it finds and the labels miss is learnt, or ignored where unsure",
    )
    parser.add_argument(
        "--teacher-share",
        type=float,
        default=0.0,
        metavar="S",
        help="the teacher also sees what the network is shown, and its certainty counts so much beside a label, from 0 "
        "to 1 (default: 0: not at all; 0.5 say)",
    )
    parser.add_argument(
        "--resize",
        choices=("squash", "letterbox"),
        default="squash",
        help="how a photo becomes the square input (default: squash)",
    )
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 or mps (default: the best there is)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="of initial values, order, augmentation and the share held back (default: 0)",
    )
    parser.add_argument("--name", help="the model's name (default: the out folder's)")
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier run made in DIR")


def run(args: argparse.Namespace) -> int:
    from mirilla.job import JobOptions, run_job

    run_job(
        JobOptions(
            datasets=tuple(args.datasets),
            out=args.out,
            eval_dataset=args.eval_dataset,
            eval_share=args.eval_share,
            split_file=args.split_file,
            steps=args.steps,
            minutes=args.minutes,
            batch_size=args.batch_size,
            size_px=args.size,
            depth_multiplier=args.depth_multiplier,
            model=args.model,
            recipe=args.recipe,
            start=args.start,
            teacher=args.teacher,
            teacher_share=args.teacher_share,
            resize=args.resize,
            device=args.device,
            seed=args.seed,
            label_map=args.label_map,
            name=args.name,
            restart=args.restart,
        )
    )
    return 0
