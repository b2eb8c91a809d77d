"""`mirilla data label`: add the faces that labels miss, detected by a teacher."""

from __future__ import annotations

import argparse
from pathlib import Path

from mirilla.cli.data.source import add_source, print_findings, read_source
from mirilla.data import formats

HELP = "add the faces that labels miss, detected by a teacher"
DESCRIPTION = (
    "Add the faces that a data set's labels miss, detected by a teacher (YuNet). In a folder of photos without "
    "labels, the teacher labels all faces."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--teacher", required=True, metavar="P", help="a YuNet's ONNX file")
    parser.add_argument("--out", dest="destination", required=True, metavar="DST", help="folder to write")
    parser.add_argument(
        "--to", choices=formats.WRITABLE, default="tfrecord", help="format to write (default: tfrecord)"
    )
    parser.add_argument(
        "--confident",
        type=float,
        default=0.7,
        metavar="T",
        help="minimum score of a face; detections with a lower score are ignored (default: 0.7)",
    )
    parser.add_argument("--tighten", action="store_true", help="replace loose boxes by the teacher's")
    parser.add_argument("--cache", metavar="P", help="file that keeps the teacher's detections")
    parser.add_argument("--force", action="store_true", help="replace what an earlier run wrote to DST")


def run(args: argparse.Namespace) -> int:
    from mirilla.console import echo, progress
    from mirilla.data import teacher
    from mirilla.data.convert import check_destination, convert
    from mirilla.data.read import is_photo_folder, select
    from mirilla.data.yunet import YuNet
    from mirilla.errors import UsageError

    if not 0 < args.confident <= 1:
        raise UsageError(f"--confident {args.confident}: it must be a score between 0 and 1.", "Try 0.7.")
    check_destination(Path(args.destination), args.to, force=args.force)  # before the data set is read
    model = YuNet.load(args.teacher)
    unlabelled = args.from_format is None and is_photo_folder(args.source)
    dataset = teacher.pictures(select(args.source)[0]) if unlabelled else read_source(args)
    with progress("Detecting", len(dataset), "pictures") as bar:
        dataset = teacher.teach(
            dataset,
            model,
            confident=args.confident,
            tighten=args.tighten,
            cache=args.cache,
            advance=bar.advance,
        )
    for note in dataset.notes:
        echo(note)
    made = convert(dataset, args.destination, args.to, force=args.force)
    if made.changes:
        echo(f"{len(made.changes)} changes that the format made necessary:")
        print_findings(made.changes)
    echo(f"Wrote {made.pictures} pictures with {made.boxes} boxes as {made.format} to {made.destination}.")
    return 0
