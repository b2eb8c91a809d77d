"""`convert`: write a data set in another format, completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mirilla.data import formats, records, tfrecord
from mirilla.data.adapt import adapt
from mirilla.data.dataset import Dataset
from mirilla.data.output import Output, require_safe_names
from mirilla.data.tf_example import Labels, label_ids
from mirilla.errors import DataError, UsageError
from mirilla.files import explaining
from mirilla.findings import Finding

MARKER = "mirilla-data.json"


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        destination: the folder, or the name of the TFRecord file.
        files: files written, except pictures and annotations of single pictures.
        changes: findings about what the format could not store unchanged.
    """

    destination: Path
    format: str
    files: tuple[Path, ...]
    pictures: int
    boxes: int
    labels: tuple[str, ...]
    changes: tuple[Finding, ...]


def convert(
    dataset: Dataset,
    destination: str | os.PathLike[str],
    to: str,
    *,
    labels: Labels | None = None,
    shards: int = 1,
    force: bool = False,
    advance: Callable[[int], object] | None = None,
) -> Conversion:
    """Write a data set.

    The pictures' bytes are copied. The destination appears once everything is written; on an error nothing remains.
    A data set with parts (train, eval, test) keeps them.

    Args:
        destination: a folder; for TFRecord it may be a file name that ends in .tfrecord or .record.
        to: a name in `formats.WRITABLE`.
        labels: a LabelMap, names or name -> id: sets the class numbers; by default the data set's own labels in
            their order.
        shards: number of TFRecord files of each part.
        force: replace a destination that an earlier conversion wrote.
        advance: called with 1 after every picture.

    Raises:
        DataError: the destination exists and must not be replaced, a label is not in the label map, or a picture
            cannot be read.
        UsageError: an unknown format, or options that do not fit it.
        MirillaError: the disk is full, or the destination may not be written.
    """
    format = formats.writable(to)
    if to != "tfrecord":
        require_safe_names(dataset.samples)
    if shards != 1 and to != "tfrecord":
        raise UsageError(f"Shards are for TFRecord files only, not for {to}.")
    destination = Path(os.path.abspath(destination))
    check_destination(destination, to, force=force, shards=shards)
    ids = label_ids(labels if labels is not None else dataset.labels)
    check_labels(dataset, ids)
    dataset, changes = adapt(dataset, format)
    if _is_single_file(destination, to):
        files = tfrecord.write_tfrecords(dataset.samples, ids, destination, shards, advance)
    else:
        with _new_folder(destination) as folder:
            output = Output(folder, shards, advance)
            format.save(output, dataset, ids)
            output.write(MARKER, _summary(dataset, to, ids))
        files = sorted(destination / file for file in output.files)
    return Conversion(destination, to, tuple(files), len(dataset), dataset.boxes, tuple(ids), tuple(changes))


def _is_single_file(destination: Path, to: str) -> bool:
    return to == "tfrecord" and formats.BY_NAME[to].recognises(destination)


def _summary(dataset: Dataset, to: str, ids: Mapping[str, int]) -> str:
    summary = {
        "written_by": "mirilla data convert",
        "format": to,
        "source": dataset.name,
        "pictures": len(dataset),
        "boxes": dataset.boxes,
        "labels": ids,
    }
    return json.dumps(summary, indent=1) + "\n"


def check_labels(dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Check that every label has a number.

    Raises:
        DataError: some labels have none; the message has their counts and first occurrences.
    """
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for sample in dataset.samples:
        for label in sample.labels:
            if label not in ids:
                counts[label] = counts.get(label, 0) + 1
                first.setdefault(label, sample.where or sample.filename)
    if counts:
        listed = ", ".join(f"'{label}' ({count} boxes, first in {first[label]})" for label, count in counts.items())
        raise DataError(
            f"{dataset.source}: labels that are not in the label map: {listed}. The map has: "
            f"{', '.join(ids) or 'nothing'}.",
            "Add them to the label map, correct the labels, or rename them (--rename OLD=NEW).",
        )


def check_destination(destination: Path, to: str, *, force: bool = False, shards: int = 1) -> None:
    """Check that a conversion may be written to a destination, as `convert` does after reading the data set.

    Raises:
        DataError: the destination exists and must not be replaced.
    """
    if _is_single_file(destination, to):
        existing = [path for path in records.shard_paths(destination, shards) if path.exists()]
        if existing and not force:
            raise DataError(f"{existing[0]} exists already.", "Choose another name, or add --force to replace it.")
        return
    if not destination.exists() and not destination.is_symlink():
        return
    if not destination.is_dir():
        raise DataError(f"{destination} is a file, but the format needs a folder.", "Choose another name.")
    with explaining(destination):
        if not any(destination.iterdir()):
            return
    ours = (destination / MARKER).is_file()
    if not force:
        raise DataError(
            f"{destination} exists and is not empty.",
            "Choose another folder" + (", or add --force to replace it." if ours else "."),
        )
    if not ours:
        raise DataError(
            f"{destination} was not written by 'mirilla data convert' (no {MARKER} in it), so --force does not "
            "replace it.",
            "Choose another folder, or remove it yourself.",
        )


@contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """A temporary folder beside the destination; on success it replaces the destination, on an error it is removed."""
    with explaining(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{destination.name[:80]}.", suffix=".part", dir=destination.parent))
        try:
            os.chmod(work, 0o755)
            yield work
            _move(work, destination)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def _move(work: Path, destination: Path) -> None:
    """Move `work` to the destination; an existing folder is removed afterwards."""
    if not destination.exists():
        os.replace(work, destination)
        return
    holder = Path(tempfile.mkdtemp(prefix=f".{destination.name[:80]}.", suffix=".old", dir=destination.parent))
    old = holder / "data"
    os.replace(destination, old)
    try:
        os.replace(work, destination)
    except BaseException:
        os.replace(old, destination)
        raise
    finally:
        shutil.rmtree(holder, ignore_errors=True)
