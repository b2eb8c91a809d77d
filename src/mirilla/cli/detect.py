"""mirilla detect: find objects in photos, folders, videos or a camera's picture."""

from __future__ import annotations

import argparse

NAME = "detect"
HELP = "find objects in photos, folders, videos or a camera's picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a frozen graph (.pb), a compiled model (.binaryproto), a folder "
        "with one of them, or a training folder",
    )
    parser.add_argument(
        "photos",
        metavar="PHOTO",
        nargs="+",
        help="photos, folders (searched deeply), video files, or camera:0",
    )
    parser.add_argument(
        "--out", metavar="DIR", help="write the photos with boxes drawn, and detections.json, here"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object a line on standard output, one for each photo or video frame",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="T",
        help="report scores from T on (default: what the model's model.json recommends)",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="stop a video or a camera after N frames")


def run(args: argparse.Namespace) -> int:
    from mirilla.detect_files import Options, run_on

    options = Options(
        model=args.model,
        sources=tuple(args.photos),
        out=args.out,
        json_lines=args.json,
        threshold=args.threshold,
        frames=args.frames,
    )
    return 1 if run_on(options) else 0
