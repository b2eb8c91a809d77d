"""Writing a data set in another format, as a whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from mirilla.data import coco, csv_table, filters, tfrecord, voc, widerface, yolo
from mirilla.data.dataset import EVAL, TEST, TRAIN, Dataset, free_name
from mirilla.data.sample import Sample
from mirilla.errors import DataError, UsageError
from mirilla.files import explaining
from mirilla.findings import Finding

TARGETS = ("voc", "csv", "tfrecord", "coco", "yolo", "widerface")
MARKER = "mirilla-data.json"
_ORDER = (TRAIN, EVAL, TEST)


@dataclass(frozen=True)
class Conversion:
    """What was written: the destination, every file but the pictures, counts, and what could not be kept as
    it was.
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
    labels: object = None,
    shards: int = 1,
    force: bool = False,
    advance: Callable[[int], object] | None = None,
) -> Conversion:
    """Write a data set.

    The pictures' bytes are copied. The destination appears when all is written; on any error nothing is left.
    A data set with parts (train, eval, test) keeps them.

    Args:
        destination: a folder; for TFRecord it may be a file name that ends in .tfrecord or .record.
        to: one of TARGETS.
        labels: a LabelMap, names or name -> id: decides the class numbers; by default the data set's own
            labels in their order.
        shards: number of TFRecord files of each part.
        force: replace a destination that an earlier conversion wrote.

    Raises:
        DataError: the destination is in the way, a label is not in the label map, or a picture cannot be
            read.
        UsageError: an unknown format, or options that do not fit it.
        MirillaError: the disk is full, or the destination may not be written.
    """
    if to not in TARGETS:
        raise UsageError(f"'{to}' is no format that Mirilla writes: they are {', '.join(TARGETS)}.")
    if shards != 1 and to != "tfrecord":
        raise UsageError(f"Shards are for TFRecord files only, not for {to}.")
    destination = Path(os.path.abspath(destination))
    ids = tfrecord.label_ids(labels) if labels is not None else {n: i for i, n in enumerate(dataset.labels, 1)}
    check_labels(dataset, ids)
    dataset, changes = _prepare(dataset, to)
    single = to == "tfrecord" and destination.suffix.lower() in tfrecord.SUFFIXES
    if single:
        if not force and (existing := [p for p in tfrecord.records.shard_paths(destination, shards) if p.exists()]):
            raise DataError(f"{existing[0]} exists already.", "Choose another name, or add --force to replace it.")
        paths = tfrecord.write_tfrecords(dataset.samples, ids, destination, shards, advance)
        return Conversion(destination, to, tuple(paths), len(dataset), dataset.boxes, tuple(ids), tuple(changes))
    replaceable = check_destination(destination, force)
    with explaining(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{destination.name[:80]}.", suffix=".part", dir=destination.parent))
    try:
        with explaining(destination):
            os.chmod(work, 0o755)
            _WRITERS[to](_Output(work, advance), dataset, ids, shards)
            summary = {
                "written_by": "mirilla data convert",
                "format": to,
                "source": dataset.name,
                "pictures": len(dataset),
                "boxes": dataset.boxes,
                "labels": ids,
            }
            (work / MARKER).write_text(json.dumps(summary, indent=1) + "\n", "utf-8")
            files = tuple(sorted(p.relative_to(work) for p in work.rglob("*") if p.is_file() and _is_made(p)))
            _move(work, destination, replaceable)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Conversion(
        destination,
        to,
        tuple(destination / f for f in files),
        len(dataset),
        dataset.boxes,
        tuple(ids),
        tuple(changes),
    )


def check_labels(dataset: Dataset, ids: Mapping[str, int]) -> None:
    """Every label must have a number.

    Raises:
        DataError: names the labels that have none, how often they occur, and where first.
    """
    counts: dict[str, int] = {}
    first: dict[str, str] = {}
    for sample in dataset.samples:
        for label in sample.labels:
            if label not in ids:
                counts[label] = counts.get(label, 0) + 1
                first.setdefault(label, sample.where or sample.filename)
    if counts:
        listed = ", ".join(f"'{n}' ({c} boxes, first in {first[n]})" for n, c in counts.items())
        raise DataError(
            f"{dataset.source}: labels that are not in the label map: {listed}. The map has: "
            f"{', '.join(ids) or 'nothing'}.",
            "Add them to the label map, mend the labels, or rename them (--rename OLD=NEW).",
        )


def check_destination(destination: Path, force: bool) -> bool:
    """Whether an earlier conversion stands at the destination and is to be replaced.

    Raises:
        DataError: something stands there that must not be replaced.
    """
    if not destination.exists() and not destination.is_symlink():
        return False
    if not destination.is_dir():
        raise DataError(f"{destination} is a file, but a folder is to be written.", "Choose another name.")
    with explaining(destination):
        if not any(destination.iterdir()):
            return True
    ours = (destination / MARKER).is_file()
    if not force:
        raise DataError(
            f"{destination} exists and is not empty.",
            "Choose another folder" + (", or add --force to replace it." if ours else "."),
        )
    if not ours:
        raise DataError(
            f"{destination} was not written by 'mirilla data convert' (no {MARKER} in it), so --force does "
            "not replace it.",
            "Choose another folder, or remove it yourself.",
        )
    return True


def _move(work: Path, destination: Path, replaceable: bool) -> None:
    if not replaceable:
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


def _prepare(dataset: Dataset, to: str) -> tuple[Dataset, list[Finding]]:
    """What the format cannot hold is changed, and every change is a finding."""
    changes: list[Finding] = []
    samples: Iterable[Sample] = dataset.samples
    parts = dict(dataset.parts)
    steps = {
        "tfrecord": (filters.clip_to_picture,),
        "yolo": (filters.without_ignored, filters.clip_to_picture),
    }
    prepared = []
    for sample in samples:
        for step in steps.get(to, ()):
            sample, found = step(sample)
            changes += found
        prepared.append(sample)
    if to in ("voc", "yolo"):
        prepared = _unique_stems(prepared, parts, changes)
    if to == "widerface":
        used = {label for s in prepared for label in s.labels}
        if len(used) > 1:
            raise DataError(
                f"{dataset.source}: WIDER FACE's form has one class, but the boxes have "
                f"{len(used)}: {', '.join(sorted(used))}.",
                "Join them: --rename OLD=face for each.",
            )
        if used - {widerface.LABEL}:
            changes.append(
                Finding(
                    "warning",
                    "label-lost",
                    str(dataset.source),
                    f"the form has no labels: '{used.pop()}' will be read back as '{widerface.LABEL}'.",
                )
            )
    lost = {"yolo": ("difficult", "group_of", "is_crowd"), "widerface": ("difficult", "group_of", "is_crowd")}
    for flag in lost.get(to, ()):
        count = int(sum(getattr(s, flag).sum() for s in prepared))
        if count:
            changes.append(
                Finding(
                    "warning",
                    "flag-lost",
                    str(dataset.source),
                    f"{count} boxes have the flag '{flag}', which {to} cannot hold.",
                )
            )
    if to in ("yolo", "widerface") and (count := int(sum((s.weight != 1).sum() for s in prepared))):
        changes.append(
            Finding(
                "warning",
                "flag-lost",
                str(dataset.source),
                f"{count} boxes have a weight other than 1, which {to} cannot hold.",
            )
        )
    return replace(dataset, samples=tuple(prepared), parts=parts), changes


def _unique_stems(samples: Sequence[Sample], parts: dict[str, str], changes: list[Finding]) -> list[Sample]:
    """VOC and YOLO name annotations by the picture's stem: a.jpg and a.png must not meet."""
    taken: set[tuple[str, str]] = set()
    result = []
    for sample in samples:
        part = parts.get(sample.filename, "")
        path = PurePosixPath(sample.filename)
        stem = path.with_suffix("").as_posix()
        if (part, stem) in taken:
            new = free_name(f"{stem}-{path.suffix[1:]}", {s for p, s in taken if p == part}) + path.suffix
            changes.append(
                Finding(
                    "warning",
                    "picture-renamed",
                    sample.where or sample.filename,
                    f"{sample.filename} is written as {new}: another picture has the same name but for "
                    "the suffix, and the format tells them apart by it alone.",
                )
            )
            if sample.filename in parts:
                parts[new] = parts.pop(sample.filename)
            sample, stem = replace(sample, filename=new), PurePosixPath(new).with_suffix("").as_posix()
        taken.add((part, stem))
        result.append(sample)
    return result


class _Output:
    """The folder that is being written."""

    def __init__(self, folder: Path, advance: Callable[[int], object] | None):
        self.folder, self.advance = folder, advance
        self._folders: set[Path] = set()

    def text(self, name: str, content: str) -> None:
        self._place(name).write_text(content, "utf-8", newline="\n")

    def picture(self, sample: Sample, name: str) -> None:
        safe = tfrecord.safe_name(name)
        if safe != name:
            raise DataError(
                f"{sample.where or name}: '{name}' cannot be a picture's name below the destination.",
                "Rename the picture: no '..', no leading '/', and a picture's suffix.",
            )
        path = self._place(name)
        if isinstance(sample.image, bytes):
            path.write_bytes(sample.image)
        else:
            shutil.copyfile(sample.image, path)
        if self.advance is not None:
            self.advance(1)

    def _place(self, name: str) -> Path:
        """The path of a file, its folder made."""
        path = self.folder / name
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        return path


def _is_made(path: Path) -> bool:
    from mirilla.data.images import EXTENSIONS

    return (
        path.suffix.lower() not in (*EXTENSIONS, ".xml") and path.parent.name != "labels" and "labels" not in path.parts
    )


def _by_part(dataset: Dataset) -> dict[str, list[Sample]]:
    """Samples by part; those without one are 'train' in the formats that must have parts."""
    result: dict[str, list[Sample]] = {}
    for sample in dataset.samples:
        result.setdefault(dataset.parts.get(sample.filename, TRAIN), []).append(sample)
    return {part: result[part] for part in _ORDER if part in result}


def _write_csv(out: _Output, dataset: Dataset, ids: Mapping[str, int], shards: int) -> None:
    for sample in dataset.samples:
        out.picture(sample, f"images/{sample.filename}")
    out.text("annotations.csv", csv_table.text_of(dataset.samples))
    _split_file(out, dataset)


def _split_file(out: _Output, dataset: Dataset) -> None:
    if dataset.parts:
        import csv
        import io

        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            (s.filename, dataset.parts[s.filename]) for s in dataset.samples if s.filename in dataset.parts
        )
        out.text("split.csv", text.getvalue())


def _write_voc(out: _Output, dataset: Dataset, ids: Mapping[str, int], shards: int) -> None:
    keys: dict[str, str] = {}
    for sample in dataset.samples:
        key = PurePosixPath(sample.filename).with_suffix("").as_posix()
        keys[key] = dataset.parts.get(sample.filename, "")
        out.text(f"Annotations/{key}.xml", voc.xml_of(sample, sample.filename))
        out.picture(sample, f"JPEGImages/{sample.filename}")
    for name, content in voc.image_sets(list(keys), keys).items():
        out.text(f"ImageSets/Main/{name}", content)


def _write_coco(out: _Output, dataset: Dataset, ids: Mapping[str, int], shards: int) -> None:
    for part, samples in _by_part(dataset).items():
        word = {EVAL: "val"}.get(part, part)
        names = [s.filename for s in samples]
        for sample in samples:
            out.picture(sample, f"{word}/{sample.filename}")
        content = coco.content_of(samples, names, ids)
        out.text(f"annotations/instances_{word}.json", json.dumps(content, ensure_ascii=False))


def _write_yolo(out: _Output, dataset: Dataset, ids: Mapping[str, int], shards: int) -> None:
    order = sorted(ids, key=lambda n: ids[n])
    numbers = {n: i for i, n in enumerate(order)}
    folders = {}
    for part, samples in _by_part(dataset).items():
        word = {EVAL: "val"}.get(part, part)
        folders[word] = f"images/{word}"
        for sample in samples:
            key = PurePosixPath(sample.filename).with_suffix("").as_posix()
            out.picture(sample, f"images/{word}/{sample.filename}")
            out.text(f"labels/{word}/{key}.txt", yolo.text_of(sample, numbers))
    folders.setdefault("train", next(iter(folders.values())))
    folders.setdefault("val", folders["train"])  # trainers insist on both keys
    out.text("data.yaml", yolo.yaml_of(order, folders))


def _write_widerface(out: _Output, dataset: Dataset, ids: Mapping[str, int], shards: int) -> None:
    for part, samples in _by_part(dataset).items():
        word = {EVAL: "val"}.get(part, part)
        for sample in samples:
            out.picture(sample, f"WIDER_{word}/images/{sample.filename}")
        out.text(f"wider_face_split/wider_face_{word}_bbx_gt.txt", widerface.text_of(samples))


def _write_tfrecord(out: _Output, dataset: Dataset, ids: Mapping[str, int], shards: int) -> None:
    from mirilla.labels import Label, LabelMap, save_label_map

    groups = _by_part(dataset) if dataset.parts else {"data": list(dataset.samples)}
    for part, samples in groups.items():
        tfrecord.write_tfrecords(samples, ids, out.folder / f"{part}.tfrecord", shards, out.advance)
    by_number: dict[int, str] = {}
    for name, number in ids.items():
        by_number.setdefault(number, name)
    save_label_map(out.folder / "label_map.pbtxt", LabelMap(tuple(Label(i, n) for i, n in by_number.items())))


_WRITERS: dict[str, Callable[[_Output, Dataset, Mapping[str, int], int], None]] = {
    "csv": _write_csv,
    "voc": _write_voc,
    "coco": _write_coco,
    "yolo": _write_yolo,
    "widerface": _write_widerface,
    "tfrecord": _write_tfrecord,
}
