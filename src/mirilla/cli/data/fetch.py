"""`mirilla data fetch`: download a public data set."""

from __future__ import annotations

import argparse

HELP = "download a public data set"
DESCRIPTION = "Download a public data set. An interrupted download resumes where it stopped."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", choices=("widerface",), help="widerface")
    parser.add_argument("destination", metavar="DIR", help="folder for the data set")
    parser.add_argument("--from", dest="from_dir", metavar="DIR", help="folder with .zip files that you already have")
    parser.add_argument("--mirror", action="append", metavar="URL", help="download from here first (may be repeated)")
    parser.add_argument(
        "--no-checksum", action="store_true", help="accept archives that were repacked and have another checksum"
    )
    parser.add_argument("--keep-archives", action="store_true", help="keep the .zip files after unpacking")


def run(args: argparse.Namespace) -> int:
    from mirilla.console import echo, progress
    from mirilla.data.fetch import MIRRORS, fetch_widerface

    echo("WIDER FACE is for research; the rights to the photos belong to their owners.")
    made = fetch_widerface(
        args.destination,
        mirrors=(*(args.mirror or ()), *MIRRORS),
        from_dir=args.from_dir,
        checksum=not args.no_checksum,
        keep_archives=args.keep_archives,
        progress=progress,
        echo=echo,
    )
    for name, digest in made.items():
        echo(f"{name}: sha256 {digest}")
    echo(
        f"WIDER FACE is in {args.destination}. Next: mirilla data stats {args.destination}, or "
        f"mirilla run {args.destination} --out DIR"
    )
    return 0
