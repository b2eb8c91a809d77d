"""mirilla init DATASET... --out pipeline.config"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mirilla.data import formats

if TYPE_CHECKING:
    from mirilla.data import Dataset
    from mirilla.labels import LabelMap

NAME = "init"
HELP = "write a pipeline.config for a data set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "dataset",
        nargs="+",
        metavar="DATASET",
        help="folder, annotation file or TFRecord files (several are taken together); PATH@train and "
        "PATH@eval choose a part",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="the pipeline.config to write")
    parser.add_argument(
        "--eval",
        nargs="+",
        default=[],
        metavar="DATASET",
        help="data sets for evaluation (default: the data set's own split, or else --eval-share of it)",
    )
    parser.add_argument(
        "--eval-share", type=float, default=0.1, metavar="S", help="share of the pictures (default 0.1)"
    )
    parser.add_argument("--from", dest="from_format", choices=formats.READABLE, help="format (default: recognised)")
    parser.add_argument("--label-map", metavar="P", help="label map to take (default: made from the data)")
    parser.add_argument("--steps", type=int, metavar="N", help="how long to train")
    parser.add_argument("--batch-size", type=int, default=24, metavar="B", help="pictures a step (default 24)")
    parser.add_argument("--depth-multiplier", type=float, default=0.125, metavar="D", help="width (default 0.125)")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="input side in px (default 256)")
    parser.add_argument(
        "--letterbox", action="store_true", help="keep a photo's proportions and pad it (default: squash it)"
    )
    parser.add_argument("--convert", action="store_true", help="write the TFRecord files, too, where DATASET is none")
    parser.add_argument(
        "--records", metavar="DIR", help="folder of the TFRecord files (default: 'records' beside FILE)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that stand in the way")


@dataclass(frozen=True)
class _Parts:
    """What is trained on and what is evaluated.

    are_records: all of it is in TFRecord files already. by_share: a share of the pictures was put aside.
    """

    train: Dataset
    evaluation: Dataset
    are_records: bool
    by_share: bool = False


def run(args: argparse.Namespace) -> int:
    """Write the files, and say what was made and what comes next.

    Raises:
        MirillaError: a file is in the way, the data cannot be read, a label is not in the label map, or an
            option is out of range; nothing is written then.
    """
    from mirilla import config
    from mirilla.console import echo, print_table, warn
    from mirilla.data.convert import check_labels
    from mirilla.data.examples import label_ids
    from mirilla.labels import save_label_map

    out = Path(args.out)
    label_path = out.with_name("label_map.pbtxt")
    records = Path(args.records) if args.records else out.with_name("records")
    _free(out, args.force)
    given = Path(args.label_map) if args.label_map else None
    own_map = given is not None and label_path.exists() and label_path.samefile(given)
    if not own_map:
        _free(label_path, args.force)

    parts = _parts(args)
    labels = _labels(given, parts)
    for part in (parts.train, parts.evaluation):
        check_labels(part, label_ids(labels))
    if parts.are_records:
        train_files, eval_files = _record_files(args)
    else:
        train_files, eval_files = [records / "train.tfrecord"], [records / "eval.tfrecord"]

    pipeline = config.sample(
        labels.max_id,
        train_files,
        eval_files,
        label_path,
        steps=args.steps,
        batch_size=args.batch_size,
        depth_multiplier=args.depth_multiplier,
        height=args.size,
        width=args.size,
        num_eval_examples=len(parts.evaluation),
        keep_aspect_ratio=args.letterbox,
    )
    findings = config.require(pipeline)
    if args.convert and not parts.are_records:
        _convert(parts, records, labels, args.force)
    if not own_map:
        save_label_map(label_path, labels)
    config.save(out, pipeline, f"Written by 'mirilla init' for {', '.join(args.dataset)}.")

    rows = [
        [name, len(part), part.boxes, part.source]
        for name, part in (("train", parts.train), ("evaluation", parts.evaluation))
    ]
    print_table("", ["part", "pictures", "boxes", "from"], rows)
    echo(f"Classes: {', '.join(f'{item.id} {item.shown}' for item in list(labels)[:20])}")
    for finding in findings:
        if finding.severity == "warning":
            warn(f"{finding.where}: {finding.what} {finding.remedy}".rstrip())
    problems = sum(p.severity == "error" for part in (parts.train, parts.evaluation) for p in part.problems)
    if problems:
        warn(f"{problems} pictures or boxes cannot be used; 'mirilla data check' lists them.")
    made = [out, *([] if own_map else [label_path])]
    if args.convert and not parts.are_records:
        made.append(records)
    echo(f"Made: {', '.join(map(str, made))}")
    echo("Next:")
    if not parts.are_records and not args.convert:
        echo(f"  {_convert_command(args, parts, records, given)}")
    steps = "" if args.steps else " --num-train-steps 10000"
    model = shlex.quote(str(out.with_name("model")))
    echo(f"  mirilla train --pipeline-config {shlex.quote(str(out))} --model-dir {model}{steps}")
    return 0


def _free(path: Path, force: bool) -> None:
    from mirilla.errors import ConfigError

    if path.is_dir():
        raise ConfigError(f"{path} is a folder.", "Name a file with --out.")
    if path.exists() and not force:
        raise ConfigError(f"{path} exists already.", "Choose another --out, or add --force to replace it.")


def _parts(args: argparse.Namespace) -> _Parts:
    from mirilla.data import combine
    from mirilla.data.dataset import EVAL, TRAIN
    from mirilla.data.split import split_share
    from mirilla.errors import UsageError

    sources = _read(args.dataset, args.from_format)
    train = combine(sources, "train")
    are_records = all(source.format == "tfrecord" for source in sources)
    if args.eval:
        others = _read(args.eval, args.from_format)
        are_records = are_records and all(other.format == "tfrecord" for other in others)
        # What a data set's own split keeps for evaluation is not trained on, whatever is measured here.
        train = combine([_without_evaluation(source) for source in sources], "train")
        return _Parts(train, combine(others, "evaluation"), are_records)
    chosen = [s for s in train.samples if train.parts.get(s.filename) == EVAL]
    if chosen:
        kept = [s for s in train.samples if train.parts.get(s.filename, TRAIN) == TRAIN]
        if not kept:
            raise UsageError(f"{train.source}: all pictures are in the part 'eval', and none is left to train on.")
        return _Parts(train.with_samples(kept), train.with_samples(chosen), are_records)
    if are_records:
        raise UsageError(
            f"{train.source}: these TFRecord files have no part for evaluation (an eval*.tfrecord beside "
            "train*.tfrecord), and records are not parted. Name some with --eval."
        )
    return _Parts(*split_share(train, args.eval_share), are_records, by_share=True)


def _without_evaluation(source: Dataset) -> Dataset:
    """The pictures that are in no part, or in 'train'; all of them where that leaves none (PATH@eval)."""
    from mirilla.data.dataset import TRAIN

    kept = [s for s in source.samples if source.parts.get(s.filename, TRAIN) == TRAIN]
    return source.with_samples(kept) if kept else source


def _read(paths: Sequence[str], form: str | None) -> list[Dataset]:
    from mirilla.console import progress
    from mirilla.data import read_dataset

    with progress("Reading", unit="pictures") as bar:
        return [read_dataset(path, format=form, advance=bar.advance) for path in paths]


def _labels(given: Path | None, parts: _Parts) -> LabelMap:
    from mirilla.errors import DataError
    from mirilla.labels import LabelMap, load_label_map

    if given is not None:
        return load_label_map(given)
    names = tuple(dict.fromkeys((*parts.train.labels, *parts.evaluation.labels)))
    if not names:
        raise DataError(f"{parts.train.source}: no box, so no class.", "Give a label map with --label-map.")
    return LabelMap.from_names(names)


def _record_files(args: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """The files of both parts: by the options, or by the files' names."""
    from mirilla.data import records, tfrecord
    from mirilla.data.dataset import EVAL, TRAIN
    from mirilla.data.read import select
    from mirilla.data.split import part_name

    def part_of(file: Path) -> str | None:
        words = re.split(r"[._-]", file.name.lower())
        return next((part for word in words if (part := part_name(word))), None)

    def files(paths: Sequence[str], part: str) -> list[Path]:
        found: list[Path] = []
        for path in paths:
            where, chosen = select(path)
            inside = tfrecord.find(where) if where.is_dir() else records.expand(str(where))
            if all(part_of(file) for file in inside):
                inside = [file for file in inside if part_of(file) == (chosen or part)] or inside
            found += inside
        return found

    if args.eval:
        return files(args.dataset, TRAIN), files(args.eval, EVAL)
    return files(args.dataset, TRAIN), files(args.dataset, EVAL)


def _convert(parts: _Parts, records: Path, labels: LabelMap, force: bool) -> None:
    from mirilla.console import progress
    from mirilla.data import combine
    from mirilla.data.convert import convert
    from mirilla.data.dataset import EVAL, TRAIN

    marked = [
        replace(part, parts={s.filename: name for s in part.samples})
        for part, name in ((parts.train, TRAIN), (parts.evaluation, EVAL))
    ]
    whole = combine(marked, "records")
    with progress("Writing", total=len(whole), unit="pictures") as bar:
        convert(whole, records, "tfrecord", labels=labels, force=force, advance=bar.advance)


def _convert_command(args: argparse.Namespace, parts: _Parts, records: Path, given: Path | None) -> str:
    """The command that makes the TFRecord files: the converter's where it can do it alone, else our own."""
    if len(args.dataset) == 1 and not args.eval:
        words = ["mirilla", "data", "convert", args.dataset[0], str(records), "--to", "tfrecord"]
        if args.from_format:
            words += ["--from", args.from_format]
        if parts.by_share:
            words += ["--eval-share", f"{args.eval_share:g}"]
        if given is not None:
            words += ["--label-map", str(given)]
        return shlex.join(words)
    words = ["mirilla", "init", *args.dataset, "--out", args.out]
    if args.eval:
        words += ["--eval", *args.eval]
    for option, value in (
        ("--from", args.from_format),
        ("--label-map", args.label_map),
        ("--steps", args.steps),
    ):
        if value is not None:
            words += [option, str(value)]
    return f"{shlex.join(words)} --convert --force    (with your other options)"
