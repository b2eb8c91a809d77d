"""`mirilla data convert`: write a data set in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from mirilla.cli.data.source import add_changes, add_source, print_findings, read_source
from mirilla.data import formats

HELP = "write a data set in another format"
DESCRIPTION = "Write a data set in another format. Pictures are copied byte for byte."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("destination", metavar="DST", help="folder to write (or NAME.tfrecord)")
    parser.add_argument("--to", required=True, choices=formats.WRITABLE, help="format to write")
    parser.add_argument("--label-map", metavar="P", help="label_map.pbtxt that sets the class numbers")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="number of TFRecord files (default: 1)")
    parser.add_argument(
        "--eval-share", type=float, metavar="S", help="put this share of the pictures into the part 'eval'; try 0.1"
    )
    add_changes(parser)
    parser.add_argument("--force", action="store_true", help="replace what an earlier conversion wrote to DST")


def run(args: argparse.Namespace) -> int:
    from mirilla.console import echo, progress
    from mirilla.data.convert import check_destination, convert
    from mirilla.data.split import with_eval_share
    from mirilla.labels import load_label_map

    destination = Path(args.destination)
    check_destination(destination, args.to, force=args.force, shards=args.shards)  # before the data set is read
    dataset = read_source(args)
    labels = load_label_map(args.label_map) if args.label_map else None
    if args.eval_share is not None:
        dataset = with_eval_share(dataset, args.eval_share)
    for note in dataset.notes:
        echo(note)
    with progress("Writing", len(dataset), "pictures") as bar:
        made = convert(
            dataset,
            destination,
            args.to,
            labels=labels,
            shards=args.shards,
            force=args.force,
            advance=bar.advance,
        )
    if dataset.problems:
        echo(f"{len(dataset.problems)} problems of the source ('mirilla data check {args.source}' lists all):")
        print_findings(dataset.problems, 10)
    if made.changes:
        echo(f"{len(made.changes)} changes that the format made necessary:")
        print_findings(made.changes)
    echo(
        f"Wrote {made.pictures} pictures with {made.boxes} boxes ({', '.join(made.labels)}) as {made.format} to "
        f"{made.destination}:"
    )
    for path in made.files[:20]:
        echo(f"  {path}")
    echo(f"Next: mirilla data stats {args.destination}, or train on it: mirilla run {args.destination} --out DIR")
    return 0
