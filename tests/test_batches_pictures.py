"""Decoded pictures: read from their records, and stored on disk; each is decoded once, and damage is noticed."""

from __future__ import annotations

import errno
import io
import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")


from mirilla.batches.pictures import (
    PICTURES,
    SUMS,
    BackgroundDecoder,
    PictureCache,
    RecordSource,
    allocate,
    record_offsets,
    shrink,
    shrunk_size,
)
from mirilla.data import records
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import write_tfrecords
from mirilla.errors import DataError, MirillaError

SHAPES = np.array([[20, 30], [9, 7], [1, 1], [4, 5]])


class Source:
    """Grey pictures of value 10, 11, ...; `decoded` lists those that were decoded, those in `broken` cannot be."""

    def __init__(self, *broken: int, shapes=SHAPES):
        self.decoded: list[int] = []
        self.broken, self.shapes = broken, shapes

    def __getitem__(self, i):
        self.decoded.append(i)
        if i in self.broken:
            raise DataError(f"picture {i} is broken")
        return np.full((*self.shapes[i], 3), 10 + i, np.uint8)


@pytest.fixture
def folder(tmp_path):
    allocate(tmp_path, SHAPES)
    return tmp_path


def test_a_picture_is_decoded_once_when_first_read(folder):
    source = Source()
    made = PictureCache(folder, SHAPES, source)
    assert (len(made), made.nbytes, made.decoded) == (4, 2052, 0)
    for _ in range(2):
        assert made[1].shape == (9, 7, 3)
        assert made[1].min() == made[1].max() == 11
    assert source.decoded == [1]
    assert (folder / PICTURES).read_bytes() == bytes(1800) + b"\x0b" * 189 + bytes(63)
    assert made.decoded == 1
    assert not made[1].flags.writeable
    again = PictureCache(folder, SHAPES, other := Source())
    assert [int(again[i].min()) for i in range(4)] == [10, 11, 12, 13]
    assert other.decoded == [0, 2, 3]
    assert source.decoded == [1]
    assert int(made[3].min()) == 13  # made by the other meanwhile
    assert source.decoded == [1]


def test_only_damaged_pictures_are_decoded_again_with_one_message(folder, capsys):
    PictureCache(folder, SHAPES, Source()).complete()
    content = bytearray((folder / PICTURES).read_bytes())
    content[1800] ^= 1  # the first byte of picture 1
    content[-1] ^= 128  # the last of picture 3
    (folder / PICTURES).write_bytes(content)
    again = PictureCache(folder, SHAPES, source := Source())
    assert [int(again[i].max()) for i in range(4)] == [10, 11, 12, 13]
    assert source.decoded == [1, 3]
    assert capsys.readouterr().out.count("is damaged, first in picture 1") == 1
    content[1800] ^= 1
    content[-1] ^= 128
    assert (folder / PICTURES).read_bytes() == content


def test_a_changed_checksum_is_damage_too(folder):
    PictureCache(folder, SHAPES, Source()).complete()
    sums = np.fromfile(folder / SUMS, np.uint64)
    sums[2] ^= np.uint64(1)
    sums.tofile(folder / SUMS)
    again = PictureCache(folder, SHAPES, source := Source())
    assert [int(again[i].max()) for i in range(4)] == [10, 11, 12, 13]
    assert source.decoded == [2]


@pytest.mark.parametrize(("name", "size"), [(PICTURES, 2051), (SUMS, 31)])
def test_files_of_the_wrong_length_are_refused(folder, name, size):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{size} bytes"):
        PictureCache(folder, SHAPES, Source())
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError):
        PictureCache(folder, SHAPES, Source())


def test_allocating_again_discards_earlier_pictures(folder):
    PictureCache(folder, SHAPES, Source()).complete()
    allocate(folder, SHAPES)
    assert PictureCache(folder, SHAPES, Source()).decoded == 0


def test_a_picture_that_cannot_be_decoded_does_not_affect_others(folder):
    made = PictureCache(folder, SHAPES, Source(1))
    with pytest.raises(DataError, match="picture 1 is broken"):
        made.complete()
    with pytest.raises(DataError, match="picture 1 is broken"):
        made[1]
    made[3]
    assert list(made.missing()) == [1, *([2] if made.decoded == 2 else [])]


def test_pixels_of_the_wrong_size_are_refused(folder):
    other = SHAPES.copy()
    other[1] = 7, 9
    made = PictureCache(folder, SHAPES, Source(shapes=other))
    with pytest.raises(DataError, match="header gives 7x9 px, but its pixels are 9x7"):
        made[1]
    assert made.decoded == 0


def test_a_full_disk_is_reported_before_anything_is_written(tmp_path, monkeypatch):
    from mirilla.batches import pictures

    free = 2000
    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free})())
    with pytest.raises(MirillaError, match=r"GB are free"):
        allocate(tmp_path, SHAPES)  # 2,052 bytes
    allocate(tmp_path, SHAPES[:1])


def test_a_disk_that_fills_up_is_an_error_and_the_picture_stays_missing(folder, monkeypatch):
    made = PictureCache(folder, SHAPES, Source())

    class Full:
        def seek(self, place):
            pass

        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    file = made._file
    monkeypatch.setattr(made, "_file", Full())
    with pytest.raises(MirillaError, match="Free some space"):
        made[0]
    assert made.decoded == 0
    monkeypatch.setattr(made, "_file", file)
    assert int(made[0].min()) == 10


def test_several_decoders_begin_at_different_places(folder):
    made = PictureCache(folder, SHAPES, Source())
    assert list(made.missing()) == [0, 1, 2, 3]
    assert list(made.missing(0.5)) == [2, 3, 0, 1]
    rest = made.missing(0.75)
    assert next(rest) == 3
    made[1]
    assert list(rest) == [0, 2]


def test_the_background_decoder_decodes_all(folder):
    made = PictureCache(folder, SHAPES, source := Source())
    made[2]
    decoder = BackgroundDecoder(made)
    decoder.start()
    decoder.start()
    for thread in decoder._threads:
        thread.join(20)
    decoder.check()
    decoder.close()
    assert made.decoded == 4
    assert sorted(source.decoded) == [0, 1, 2, 3]


def test_an_error_of_the_background_decoder_is_raised(folder):
    decoder = BackgroundDecoder(PictureCache(folder, SHAPES, Source(2)))
    decoder.check()
    decoder.start()
    for thread in decoder._threads:
        thread.join(20)
    with pytest.raises(DataError, match="picture 2 is broken"):
        decoder.check()
    decoder.close()


def test_a_closed_background_decoder_stops(folder, monkeypatch):
    monkeypatch.setattr("mirilla.batches.pictures.cores", lambda: 2)
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Source):
        def __getitem__(self, i):
            begun.set()
            assert go_on.wait(20)
            return super().__getitem__(i)

    made = PictureCache(folder, SHAPES, source := Slow())
    decoder = BackgroundDecoder(made)
    decoder.close()  # before it was started
    decoder = BackgroundDecoder(made)
    decoder.start()
    assert begun.wait(20)
    decoder._ended.set()
    go_on.set()
    decoder.close()
    assert source.decoded == [0]
    assert list(made.missing()) == [1, 2, 3]


# ---- pictures from records


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


def test_offsets_of_records(tmp_path):
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


def test_a_changed_record_is_reported(paths):
    pictures = RecordSource(paths, record_offsets(paths), 256)
    content = bytearray(paths[0].read_bytes())
    content[-10] ^= 1
    paths[0].write_bytes(content)
    assert pictures[0].max() == 1
    with pytest.raises(DataError, match=r"a\.tfrecord, record 1: the record has changed since"):
        pictures[1]
    paths[1].unlink()
    with pytest.raises(MirillaError, match=r"b\.tfrecord: No such file"):
        pictures[2]


def test_a_truncated_picture_is_named_by_its_record(tmp_path):
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
