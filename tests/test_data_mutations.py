"""Mutated annotation files: one that cannot be read is an error or a finding, never a traceback."""

from __future__ import annotations

from pathlib import Path

import mutations
from helpers_data import sample
from mirilla.data import csv_table, read_dataset, voc, widerface
from mirilla.data.check import check
from mirilla.data.tfrecord import LABEL_MAP, write_tfrecords

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


@mutations.counts(150, 6000)
def test_tfrecord_files(count, tmp_path):
    (valid,) = write_tfrecords(SAMPLES, ["face", "mask"], tmp_path / "valid.bin")
    (tmp_path / LABEL_MAP).write_text("item { id: 1 name: 'face' }\nitem { id: 2 name: 'mask' }\n")
    read = reader(tmp_path, "train.record", "tfrecord")
    mutations.survive("tfrecord", valid.read_bytes(), mutations.of_bytes, read, count)
