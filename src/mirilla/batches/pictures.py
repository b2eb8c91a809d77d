"""The decoded pictures of a training set, kept on disk as plain bytes and read through memory mapping.

Decoding a JPEG costs more than everything else that happens to a picture, so it is done once: when the picture is
first asked for, or ahead of that (`batches/background_decoder.py`). Where each picture is stored follows from the
shapes, before any is decoded.

`pictures.u8` has the pixels, `pictures.sums` says for each picture whether it is there, and its checksum. Both are good
at any moment: pixels are written before their mark, and what two threads or processes make of one picture is the same
bytes. A checksum is looked at when a process first reads a picture that it has not made.
"""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mirilla import console
from mirilla.errors import DataError, MirillaError
from mirilla.files import explaining, write_bytes, writing
from mirilla.parallel import in_order

PICTURES, SUMS = "pictures.u8", "pictures.sums"
_THERE = 1 << 32  # above the checksum


class Source(Protocol):
    """Pictures that are made anew whenever they are asked for, uint8 (H, W, 3)."""

    def __getitem__(self, i: int) -> NDArray[np.uint8]: ...


class PictureCache:
    """Decoded pictures by number: uint8 (H, W, 3) views of one mapped file.

    Args:
        folder: where `lay_out` has been.
        shapes: (N, 2) int64, height and width.
        source: makes the pictures that are not there yet, or damaged.

    Raises:
        OSError: the files are not there.
        ValueError: they have another length.
    """

    def __init__(self, folder: Path, shapes: NDArray[np.int64], source: Source):
        self.shapes, self._source = shapes, source
        self.offsets = np.concatenate([[0], np.cumsum(shapes.prod(1) * 3)])
        self._path = folder / PICTURES
        for path, size in ((self._path, self.nbytes), (folder / SUMS, 8 * len(shapes))):
            if path.stat().st_size != size:
                raise ValueError(f"{path} has {path.stat().st_size} bytes, not {size}")
        self._bytes = np.memmap(self._path, np.uint8, "r", shape=(self.nbytes,))
        self._marks = np.memmap(folder / SUMS, np.uint64, "r+", shape=(len(shapes),))
        # to write by: a full disk is an error there, in a mapped file a signal
        self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
        self._closing = weakref.finalize(self, self._file.close)
        self._writing = threading.Lock()
        self._sure = np.zeros(len(shapes), bool)
        self._told = False

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """
        Raises:
            DataError: the picture is not there yet and cannot be decoded.
            MirillaError: it cannot be read or kept.
        """
        height, width = self.shapes[i]
        picture = self._bytes[self.offsets[i] : self.offsets[i + 1]].reshape(height, width, 3)
        if not self._sure[i]:
            self._make_sure(i, picture)
        return picture

    @property
    def nbytes(self) -> int:
        return int(self.offsets[-1])

    @property
    def there(self) -> int:
        """How many pictures have been decoded."""
        return int(np.count_nonzero(self._marks))

    def missing(self, share: float = 0.0) -> Iterator[int]:
        """Numbers of the pictures that are not there, each looked at when its turn comes.

        Args:
            share: of the pictures that come last, in [0, 1): who makes them together begins at different places.
        """
        count = len(self)
        first = int(share * count)
        return (i for i in ((first + k) % count for k in range(count)) if not self._marks[i])

    def complete(self, share: float = 0.0, advance: Callable[[int], object] = lambda count: None) -> None:
        """Decode all that are missing, by as many threads as cores.

        Args:
            share: as in `missing`.
            advance: told how many pictures are done.
        """
        for _ in in_order(self.__getitem__, self.missing(share)):
            advance(1)

    def _make_sure(self, i: int, picture: NDArray[np.uint8]) -> None:
        """See to it that a picture's bytes are what they should be."""
        mark = int(self._marks[i])
        if not mark or mark != _mark(picture):
            if mark and not self._told:
                self._told = True
                console.echo(f"{self._path} is damaged, first in picture {i}: what is damaged is decoded again")
            made = self._source[i]
            if made.shape != picture.shape:
                raise DataError(
                    f"picture {i} of the training set: its header says {picture.shape[1]}x{picture.shape[0]} px, its "
                    f"pixels are {made.shape[1]}x{made.shape[0]}.",
                    "'mirilla data check' names such pictures: replace the file, or remove it.",
                )
            self._write(made, int(self.offsets[i]))
            self._marks[i] = _mark(made)
        self._sure[i] = True

    def _write(self, picture: NDArray[np.uint8], offset: int) -> None:
        content = np.ascontiguousarray(picture).data.cast("B")
        with explaining(self._path), self._writing:
            self._file.seek(offset)
            while content:
                content = content[self._file.write(content) :]


def lay_out(folder: Path, shapes: NDArray[np.int64]) -> None:
    """Make the files for pictures of these shapes, (N, 2), none of them there yet; what was there before is gone.

    Raises:
        MirillaError: the disk is too small.
    """
    nbytes = int(shapes.prod(1).sum()) * 3
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (PICTURES, SUMS):
            (folder / name).unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
    if nbytes > free * 0.9:
        raise MirillaError(
            f"{folder}: the decoded pictures take {nbytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free.",
            "Free some space, or choose a model directory on another disk.",
        )
    with writing(folder / PICTURES) as file:
        file.truncate(nbytes)
    write_bytes(folder / SUMS, bytes(8 * len(shapes)))


def memory_free() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _mark(picture: NDArray[np.uint8]) -> int:
    return _THERE | google_crc32c.value(picture.reshape(-1).tobytes())
