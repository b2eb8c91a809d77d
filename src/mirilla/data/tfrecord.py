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
from mirilla.data.annotations import Advance, source_name, unreadable_file
from mirilla.data.dataset import Dataset, EmptyDatasetError, free_name, parts_to_read
from mirilla.data.folders import files_in
from mirilla.data.output import Output, by_part
from mirilla.data.sample import Sample
from mirilla.data.split import part_in_name, part_name
from mirilla.data.tf_example import Labels, from_example, label_ids, to_example
from mirilla.data.units import WrongUnits
from mirilla.errors import DataError, MirillaError
from mirilla.files import explaining, writing
from mirilla.findings import Finding
from mirilla.labels import Label, LabelMap, load_label_map, save_label_map
from mirilla.parallel import in_order

LABEL_MAP = "label_map.pbtxt"


def find(folder: Path) -> list[Path]:
    """The TFRecord files of a folder, or of its folders of parts (train/, valid/, test/)."""
    if files := _files(folder):
        return files
    inside = sorted(path for path in folder.iterdir() if part_name(path.name) and path.is_dir())
    return [file for path in inside for file in _files(path)]


def _files(folder: Path) -> list[Path]:
    patterns = formats.BY_NAME["tfrecord"].files
    return [
        path
        for path in files_in(folder, *patterns)
        if any(word in path.name.lower() for word in ("record", "tfrec")) and path.is_file()
    ]


def load(path: Path, split: str | None = None, advance: Advance | None = None) -> Dataset:
    """Read a folder, a file, a pattern or a set of shards; records that cannot be used become findings.

    Records with numbers only take their class names from a label map beside their file.

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
    parts = {file: part for file in files if (part := part_of(file, path))}
    if len(parts) == len(files):
        read = parts_to_read(list(parts.values()), split, path)
        files = [file for file in files if parts[file] in read]
    loader = _Loader(advance)
    for file in files:
        loader.read(file, parts.get(file))
    return loader.dataset(path)


def part_of(file: Path, source: Path) -> str | None:
    """The part that a file's name mentions, or that its folder inside the source is named after."""
    inside = source.is_dir() and file.parent != source
    return part_in_name(file.name) or (part_name(file.parent.name) if inside else None)


def _label_map_beside(folder: Path, problems: list[Finding]) -> LabelMap | None:
    """The label map in a folder: label_map.pbtxt, one with that in its name, or the only .pbtxt file.

    One that cannot be read becomes a finding: most records name their classes themselves.
    """
    paths = files_in(folder, "*.pbtxt")
    named = [path for path in paths if "labelmap" in path.name.lower().replace("_", "").replace("-", "")]
    first = [folder / LABEL_MAP] if folder / LABEL_MAP in named else []
    for path in (*first, *named, *(paths if len(paths) == 1 else ()))[:1]:
        try:
            return load_label_map(path)
        except MirillaError as error:
            problems.append(unreadable_file(path, error))
    return None


class _Loader:
    """Collects the samples of TFRecord files."""

    def __init__(self, advance: Advance | None):
        self.advance = advance
        self.label_maps: dict[Path, LabelMap | None] = {}  # by folder
        self.samples: dict[str, Sample] = {}
        self.parts: dict[str, str] = {}
        self.problems: list[Finding] = []
        self.wrong_units = WrongUnits("TFRecord", normalised=True)
        self._said: set[str] = set()  # about class numbers, which concern every record

    def read(self, path: Path, part: str | None) -> None:
        """Read a file, up to a broken record, after which no record can be located."""
        if path.parent not in self.label_maps:
            self.label_maps[path.parent] = _label_map_beside(path.parent, self.problems)
        names = {item.id: item.name or item.display_name for item in self.label_maps[path.parent] or ()}
        try:
            for index, content in enumerate(records.read_records(path)):
                if self.advance is not None:
                    self.advance(1)
                self._add(content, f"{path}, record {index}", part, names)
        except DataError as error:
            self._leave_out("broken-record", str(path), error)

    def _leave_out(self, code: str, where: str, error: DataError) -> None:
        what = error.what.removeprefix(f"{where}: ")
        self.problems.append(Finding("error", code, where, what, error.remedy or ""))

    def _add(self, content: bytes, where: str, part: str | None, names: Mapping[int, str]) -> None:
        findings: list[Finding] = []
        try:
            sample = from_example(content, where, names, findings)
        except DataError as error:
            self._leave_out("unusable-record", where, error)
            return
        self.problems += [finding for finding in findings if finding.what not in self._said]
        self._said |= {finding.what for finding in findings if finding.code == "class-number"}
        if self.wrong_units.add_sample(sample):
            return
        if sample.filename in self.samples:
            sample = self._renamed(sample)
        self.samples[sample.filename] = sample
        if part:
            self.parts[sample.filename] = part

    def _renamed(self, sample: Sample) -> Sample:
        first = self.samples[sample.filename]
        name = free_name(sample.filename, self.samples)
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
        problems = [*self.problems, *self.wrong_units.findings()]
        if not self.samples:
            raise EmptyDatasetError(source, problems)
        samples = tuple(self.samples.values())
        used = {label for sample in samples for label in sample.labels}
        label_maps = [label_map for label_map in self.label_maps.values() if label_map]
        labels = dict.fromkeys(name for label_map in label_maps for name in label_map.names) or sorted(used)
        notes: tuple[str, ...] = ()
        if not label_maps and any(label.isdigit() for label in used):
            notes = (f"{source}: no label map (.pbtxt) names the classes, so their numbers are used as names.",)
        return Dataset(
            source_name(source),
            "tfrecord",
            samples,
            tuple(problems),
            source,
            tuple(labels),
            notes,
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
            sample = from_example(content, f"{path}, record {index}", names)
            units = WrongUnits("TFRecord", normalised=True)
            if units.add_sample(sample):
                (finding,) = units.findings()
                raise DataError(f"{finding.where}: {finding.what}", finding.remedy)
            yield sample


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
