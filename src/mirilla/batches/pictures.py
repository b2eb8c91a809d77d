"""The decoded pictures of a training set, kept on disk as plain bytes and read through memory mapping.

Decoding a JPEG costs more than everything else that happens to a picture, so it is done once: when the picture is first
needed, or ahead of that by `BackgroundDecoder`. Where each picture is stored follows from the shapes, before any is
decoded.

`pictures.u8` has the pixels, `pictures.sums` for each picture whether it has been decoded, and its checksum. Both are
valid at any moment: pixels are written before their mark, and what two threads or processes make of one picture is the
same bytes. A checksum is verified when a process first reads a picture that it has not decoded itself.
"""

from __future__ import annotations

import shutil
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mirilla import console
from mirilla.data import records
from mirilla.data.images import decode_rgb
from mirilla.errors import DataError, MirillaError
from mirilla.files import explaining, write_bytes, writing
from mirilla.parallel import cores, in_order
from mirilla.protos import example

PICTURES, SUMS = "pictures.u8", "pictures.sums"
_DECODED = 1 << 32  # above the checksum


class Source(Protocol):
    """Pictures that are decoded every time, uint8 (H, W, 3)."""

    def __getitem__(self, i: int, /) -> NDArray[np.uint8]: ...


class RecordSource:
    """The pictures of record files by number, each read from its record and decoded every time: uint8 (H, W, 3).

    Args:
        paths: of the record files.
        offsets: (N, 5) int64, as `record_offsets` returns them.
        long_side_px: pictures are halved until their long side is below twice this.
    """

    def __init__(self, paths: Sequence[Path], offsets: NDArray[np.int64], long_side_px: int):
        self.paths, self.offsets, self.long_side_px = tuple(paths), offsets, long_side_px

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """
        Raises:
            DataError: the picture cannot be decoded, or its record has changed.
            MirillaError: the file cannot be opened.
        """
        number, index, first, length, checksum = self.offsets[i].tolist()
        where = f"{self.paths[number]}, record {index}"
        content = records.read_content(self.paths[number], first, length, checksum)
        if content is None:
            raise DataError(
                f"{where}: the record has changed since the training began.",
                "Start the training again to read the changed records.",
            )
        (encoded,) = example.decode(content, where)["image/encoded"]
        assert isinstance(encoded, bytes)
        try:
            return shrink(decode_rgb(encoded), self.long_side_px)
        except DataError as error:
            raise DataError(f"{where}: {error.what}", error.remedy) from error


def record_offsets(paths: Sequence[Path]) -> NDArray[np.int64]:
    """Where the records of files are stored.

    Returns:
        (N, 5): number of the file, number of the record in it, and first byte, length and checksum of its content.
    """
    found = [np.zeros((0, 5), np.int64)]
    for number, path in enumerate(paths):
        layout = records.offsets(path)
        found.append(np.column_stack([np.full(len(layout), number), np.arange(len(layout)), layout]))
    return np.concatenate(found)


def shrink(picture: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    """The picture halved (means of 2x2 pixels) until its long side is below twice `long_side_px`."""
    while max(picture.shape[:2]) >= 2 * long_side_px:
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        blocks = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        picture = ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return picture


def shrunk_size(size_px: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """(height, width) of a picture of this size after `shrink`."""
    height, width = size_px
    while max(height, width) >= 2 * long_side_px:
        height, width = height // 2, width // 2
    return height, width


class PictureCache:
    """Decoded pictures by number: read-only uint8 (H, W, 3) views of one mapped file.

    Args:
        folder: where `allocate` has made the files.
        shapes: (N, 2) int64, height and width.
        source: decodes pictures that are missing or damaged.

    Raises:
        FileNotFoundError: the files are missing.
        ValueError: they have the wrong length.
    """

    def __init__(self, folder: Path, shapes: NDArray[np.int64], source: Source):
        self.shapes, self._source = shapes, source
        self.offsets = np.concatenate([[0], np.cumsum(shapes.prod(1) * 3)])
        self._path = folder / PICTURES
        for path, size in ((self._path, self.nbytes), (folder / SUMS, 8 * len(shapes))):
            if path.stat().st_size != size:
                raise ValueError(f"{path} has {path.stat().st_size} bytes, not {size}")
        # plain arrays of the mapped bytes: slicing a memmap costs several times as much
        self._bytes = np.memmap(self._path, np.uint8, "r", shape=(self.nbytes,)).view(np.ndarray)
        self._marks = np.memmap(folder / SUMS, np.uint64, "r+", shape=(len(shapes),)).view(np.ndarray)
        # to write by: a full disk is an error there, in a mapped file a signal
        self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
        self._closing = weakref.finalize(self, self._file.close)
        self._writing = threading.Lock()
        self._verified = np.zeros(len(shapes), bool)
        self._warned = False

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """
        Raises:
            DataError: the picture has not been decoded yet and cannot be.
            MirillaError: it cannot be read or stored.
        """
        height, width = self.shapes[i]
        picture = self._bytes[self.offsets[i] : self.offsets[i + 1]].reshape(height, width, 3)
        if not self._verified[i]:
            self._verify(i, picture)
        return picture

    @property
    def nbytes(self) -> int:
        return int(self.offsets[-1])

    @property
    def decoded(self) -> int:
        """How many pictures have been decoded."""
        return int(np.count_nonzero(self._marks))

    def missing(self, share: float = 0.0) -> Iterator[int]:
        """Numbers of the pictures that have not been decoded; each is checked when its turn comes.

        Args:
            share: of the pictures that come last, in [0, 1): several decoders begin at different places.
        """
        count = len(self)
        first = int(share * count)
        return (i for i in ((first + k) % count for k in range(count)) if not self._marks[i])

    def complete(self, share: float = 0.0, advance: Callable[[int], object] = lambda count: None) -> None:
        """Decode all missing pictures, with as many threads as cores.

        Args:
            share: as in `missing`.
            advance: called with the number of pictures decoded since the last call.
        """
        for _ in in_order(self.__getitem__, self.missing(share)):
            advance(1)

    def _verify(self, i: int, picture: NDArray[np.uint8]) -> None:
        """Compare a picture's bytes with their checksum; decode it if it is missing or damaged."""
        mark = int(self._marks[i])
        if not mark or mark != _mark(picture):
            if mark and not self._warned:
                self._warned = True
                console.echo(f"{self._path} is damaged, first in picture {i}. Damaged pictures are decoded again.")
            decoded = self._source[i]
            if decoded.shape != picture.shape:
                raise DataError(
                    f"picture {i} of the training set: its header gives {picture.shape[1]}x{picture.shape[0]} px, but "
                    f"its pixels are {decoded.shape[1]}x{decoded.shape[0]}.",
                    "'mirilla data check' lists such pictures: replace the file, or remove it.",
                )
            self._write(decoded, int(self.offsets[i]))
            self._marks[i] = _mark(decoded)
        self._verified[i] = True

    def _write(self, picture: NDArray[np.uint8], offset: int) -> None:
        content = np.ascontiguousarray(picture).data.cast("B")
        with explaining(self._path), self._writing:
            self._file.seek(offset)
            while content:
                content = content[self._file.write(content) :]


def allocate(folder: Path, shapes: NDArray[np.int64]) -> None:
    """Make the files for pictures of these shapes, (N, 2), none of them decoded; files from before are replaced.

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


def _mark(picture: NDArray[np.uint8]) -> int:
    return _DECODED | google_crc32c.value(picture.reshape(-1).tobytes())


class BackgroundDecoder:
    """Threads that decode what a picture cache lacks while the training runs, until all is decoded or `close`.

    They take half the cores; batches decode the pictures that they need earlier themselves.

    Args:
        rank, size: which of how many processes this is, which share the cores and the pictures.
    """

    def __init__(self, pictures: PictureCache, rank: int = 0, size: int = 1):
        self._pictures, self._rank, self._size = pictures, rank, size
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None

    def start(self) -> None:
        """Start the threads; further calls do nothing."""
        if self._threads:
            return
        count = max(1, cores() // (2 * self._size))
        for k in range(count):
            numbers = self._pictures.missing((self._rank + k / count) / self._size)
            self._threads.append(threading.Thread(target=self._work, args=(numbers,), name="pictures", daemon=True))
            self._threads[-1].start()

    def check(self) -> None:
        """
        Raises:
            DataError, MirillaError: of the first picture that could not be decoded.
        """
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _work(self, numbers: Iterator[int]) -> None:
        try:
            for number in numbers:
                if self._ended.is_set():
                    return
                self._pictures[number]
        except BaseException as error:  # handed to the training loop, which raises it
            self._error = self._error or error
            self._ended.set()
