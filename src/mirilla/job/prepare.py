"""The stages that prepare the data: read, check, and convert to TFRecord files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mirilla.console import echo, progress
from mirilla.data import Dataset, combine
from mirilla.data.check import check_samples
from mirilla.data.dataset import EVAL, TRAIN
from mirilla.data.tfrecord import write_tfrecords
from mirilla.errors import DataError
from mirilla.files import explaining, write_text
from mirilla.job.inputs import Inputs, findings_summary, findings_text, read_inputs
from mirilla.job.options import JobOptions
from mirilla.job.workspace import Done, Workspace, fingerprint, samples_fingerprint
from mirilla.labels import label_map_text, save_label_map

_PICTURES_PER_SHARD = 2000
_UNUSABLE = ("unreadable-picture", "size-mismatch")  # codes of findings


@dataclass(frozen=True)
class Checked:
    """Facts of the stage "check".

    summary: (severity, code, count, first finding) of each kind.
    unusable: places of the pictures that cannot be decoded.
    """

    summary: list[tuple[str, str, int, str]]
    unusable: list[str]


@dataclass(frozen=True)
class Records:
    """Facts of the stage "convert": names of the TFRecord files in the folder `data`."""

    train: list[str]
    eval: list[str]


def read(workspace: Workspace, options: JobOptions) -> Inputs:
    """Read the data sets; add the teacher's labels to those for training, if there is a teacher.

    Raises:
        DataError, ConfigError, UsageError: as `read_inputs`.
    """
    echo("[read]")
    with progress("reading", unit="pictures") as bar:
        inputs = read_inputs(options, bar.advance)
    if options.teacher is not None:
        inputs = _with_teacher_labels(workspace, inputs, options.teacher)
    for line in (*inputs.sources, *inputs.notes):
        echo(f"  {line}")
    return inputs


def check_data(workspace: Workspace, inputs: Inputs) -> Checked:
    """Check every picture and box, and write all findings to findings.txt."""
    path = workspace.out / "findings.txt"
    samples = (*inputs.train.samples, *inputs.evaluation.samples)
    key = fingerprint(samples_fingerprint(samples), [str(f) for f in inputs.findings], inputs.labels.names)

    def work() -> Done[Checked]:
        findings = list(inputs.findings)
        with progress("checking", len(samples), "pictures") as bar:
            findings += check_samples(_both_parts(inputs), labels=inputs.labels.names, advance=bar.advance)
        write_text(path, findings_text(findings, inputs.notes))
        unusable = sorted({finding.where for finding in findings if finding.code in _UNUSABLE})
        return Done([path], Checked(findings_summary(findings), unusable))

    checked = workspace.stage("check", key, Checked, work)
    for severity, code, count, first in checked.summary[:8]:
        echo(f"  {severity}: {count} x {code}, for example {first}")
    if checked.summary:
        echo(f"  all findings: {path}")
    return checked


def _both_parts(inputs: Inputs) -> Dataset:
    """The pictures for training and for evaluation as one data set, so that duplicates across them are found."""
    return combine(
        replace(dataset, parts={sample.filename: part for sample in dataset.samples})
        for dataset, part in ((inputs.train, TRAIN), (inputs.evaluation, EVAL))
    )


def without_unusable(inputs: Inputs, unusable: Sequence[str]) -> Inputs:
    """Leave out the pictures that cannot be decoded; findings.txt names each.

    Raises:
        DataError: none is left.
    """
    if not unusable:
        return inputs
    left_out = set(unusable)

    def usable(dataset: Dataset) -> Dataset:
        samples = tuple(sample for sample in dataset.samples if (sample.where or sample.filename) not in left_out)
        if not samples:
            raise DataError(
                f"{dataset.source}: none of its pictures can be decoded.", "See findings.txt in the --out folder."
            )
        return replace(dataset, samples=samples)

    echo(f"  {len(unusable)} pictures that cannot be decoded are left out")
    return replace(inputs, train=usable(inputs.train), evaluation=usable(inputs.evaluation))


def convert(workspace: Workspace, inputs: Inputs) -> Records:
    """Write the TFRecord files and the label map."""
    folder, label_map = workspace.out / "data", workspace.out / "label_map.pbtxt"
    samples = (*inputs.train.samples, *inputs.evaluation.samples)
    key = fingerprint(label_map_text(inputs.labels), samples_fingerprint(samples), len(inputs.evaluation))

    def work() -> Done[Records]:
        with explaining(folder):
            if folder.exists():
                shutil.rmtree(folder)  # files of an earlier conversion
        save_label_map(label_map, inputs.labels)
        with progress("writing records", len(samples), "pictures") as bar:
            train, evaluation = (
                write_tfrecords(
                    dataset.samples,
                    inputs.labels,
                    folder / f"{part}.tfrecord",
                    max(1, round(len(dataset) / _PICTURES_PER_SHARD)),
                    bar.advance,
                )
                for part, dataset in (("train", inputs.train), ("eval", inputs.evaluation))
            )
        records = Records([path.name for path in train], [path.name for path in evaluation])
        return Done([label_map, *train, *evaluation], records)

    return workspace.stage("convert", key, Records, work)


def _with_teacher_labels(workspace: Workspace, inputs: Inputs, teacher: Path) -> Inputs:
    """Add the faces that the teacher detects in the training pictures and that the labels miss."""
    from mirilla.data.teacher import teach

    with progress("running the teacher", len(inputs.train), "pictures") as bar:
        train = teach(inputs.train, teacher, cache=workspace.out / "teacher.json", advance=bar.advance)
    return replace(inputs, train=train, notes=(*inputs.notes, *train.notes[-1:]))
