"""Write a pipeline.config for a data set, with its label map and, optionally, the TFRecord files: `mirilla init`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla import config
from mirilla.console import progress
from mirilla.data import combine, records, tfrecord
from mirilla.data.convert import check_labels, convert
from mirilla.data.dataset import EVAL, TEST, TRAIN
from mirilla.data.read import recognise, select
from mirilla.data.tf_example import label_ids
from mirilla.errors import ConfigError, DataError, UsageError
from mirilla.findings import WARNING, Finding
from mirilla.job.datasets import Split, classes_of, read_sources, split_sources
from mirilla.job.options import InitOptions
from mirilla.labels import LabelMap, load_label_map, save_label_map


@dataclass(frozen=True)
class Initialised:
    """The result of `initialise`.

    split: the pictures that the configuration is for.
    are_records: all of them are in TFRecord files already.
    label_map: the label map that was given or written.
    left_out: classes that the data set names but has no box of.
    made: files and folders written.
    warnings: the findings of the configuration's checks.
    """

    split: Split
    are_records: bool
    labels: LabelMap
    left_out: tuple[str, ...]
    made: tuple[Path, ...]
    warnings: tuple[Finding, ...]


def initialise(options: InitOptions) -> Initialised:
    """Write the files.

    Raises:
        ConfigError: a file exists already, a label is not in the label map, or an option is out of range.
        DataError, UsageError: the data cannot be read or divided.
    """
    out, label_path = options.out, options.out.with_name("label_map.pbtxt")
    given = options.label_map
    keep_label_map = given is not None and label_path.exists() and label_path.samefile(given)
    for path in [out] if keep_label_map else [out, label_path]:
        _refuse_existing(path, options.force)
    split, are_records = _read_and_split(options)
    labels, left_out = _labels(given, split, are_records)
    for dataset in (split.train, split.evaluation):
        check_labels(dataset, label_ids(labels))
    train_files, eval_files = _record_files(options, are_records)
    pipeline = config.sample(
        labels.max_id,
        train_files,
        eval_files,
        label_path,
        steps=options.steps,
        batch_size=options.batch_size,
        depth_multiplier=options.depth_multiplier,
        height=options.size_px,
        width=options.size_px,
        num_eval_examples=len(split.evaluation),
        keep_aspect_ratio=options.letterbox,
    )
    findings = config.require(pipeline)
    made = [out]
    if not keep_label_map:
        save_label_map(label_path, labels)
        made.append(label_path)
    if options.convert and not are_records:
        _convert(split, options.records_folder, labels, options.force)
        made.append(options.records_folder)
    config.save(out, pipeline, f"Written by 'mirilla init' for {', '.join(options.datasets)}.")
    warnings = tuple(finding for finding in findings if finding.severity == WARNING)
    return Initialised(split, are_records, labels, tuple(left_out), tuple(made), warnings)


def next_commands(options: InitOptions, initialised: Initialised) -> list[str]:
    """The commands that write the records, if they are missing, and train."""
    commands = []
    if not initialised.are_records and not options.convert:
        commands.append(_convert_command(options, initialised))
    model = options.out.with_name("model")
    train = ["mirilla", "train", "--pipeline-config", str(options.out), "--model-dir", str(model)]
    commands.append(shlex.join(train if options.steps else [*train, "--num-train-steps", "10000"]))
    return commands


def _refuse_existing(path: Path, force: bool) -> None:
    if path.is_dir():
        raise ConfigError(f"{path}: this is a folder.", "Name a file with --out.")
    if path.exists() and not force:
        raise ConfigError(f"{path}: the file exists already.", "Choose another --out, or add --force to replace it.")


def _read_and_split(options: InitOptions) -> tuple[Split, bool]:
    """The split, and whether all of it is in TFRecord files."""
    with progress("Reading", unit="pictures") as bar:
        sources = read_sources(options.datasets, options.from_format, bar.advance)
        evaluation_sources = read_sources(options.eval_datasets, options.from_format, bar.advance)
    are_records = all(source.dataset.format == "tfrecord" for source in (*sources, *evaluation_sources))
    if are_records and not evaluation_sources and not any(source.has_evaluation_part for source in sources):
        raise UsageError(
            f"{', '.join(options.datasets)}: these TFRecord files have no part for evaluation (an eval*.tfrecord "
            "beside train*.tfrecord), and records cannot be divided.",
            "Name files for evaluation with --eval.",
        )
    return split_sources(sources, evaluation_sources, share=options.eval_share), are_records


def _labels(given: Path | None, split: Split, are_records: bool) -> tuple[LabelMap, list[str]]:
    """The label map, and the classes that it leaves out because the training data has no box of them."""
    if given is not None:
        return load_label_map(given), []
    names, unused = classes_of(split.train)
    if are_records:  # their numbers are in the files already
        names, unused = list(dict.fromkeys((*split.train.labels, *split.evaluation.labels))), []
    if not names:
        raise DataError(f"{split.train.source}: no box, so no class.", "Give a label map with --label-map.")
    return LabelMap.from_names(names), unused


def _record_files(options: InitOptions, are_records: bool) -> tuple[list[Path], list[Path]]:
    """The TFRecord files for training and for evaluation: those given, or those that a conversion writes."""
    if not are_records:
        return [options.records_folder / "train.tfrecord"], [options.records_folder / "eval.tfrecord"]
    return (
        _files_of_part(options.datasets, TRAIN),
        _files_of_part(options.eval_datasets or options.datasets, EVAL),
    )


def _files_of_part(paths: Sequence[str], part: str) -> list[Path]:
    """The TFRecord files that belong to a part by their names or folders; all of a path whose files name no part."""
    found: list[Path] = []
    for path in paths:
        where, chosen = select(path)
        if where.is_dir():
            where = recognise(where)[1]
        files = tfrecord.find(where) if where.is_dir() else records.expand(str(where))
        parts = [tfrecord.part_of(file, where) for file in files]
        wanted = chosen or part
        if wanted == EVAL and EVAL not in parts:
            wanted = TEST
        if all(parts) and wanted in parts:
            files = [file for file, own in zip(files, parts, strict=True) if own == wanted]
        found += files
    return found


def _convert(split: Split, folder: Path, labels: LabelMap, force: bool) -> None:
    marked = [
        replace(dataset, parts={sample.filename: part for sample in dataset.samples})
        for dataset, part in ((split.train, TRAIN), (split.evaluation, EVAL))
    ]
    whole = combine(marked, "records")
    with progress("Writing", total=len(whole), unit="pictures") as bar:
        convert(whole, folder, "tfrecord", labels=labels, force=force, advance=bar.advance)


def _convert_command(options: InitOptions, initialised: Initialised) -> str:
    """The command that makes the TFRecord files: `mirilla data convert` if one call is enough, else init --convert."""
    shared: list[str] = []
    label_map = options.out.with_name("label_map.pbtxt") if initialised.left_out else options.label_map
    for flag, value in (("--from", options.from_format), ("--label-map", label_map)):
        shared += [flag, str(value)] if value is not None else []
    if len(options.datasets) == 1 and not options.eval_datasets:
        words = ["mirilla", "data", "convert", options.datasets[0], str(options.records_folder), "--to", "tfrecord"]
        share = ["--eval-share", f"{options.eval_share:g}"] if initialised.split.by_share else []
        return shlex.join([*words, *shared, *share])
    words = ["mirilla", "init", *options.datasets, "--out", str(options.out)]
    if options.eval_datasets:
        words += ["--eval", *options.eval_datasets]
    if options.steps is not None:
        words += ["--steps", str(options.steps)]
    return f"{shlex.join([*words, *shared])} --convert --force    (with your other options)"
