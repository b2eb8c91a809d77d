"""Pictures found again in their record files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mirilla.batches.pictures import RecordSource, record_offsets, shrink, shrunk_size
from mirilla.data import records
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import write_tfrecords
from mirilla.errors import DataError, MirillaError


def encoded(value, size=(20, 30)):
    file = io.BytesIO()
    Image.new("RGB", size[::-1], (value,) * 3).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def paths(tmp_path):
    result = [tmp_path / "a.tfrecord", tmp_path / "b.tfrecord"]
    for path, values in zip(result, ((1, 2), (3,)), strict=True):
        samples = [Sample(encoded(v), f"{v}.png", 20, 30, np.zeros((0, 4)), ()) for v in values]
        write_tfrecords(samples, ["face"], path)
    return result


def test_record_offsets_records(tmp_path):
    path = tmp_path / "some.tfrecord"
    with open(path, "wb") as file:
        for content in (b"one", b"", b"three"):
            records.write_record(file, content)
    sums = [records.masked_crc32c(c) for c in (b"one", b"", b"three")]
    assert record_offsets([path, path]).tolist() == [
        [number, 0, 12, 3, sums[0]]
        if i == 0
        else [number, 1, 31, 0, sums[1]]
        if i == 1
        else [number, 2, 47, 5, sums[2]]
        for number in range(2)
        for i in range(3)
    ]
    assert records.read_content(path, 47, 5, sums[2]) == b"three"
    assert records.read_content(path, 46, 5, sums[2]) is None
    path.write_bytes(path.read_bytes()[:-1])
    assert len(records.offsets(path)) == 2
    path.write_bytes(b"")
    assert records.offsets(path).shape == (0, 3)


def test_pictures_are_decoded_from_their_records(paths):
    pictures = RecordSource(paths, record_offsets(paths)[[2, 0]], 8)
    assert len(pictures) == 2
    assert pictures[0].shape == (10, 15, 3)
    assert [int(pictures[i].max()) for i in range(2)] == [3, 1]


def test_a_changed_record_is_told(paths):
    pictures = RecordSource(paths, record_offsets(paths), 256)
    content = bytearray(paths[0].read_bytes())
    content[-10] ^= 1
    paths[0].write_bytes(content)
    assert pictures[0].max() == 1
    with pytest.raises(DataError, match=r"a\.tfrecord, record 1: it has been changed since"):
        pictures[1]
    paths[1].unlink()
    with pytest.raises(MirillaError, match=r"b\.tfrecord: No such file"):
        pictures[2]


def test_a_picture_cut_short_is_named_by_its_record(tmp_path):
    path = tmp_path / "a.tfrecord"
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "JPEG")
    samples = [Sample(c, "x.jpg", 64, 64, np.zeros((0, 4)), ()) for c in (file.getvalue(), file.getvalue()[:-900])]
    write_tfrecords(samples, ["face"], path)
    pictures = RecordSource([path], record_offsets([path]), 256)
    assert pictures[0].shape == (64, 64, 3)
    with pytest.raises(DataError, match=r"a\.tfrecord, record 1: .*broken or cut short") as found:
        pictures[1]
    assert found.value.remedy == "Replace the file, or remove it from the data set."


def test_large_pictures_are_halved():
    tall = np.arange(4 * 1030 * 3, dtype=np.uint32).reshape(1030, 4, 3).astype(np.uint8)
    assert shrink(tall, 256).shape == (257, 1, 3)
    assert shrunk_size((1030, 4), 256) == (257, 1)
    assert shrunk_size((511, 1023), 256) == (255, 511)
    assert shrunk_size((511, 300), 256) == (511, 300)
    block = np.array([[0, 10], [20, 31]], np.uint8)[:, :, None].repeat(3, 2)
    assert shrink(block, 1)[0, 0].tolist() == [15, 15, 15]
