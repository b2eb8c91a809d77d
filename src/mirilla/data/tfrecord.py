"""TFRecord files of samples: read, written, and loaded as a data set.

The messages are described in `mirilla.data.tf_example`, the files' framing in `mirilla.data.records`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mirilla.data import formats, records
from mirilla.data.annotations import Advance, source_name
from mirilla.data.dataset import Dataset, EmptyDatasetError, free_name, parts_to_read
from mirilla.data.output import Output, by_part
from mirilla.data.sample import Sample
from mirilla.data.split import part_in_name
from mirilla.data.tf_example import Labels, from_example, label_ids, to_example
from mirilla.errors import DataError
from mirilla.files import explaining, writing
from mirilla.findings import Finding
from mirilla.labels import Label, LabelMap, load_label_map, save_label_map
from mirilla.parallel import in_order

LABEL_MAP = "label_map.pbtxt"


def find(folder: Path) -> list[Path]:
    """The TFRecord files of a folder."""
    recognises = formats.BY_NAME["tfrecord"].recognises
    return sorted(
        path
        for path in folder.iterdir()
        if recognises(path) and any(word in path.name.lower() for word in ("record", "tfrec")) and path.is_file()
    )


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a folder, a file, a pattern or a set of shards; records that cannot be used become findings.

    Records with numbers only take their class names from a label map beside the files.

    Raises:
        DataError: there is no such file, a shard is missing, or no record can be used.
    """
    if path.is_dir():
        paths = find(path)
        if not paths:
            suffixes = ", ".join(pattern for pattern in formats.BY_NAME["tfrecord"].files if pattern[1] == ".")
            raise DataError(f"{path}: no TFRecord file in this folder.", f"Their names are of the form {suffixes}.")
        files = records.expand([str(file) for file in paths])
    else:
        files = records.expand(path)
    folder = path if path.is_dir() else files[0].parent
    parts = {file: part for file in files if (part := part_in_name(file.name))}
    if len(parts) == len(files):
        read = parts_to_read(list(parts.values()), split, path)
        files = [file for file in files if parts[file] in read]
    loader = _Loader(_label_map_beside(folder), advance)
    for file in files:
        loader.read(file, parts.get(file))
    return loader.dataset(path)


def _label_map_beside(folder: Path) -> LabelMap | None:
    for path in (folder / LABEL_MAP, *sorted(folder.glob("*label_map*.pbtxt"))):
        if path.is_file():
            return load_label_map(path)
    return None


class _Loader:
    """Collects the samples of TFRecord files."""

    def __init__(self, labels: LabelMap | None, advance: Advance | None):
        self.labels, self.advance = labels, advance
        self.names = {item.id: item.name for item in labels} if labels else {}
        self.samples: dict[str, Sample] = {}
        self.parts: dict[str, str] = {}
        self.problems: list[Finding] = []

    def read(self, path: Path, part: str | None) -> None:
        """Read a file, up to a broken record, after which no record can be located."""
        try:
            for index, content in enumerate(records.read_records(path)):
                if self.advance is not None:
                    self.advance(1)
                self._add(content, f"{path}, record {index}", part)
        except DataError as error:
            self.problems.append(Finding("error", "broken-record", str(path), error.what, error.remedy or ""))

    def _add(self, content: bytes, where: str, part: str | None) -> None:
        try:
            sample = from_example(content, where, self.names, self.problems)
        except DataError as error:
            self.problems.append(Finding("error", "unusable-record", where, error.what, error.remedy or ""))
            return
        if sample.filename in self.samples:
            sample = self._renamed(sample)
        self.samples[sample.filename] = sample
        if part:
            self.parts[sample.filename] = part

    def _renamed(self, sample: Sample) -> Sample:
        first = self.samples[sample.filename]
        name = free_name(sample.filename, set(self.samples))
        self.problems.append(
            Finding(
                "warning",
                "listed-twice",
                sample.where,
                f"the file name {sample.filename} occurs twice (first in {first.where}); this picture is renamed to "
                f"{name}.",
                "Check whether it is the same picture twice.",
            )
        )
        return replace(sample, filename=name)

    def dataset(self, source: Path) -> Dataset:
        """The data set of all records read.

        Raises:
            EmptyDatasetError: there is no usable record.
        """
        if not self.samples:
            raise EmptyDatasetError(source, self.problems)
        samples = tuple(self.samples.values())
        labels = self.labels.names if self.labels else sorted({label for sample in samples for label in sample.labels})
        return Dataset(
            source_name(source),
            "tfrecord",
            samples,
            tuple(self.problems),
            source,
            tuple(labels),
            parts=self.parts,
        )


def read_tfrecords(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    labels: Labels | None = None,
    digests: Mapping[Path, records.Digest] | None = None,
) -> Iterator[Sample]:
    """The samples of TFRecord files, patterns or shard sets, in the files' sorted order; pictures as bytes.

    Args:
        labels: as in `write_tfrecords`, for records that have class numbers without text.
        digests: by file; updated with the file's bytes as they are read.

    Raises:
        DataError: a file is missing, cut short or damaged, or a record cannot be used; names file and record number.
    """
    names: dict[int, str] = {}
    for label, number in (label_ids(labels) if labels is not None else {}).items():
        names.setdefault(number, label)
    for path in records.expand(paths):
        for index, content in enumerate(records.read_records(path, (digests or {}).get(path))):
            yield from_example(content, f"{path}, record {index}", names)


def write_tfrecords(
    samples: Iterable[Sample],
    labels: Labels,
    path: str | os.PathLike[str],
    shards: int = 1,
    advance: Callable[[int], object] | None = None,
) -> list[Path]:
    """Write samples into one file, or spread evenly over `shards` files named as TensorFlow names them.

    Either all files are written or none: they are moved into place together at the end.

    Args:
        labels: a LabelMap, class names in order (ids from 1), or a mapping name -> id.
        path: `train.tfrecord`; with 10 shards, `train-00000-of-00010.tfrecord` and so on.

    Returns:
        The files.

    Raises:
        DataError: there is no sample, a picture cannot be read, or a label is not in the label map.
    """
    ids = label_ids(labels)
    paths = records.shard_paths(path, shards)
    count = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(writing(shard)) for shard in paths]
        # The next pictures are read and encoded while this one is written.
        for content in in_order(lambda sample: to_example(sample, ids), samples):
            with explaining(paths[count % shards]):
                records.write_record(files[count % shards], content)
            count += 1
            if advance is not None:
                advance(1)
        if not count:
            raise DataError(f"{path}: there is no picture to write.", "Check the data set with 'mirilla data check'.")
        if count < shards:
            raise DataError(f"{path}: {count} pictures do not fill {shards} shards.", "Use fewer shards.")
    return paths


def save(output: Output, dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Write PART.tfrecord, or data.tfrecord for a data set without parts, and label_map.pbtxt."""
    groups = by_part(dataset) if dataset.parts else {"data": list(dataset.samples)}
    for part, samples in groups.items():
        paths = write_tfrecords(samples, ids, output.folder / f"{part}.tfrecord", output.shards, output.advance)
        output.files += [path.relative_to(output.folder) for path in paths]
    names: dict[int, str] = {}
    for name, number in ids.items():
        names.setdefault(number, name)
    save_label_map(output.folder / LABEL_MAP, LabelMap(tuple(Label(number, name) for number, name in names.items())))
    output.files.append(Path(LABEL_MAP))
