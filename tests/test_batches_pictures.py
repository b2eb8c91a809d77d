"""Decoded pictures on disk: each made once, when it is first needed; damage and other makers' work are noticed."""

from __future__ import annotations

import errno
import threading

import numpy as np
import pytest

pytest.importorskip("torch")


from mirilla.batches.pictures import PICTURES, SUMS, BackgroundDecoder, PictureCache, allocate
from mirilla.errors import DataError, MirillaError

SHAPES = np.array([[20, 30], [9, 7], [1, 1], [4, 5]])


class Source:
    """Grey pictures of value 10, 11, ...; `asked` says which were made, those in `broken` cannot be."""

    def __init__(self, *broken: int, shapes=SHAPES):
        self.asked: list[int] = []
        self.broken, self.shapes = broken, shapes

    def __getitem__(self, i):
        self.asked.append(i)
        if i in self.broken:
            raise DataError(f"picture {i} is broken")
        return np.full((*self.shapes[i], 3), 10 + i, np.uint8)


@pytest.fixture
def folder(tmp_path):
    allocate(tmp_path, SHAPES)
    return tmp_path


def test_a_picture_is_made_once_when_it_is_asked_for(folder):
    source = Source()
    made = PictureCache(folder, SHAPES, source)
    assert (len(made), made.nbytes, made.decoded) == (4, 2052, 0)
    for _ in range(2):
        assert made[1].shape == (9, 7, 3)
        assert made[1].min() == made[1].max() == 11
    assert source.asked == [1]
    assert (folder / PICTURES).read_bytes() == bytes(1800) + b"\x0b" * 189 + bytes(63)
    assert made.decoded == 1
    assert not made[1].flags.writeable
    again = PictureCache(folder, SHAPES, other := Source())
    assert [int(again[i].min()) for i in range(4)] == [10, 11, 12, 13]
    assert other.asked == [0, 2, 3]
    assert source.asked == [1]
    assert int(made[3].min()) == 13  # made by the other meanwhile
    assert source.asked == [1]


def test_a_damaged_picture_alone_is_made_anew_and_it_is_said_once(folder, capsys):
    PictureCache(folder, SHAPES, Source()).complete()
    content = bytearray((folder / PICTURES).read_bytes())
    content[1800] ^= 1  # the first byte of picture 1
    content[-1] ^= 128  # the last of picture 3
    (folder / PICTURES).write_bytes(content)
    again = PictureCache(folder, SHAPES, source := Source())
    assert [int(again[i].max()) for i in range(4)] == [10, 11, 12, 13]
    assert source.asked == [1, 3]
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
    assert source.asked == [2]


@pytest.mark.parametrize(("name", "size"), [(PICTURES, 2051), (SUMS, 31)])
def test_files_of_another_length_are_refused(folder, name, size):
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"{size} bytes"):
        PictureCache(folder, SHAPES, Source())
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError):
        PictureCache(folder, SHAPES, Source())


def test_laying_out_anew_forgets_what_was_there(folder):
    PictureCache(folder, SHAPES, Source()).complete()
    allocate(folder, SHAPES)
    assert PictureCache(folder, SHAPES, Source()).decoded == 0


def test_a_picture_that_cannot_be_made_harms_no_other(folder):
    made = PictureCache(folder, SHAPES, Source(1))
    with pytest.raises(DataError, match="picture 1 is broken"):
        made.complete()
    with pytest.raises(DataError, match="picture 1 is broken"):
        made[1]
    made[3]
    assert list(made.missing()) == [1, *([2] if made.decoded == 2 else [])]


def test_pixels_that_do_not_fit_are_refused(folder):
    other = SHAPES.copy()
    other[1] = 7, 9
    made = PictureCache(folder, SHAPES, Source(shapes=other))
    with pytest.raises(DataError, match="header says 7x9 px, its pixels are 9x7"):
        made[1]
    assert made.decoded == 0


def test_a_full_disk_is_told_beforehand(tmp_path, monkeypatch):
    from mirilla.batches import pictures

    free = 2000
    monkeypatch.setattr(pictures.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free})())
    with pytest.raises(MirillaError, match=r"GB are free"):
        allocate(tmp_path, SHAPES)  # 2,052 bytes
    allocate(tmp_path, SHAPES[:1])


def test_a_disk_that_fills_up_is_an_error_and_the_picture_is_not_there(folder, monkeypatch):
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


def test_several_makers_begin_at_different_places(folder):
    made = PictureCache(folder, SHAPES, Source())
    assert list(made.missing()) == [0, 1, 2, 3]
    assert list(made.missing(0.5)) == [2, 3, 0, 1]
    rest = made.missing(0.75)
    assert next(rest) == 3
    made[1]
    assert list(rest) == [0, 2]


def test_a_decoder_makes_all(folder):
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
    assert sorted(source.asked) == [0, 1, 2, 3]


def test_a_decoders_error_comes_out(folder):
    decoder = BackgroundDecoder(PictureCache(folder, SHAPES, Source(2)))
    decoder.check()
    decoder.start()
    for thread in decoder._threads:
        thread.join(20)
    with pytest.raises(DataError, match="picture 2 is broken"):
        decoder.check()
    decoder.close()


def test_a_closed_decoder_stops(folder, monkeypatch):
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
    assert source.asked == [0]
    assert list(made.missing()) == [1, 2, 3]
