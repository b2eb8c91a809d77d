"""Mutated annotation files: one that cannot be read is an error or a finding, never a traceback."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import mutations
from helpers_data import dataset, picture, rotated, sample
from mirilla.data import csv_table, images, read_dataset, voc, widerface
from mirilla.data.check import check
from mirilla.data.convert import convert
from mirilla.data.formats import WRITABLE
from mirilla.data.records import write_record
from mirilla.data.tfrecord import LABEL_MAP, write_tfrecords
from mirilla.errors import MirillaError
from mirilla.protos import example

SAMPLES = (
    sample("a.jpg", [(3, 2, 9, 12), (1, 1, 20, 15)], ["face", "mask"], difficult=[True, False], weight=[1, 0.5]),
    sample("b.jpg", [(3.25, 2.5, 9, 12)], ["face"], attributes={}),
    sample("c.jpg", []),
)


def reader(folder: Path, name: str, format: str):
    """A function that reads and checks a data set whose file `name` has the given bytes."""
    for item in SAMPLES:
        (folder / item.filename).write_bytes(item.encoded())

    def read(content: bytes) -> None:
        (folder / name).write_bytes(content)
        check(read_dataset(folder, format=format), decode=False)

    return read


@mutations.counts(250, 8000)
def test_csv(count, tmp_path):
    table = csv_table.text_of(SAMPLES).encode()
    result = mutations.survive("csv", table, mutations.of_text, reader(tmp_path, "labels.csv", "csv"), count)
    assert min(result["read"], result["refused"]) > count * 0.05


@mutations.counts(250, 8000)
def test_voc(count, tmp_path):
    documents = [voc.xml_of(item).encode() for item in SAMPLES]
    header = b"<?xml version='1.0' encoding='gb2312'?>\n"
    (tmp_path / "b.xml").write_bytes(documents[1])
    read = reader(tmp_path, "a.xml", "voc")
    result = mutations.survive("voc", [*documents, header + documents[0]], mutations.of_text, read, count)
    assert result["refused"] == 0  # b.xml is always read


@mutations.counts(150, 6000)
def test_widerface(count, tmp_path):
    (tmp_path / "images").mkdir()
    for item in SAMPLES:
        (tmp_path / "images" / item.filename).write_bytes(item.encoded())
    text = widerface.text_of(SAMPLES).encode()
    mutations.survive("widerface", text, mutations.of_text, reader(tmp_path, "bbx_gt.txt", "widerface"), count)


@mutations.counts(150, 6000)
def test_fddb(count, tmp_path):
    (tmp_path / "originalPics").mkdir()
    for item in SAMPLES:
        (tmp_path / "originalPics" / item.filename).write_bytes(item.encoded())
    text = b"a\n2\n9.5 6 1.57 10 8 1\n4 3 -0.5 12 9 1\nb\n1\n5 5 0 9 9 1\nc\n0\n"
    read = reader(tmp_path, "FDDB-fold-01-ellipseList.txt", "fddb")
    mutations.survive("fddb", text, mutations.of_text, read, count)


@mutations.counts(100, 2000)
def test_split_file(count, tmp_path):
    (tmp_path / "labels.csv").write_text(csv_table.text_of(SAMPLES))
    read = reader(tmp_path, "split.csv", "csv")
    mutations.survive("split", b"file,part\na.jpg,train\nb.jpg,eval\nc.jpg,test\n", mutations.of_text, read, count)


def _of_features(content: bytes, drawn: random.Random) -> bytes:
    """A record file whose records are valid, but whose features have other kinds, values and lengths."""
    records = []
    for record in _records_of(content):
        features = example.decode(record, "record")
        for name in drawn.sample(sorted(features), drawn.choice((0, 1, 1, 2, 5))):
            features[drawn.choice((name, name, name, f"{name}s"))] = drawn.choice(FEATURES)(features.pop(name))
        records.append(example.encode(features) if drawn.random() < 0.9 else mutations.of_bytes(record, drawn))
    return _file_of(records)


FEATURES = (
    lambda values: [],
    lambda values: values[:-1],
    lambda values: [*values, *values],
    lambda values: [0],
    lambda values: [-1, 2**62],
    lambda values: [7.5] * max(1, len(values)),
    lambda values: [float("nan"), float("inf"), 1e38][: max(1, len(values))],
    lambda values: [b"", b"\xff\0../x", b"face"][: max(1, len(values))],
    lambda values: [b"text"] * max(1, len(values)),
    lambda values: [1] * max(1, len(values)),
    lambda values: [value[: len(value) // 2] if isinstance(value, bytes) else -value for value in values],
)


def _records_of(content: bytes) -> list[bytes]:
    records, at = [], 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 8], "little")
        records.append(content[at + 12 : at + 12 + length])
        at += 16 + length
    return records


def _file_of(records: list[bytes]) -> bytes:
    file = io.BytesIO()
    for record in records:
        write_record(file, record)
    return file.getvalue()


@mutations.counts(300, 12000)
def test_tfrecord(count, tmp_path):
    (path,) = write_tfrecords(SAMPLES, ["face", "mask"], tmp_path / "valid.bin")
    (tmp_path / LABEL_MAP).write_text("item { id: 1 name: 'face' }\nitem { id: 2 name: 'mask' }\n")
    read = reader(tmp_path, "train.record", "tfrecord")

    def mutate(content: bytes, drawn: random.Random) -> bytes:
        content = drawn.choice((_of_features, _of_features, mutations.of_bytes))(content, drawn)
        if drawn.random() < 0.1:
            content = gzip.compress(content, 1)
            content = mutations.of_bytes(content, drawn) if drawn.random() < 0.5 else content
        return content

    result = mutations.survive("tfrecord", path.read_bytes(), mutate, read, count)
    assert min(result["read"], result["refused"]) > count * 0.05


@mutations.counts(50, 1000)
def test_label_map_beside_records(count, tmp_path):
    write_tfrecords(SAMPLES, ["face", "mask"], tmp_path / "train.record")
    label_map = b"item {\n  id: 1\n  name: 'face'\n}\nitem {\n  id: 2\n  display_name: 'mask'\n}\n"
    mutations.survive("label map", label_map, mutations.of_text, reader(tmp_path, LABEL_MAP, "tfrecord"), count)


@mutations.counts(40, 1500)
def test_conversions_lose_nothing_silently(count, tmp_path):
    """What can be read from a mutated table is written in every format and read back, or each loss is listed."""
    read_table = reader(tmp_path, "labels.csv", "csv")

    def read(content: bytes) -> None:
        read_table(content)
        before = read_dataset(tmp_path, format="csv")
        for format in WRITABLE:
            out = tmp_path / "made" / format
            shutil.rmtree(out, ignore_errors=True)
            try:
                made = convert(before, out, format)
            except MirillaError:
                assert not out.exists()
                continue
            after = read_dataset(out)
            assert len(after) == len(before)
            assert after.boxes == before.boxes or made.changes
            assert not [problem for problem in after.problems if problem.severity == "error"]

    table = csv_table.text_of(SAMPLES).encode()
    result = mutations.survive("conversions", table, mutations.of_text, read, count)
    assert result["read"] > count * 0.2


@mutations.counts(350, 20000)
def test_pictures(count):
    kinds = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM")
    files = [picture(format=kind) for kind in kinds]
    files += [rotated(6), rotated(8, format="PNG"), picture(mode="CMYK"), picture(format="PNG", mode="I;16")]
    files += [
        picture(progressive=True),
        picture(format="TIFF", compression="tiff_lzw"),
        picture(format="PNG", mode="P"),
    ]

    def read(content: bytes) -> None:
        size = images.header_of(content).upright_px
        assert images.decode_rgb(content).shape == (*size, 3)

    mutations.survive("pictures", files, mutations.of_bytes, read, count)


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> list[Path]:
    """A data set in each format."""
    folder = tmp_path_factory.mktemp("trees")
    faces = tuple(replace(item, labels=("face",) * len(item)) for item in SAMPLES)
    parts = {"a.jpg": "train", "b.jpg": "eval", "c.jpg": "train"}
    for format in WRITABLE:
        convert(dataset(*faces, parts=parts), folder / format, format)
    return [folder / format for format in WRITABLE]


@mutations.counts(150, 6000)
def test_folders(count, trees, tmp_path):
    """Files that are removed, renamed, emptied, exchanged, or replaced by folders and links."""

    def read(content: bytes) -> None:
        drawn = random.Random(content)
        folder = tmp_path / "data"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(drawn.choice(trees), folder)
        if drawn.random() < 0.2:
            shutil.copytree(drawn.choice(trees), folder, dirs_exist_ok=True)
        for _ in range(drawn.choice((1, 2, 4))):
            with contextlib.suppress(OSError):
                _change(sorted(folder.rglob("*")), drawn)
        for split in (None, "eval"):
            with contextlib.suppress(MirillaError):
                check(read_dataset(folder, split=split), decode=False)

    mutations.survive("folders", b"", lambda _, drawn: drawn.randbytes(8), read, count)


def _change(paths: list[Path], drawn: random.Random) -> None:
    """Change a file or folder."""
    path, other = drawn.choice(paths), drawn.choice(paths)
    kind = drawn.randrange(8)
    if kind < 3 and path.is_file():
        path.write_bytes((b"", path.read_bytes()[:20], other.read_bytes() if other.is_file() else b"\0")[kind])
    elif kind == 3:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif kind == 4:
        name = drawn.choice(
            ("a.jpg", "labels", "images", "data.yaml", "x.xml", "train", "split.csv", "\udcff.csv", " ")
        )
        if not (path.parent / name).exists():
            path.rename(path.parent / name)
    elif kind == 5 and path.is_file():
        path.unlink()
        path.mkdir()
    elif kind == 6 and path.is_file():
        path.unlink()
        path.symlink_to(drawn.choice((path.parent, path, other, Path("/nowhere"))))
    elif path.is_file():
        shutil.copy(
            path, path.with_suffix(drawn.choice((".csv", ".json", ".xml", ".txt", ".record", ".yaml", ".pbtxt")))
        )
