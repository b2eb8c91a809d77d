"""mirilla data convert|stats|check|anchors|label|fetch"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from mirilla.data import formats

if TYPE_CHECKING:
    from mirilla.findings import Finding

from mirilla.cli.arguments import add_options
from mirilla.job.options import JobOptions

NAME = "data"
HELP = "convert, check, describe and fetch data sets; fit anchors to them"

_SHOWN = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-verbs and their options."""
    verbs = parser.add_subparsers(dest="data_verb", metavar="convert|stats|check|anchors|label|fetch", required=True)

    convert = verbs.add_parser(
        "convert",
        help="write a data set in another format",
        description="Write a data set in another format. Pictures are copied byte for byte.",
    )
    _source(convert)
    convert.add_argument("destination", metavar="DST", help="folder to write (or NAME.tfrecord)")
    convert.add_argument("--to", required=True, choices=formats.WRITABLE, help="format to write")
    convert.add_argument("--label-map", metavar="P", help="label_map.pbtxt that decides the class numbers")
    convert.add_argument("--shards", type=int, default=1, metavar="N", help="number of TFRecord files (default 1)")
    convert.add_argument(
        "--eval-share",
        type=float,
        metavar="S",
        help="put this share of the pictures (0.1, say) into the part 'eval'",
    )
    _changes(convert)
    convert.add_argument("--force", action="store_true", help="replace what an earlier conversion wrote to DST")

    stats = verbs.add_parser(
        "stats", help="count pictures, boxes, sizes", description="Describe a data set in numbers."
    )
    _source(stats)
    _changes(stats)
    stats.add_argument("--json", action="store_true", help="print JSON")

    check = verbs.add_parser(
        "check",
        help="list everything that is wrong",
        description="List everything that is wrong with a data set. Exit code 1: errors found.",
    )
    _source(check)
    check.add_argument("--label-map", metavar="P", help="a label that is not in this label_map.pbtxt is an error")
    check.add_argument("--quick", action="store_true", help="look at the pictures' headers only, decode none")
    check.add_argument("--json", action="store_true", help="print JSON")

    anchors = verbs.add_parser(
        "anchors",
        help="say how well a network's anchors fit the objects, and fit them",
        description="Say how well a network's anchors fit a data set's objects, and fit them.",
    )
    _source(anchors)
    _changes(anchors)
    anchors.add_argument(
        "--pipeline-config", metavar="P", help="the network (default: the sample's, or that of --model)"
    )
    anchors.add_argument("--model", metavar="NAME", help="a model of the zoo ('mirilla zoo' lists them)")
    add_options(anchors, JobOptions, ("size_px",))
    anchors.add_argument("--letterbox", action="store_true", help="photos keep their proportions")
    anchors.add_argument("--fit", action="store_true", help="fit anchors and report on them, too")
    anchors.add_argument(
        "--write", metavar="FILE", help="fit, and write P with the fitted anchors here (P itself is allowed)"
    )
    anchors.add_argument("--json", action="store_true", help="print JSON")

    label = verbs.add_parser(
        "label",
        help="add the faces that labels miss, found by a teacher",
        description="Add the faces that a data set's labels miss, found by a teacher (YuNet). A folder of photos "
        "without labels is labelled whole.",
    )
    _source(label)
    label.add_argument("--teacher", required=True, metavar="P", help="a YuNet's ONNX file")
    label.add_argument("--out", dest="destination", required=True, metavar="DST", help="folder to write")
    label.add_argument("--to", choices=formats.WRITABLE, default="tfrecord", help="format to write (default: tfrecord)")
    label.add_argument(
        "--confident", type=float, default=0.7, metavar="T", help="score of a face; below, it is ignored (0.7)"
    )
    label.add_argument("--tighten", action="store_true", help="replace loose boxes by the teacher's")
    label.add_argument("--cache", metavar="P", help="file that keeps what the teacher found")
    label.add_argument("--force", action="store_true", help="replace what an earlier run wrote to DST")

    fetch = verbs.add_parser(
        "fetch",
        help="bring a public data set here",
        description="Fetch a public data set; a broken-off download goes on where it stopped.",
    )
    fetch.add_argument("dataset", metavar="DATASET", choices=("widerface",), help="widerface")
    fetch.add_argument("destination", metavar="DIR", help="folder for it")
    fetch.add_argument("--from", dest="from_dir", metavar="DIR", help="folder with .zip files that you already have")
    fetch.add_argument("--mirror", action="append", metavar="URL", help="fetch from here first (may be repeated)")
    fetch.add_argument("--no-checksum", action="store_true", help="accept archives that were packed anew")
    fetch.add_argument("--keep-archives", action="store_true", help="keep the .zip files after unpacking")


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SRC",
        help="folder, annotation file or TFRecord files; SRC@train and SRC@eval choose a part",
    )
    parser.add_argument("--from", dest="from_format", choices=formats.READABLE, help="its format (default: recognised)")
    parser.add_argument("--split", choices=("train", "eval", "test"), help="only this part, by its own split")


def _changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--filter",
        choices=("tutorial",),
        help="tutorial: drop faces that are invalid, blurred or under 50 px, as the old tutorial did",
    )
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=NEW", help="rename a class (repeatable)")


def run(args: argparse.Namespace) -> int:
    """Run one sub-verb; returns the exit code."""
    verbs = {"convert": _convert, "stats": _stats, "check": _check, "anchors": _anchors, "fetch": _fetch}
    verbs["label"] = _label
    return verbs[args.data_verb](args)


def _read(args: argparse.Namespace):
    from mirilla.console import progress
    from mirilla.data import filters, read_dataset
    from mirilla.errors import UsageError

    with progress("Reading", unit="pictures") as bar:
        dataset = read_dataset(args.source, format=args.from_format, split=args.split, advance=bar.advance)
    names = {}
    for pair in getattr(args, "rename", []):
        old, equals, new = pair.partition("=")
        if not (old and equals and new):
            raise UsageError(f"--rename {pair}: it must be of the form OLD=NEW.")
        names[old] = new
    if names:
        dataset = filters.rename(dataset, names)
    if getattr(args, "filter", None):
        dataset = filters.named(args.filter)(dataset)
    return dataset


def _plain(finding: Finding) -> dict[str, str]:
    """A finding as `--json` prints it."""
    return {
        "severity": finding.severity,
        "code": finding.code,
        "where": finding.where,
        "text": finding.what,
        "remedy": finding.remedy,
    }


def _list(findings, most: int = _SHOWN) -> None:
    from mirilla.console import echo

    for finding in findings[:most]:
        echo(f"  {finding}")
    if len(findings) > most:
        echo(f"  ... and {len(findings) - most} more.")


def _convert(args: argparse.Namespace) -> int:
    from pathlib import Path

    from mirilla.console import echo, progress
    from mirilla.data.convert import check_destination, convert
    from mirilla.data.split import with_eval_share

    destination = Path(args.destination)
    check_destination(destination, args.to, force=args.force, shards=args.shards)  # before the work, not after it
    dataset = _read(args)
    labels = None
    if args.label_map:
        from mirilla.labels import load_label_map

        labels = load_label_map(args.label_map)
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
        echo(f"{len(dataset.problems)} problems of the source ('mirilla data check {args.source}' lists them all):")
        _list(dataset.problems, 10)
    if made.changes:
        echo(f"{len(made.changes)} changes that the format made necessary:")
        _list(made.changes)
    echo(
        f"Wrote {made.pictures} pictures with {made.boxes} boxes ({', '.join(made.labels)}) as "
        f"{made.format} to "
        f"{made.destination}:"
    )
    for path in made.files[:20]:
        echo(f"  {path}")
    echo(f"Next: mirilla data stats {args.destination}, or train on it: mirilla run {args.destination} --out DIR")
    return 0


def _stats(args: argparse.Namespace) -> int:
    from mirilla.console import echo, print_table
    from mirilla.data.statistics import statistics

    dataset = _read(args)
    found = statistics(dataset)
    if args.json:
        echo(json.dumps(found.as_json(), indent=1, ensure_ascii=False))
        return 0
    for note in dataset.notes:
        echo(note)
    rows = [
        ("format", found.format),
        ("pictures", found.pictures),
        ("without a box", found.pictures_without_boxes),
        ("boxes", found.boxes),
        ("ignored", found.ignored),
        ("difficult", found.difficult),
        ("groups", found.group_of),
        ("crowds", found.is_crowd),
        ("without an area", found.empty_boxes),
    ]
    rows += [(f"pictures in '{part}'", count) for part, count in found.pictures_per_part.items()]
    rows += [(f"problems: {code}", count) for code, count in found.problems.items()]
    print_table(found.name, ("what", "count"), rows)
    print_table(
        "Labels",
        ("label", "boxes", "pictures"),
        [(n, c, found.pictures_per_label.get(n, 0)) for n, c in found.boxes_per_label.items()],
    )
    lines = (
        ("picture width, px", found.picture_width_px),
        ("picture height, px", found.picture_height_px),
        ("boxes per picture", found.boxes_per_picture),
        ("box size at 256 px", found.box_size_px),
        ("box's longer side, px", found.box_side_px),
        ("box width / height", found.box_aspect),
    )
    columns = next((tuple(q) for _, q in lines if q), ())
    print_table(
        "Distributions (ignored boxes left out)",
        ("of", *columns),
        [(name, *(round(v, 2) for v in q.values())) for name, q in lines if q],
    )
    most = max((c for *_, c in found.size_histogram), default=0) or 1
    print_table(
        "Box size: square root of width x height, photo's long side at 256 px",
        ("px", "boxes", ""),
        [
            (
                f"{low:g} to {high:g}" if high < 10**6 else f"{low:g} and more",
                count,
                "#" * round(40 * count / most),
            )
            for low, high, count in found.size_histogram
        ],
    )
    return 0


def _check(args: argparse.Namespace) -> int:
    from collections import Counter

    from mirilla.console import echo, print_table, progress
    from mirilla.data.check import check
    from mirilla.data.dataset import EmptyDatasetError

    names = None
    if args.label_map:
        from mirilla.labels import load_label_map

        names = load_label_map(args.label_map).names
    notes: tuple[str, ...] = ()
    facts: dict = {"source": args.source, "format": args.from_format, "pictures": 0, "boxes": 0, "labels": []}
    try:
        dataset = _read(args)
    except EmptyDatasetError as error:
        if not error.problems:
            raise
        findings = list(error.problems)  # no picture can be used: the reasons are what is asked for
    else:
        with progress("Checking", len(dataset), "pictures") as bar:
            findings = check(dataset, labels=names, decode=not args.quick, advance=bar.advance)
        notes = dataset.notes
        facts |= {"format": dataset.format, "pictures": len(dataset), "boxes": dataset.boxes}
        facts["labels"] = list(dataset.labels)
    counts = Counter(f.severity for f in findings)
    if args.json:
        report = {**facts, "counts": counts, "findings": [_plain(finding) for finding in findings]}
        echo(json.dumps(report, indent=1, ensure_ascii=False))
        return 1 if counts["error"] else 0
    for note in notes:
        echo(note)
    for finding in findings:
        echo(str(finding))
    if findings:
        kinds = Counter((f.severity, f.code) for f in findings)
        print_table("Findings", ("severity", "kind", "count"), [(s, c, n) for (s, c), n in kinds.items()])
    echo(
        f"{facts['pictures']} usable pictures, {facts['boxes']} boxes, {len(facts['labels'])} labels: "
        f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes."
    )
    return 1 if counts["error"] else 0


def _anchors(args: argparse.Namespace) -> int:
    from mirilla.cli import data_anchors

    return data_anchors.run(args, _read(args))


def _label(args: argparse.Namespace) -> int:
    from pathlib import Path

    from mirilla.console import echo, progress
    from mirilla.data import teacher
    from mirilla.data.convert import check_destination, convert
    from mirilla.data.read import is_photo_folder, select
    from mirilla.data.yunet import YuNet
    from mirilla.errors import UsageError

    if not 0 < args.confident <= 1:
        raise UsageError(f"--confident {args.confident}: a score lies between 0 and 1.", "Give 0.7, say.")
    check_destination(Path(args.destination), args.to, force=args.force)
    judge = YuNet.load(args.teacher)
    bare = args.from_format is None and is_photo_folder(args.source)
    dataset = teacher.pictures(select(args.source)[0]) if bare else _read(args)
    with progress("Looking", len(dataset), "pictures") as bar:
        dataset = teacher.teach(
            dataset,
            judge,
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
        _list(made.changes)
    echo(f"Wrote {made.pictures} pictures with {made.boxes} boxes as {made.format} to {made.destination}.")
    return 0


def _fetch(args: argparse.Namespace) -> int:
    from mirilla.console import echo, progress
    from mirilla.data.fetch import MIRRORS, fetch_widerface

    echo("WIDER FACE is for research; the photos' rights belong to their owners.")
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
