"""The decoded pictures of a training set, kept on disk as plain bytes and read through memory mapping.

Decoding a JPEG costs more than everything else that happens to a picture, so it is done once. Pictures larger than
`long_side_px` are halved by area averaging until they are not much larger: the network's input is smaller still.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from mirilla.data.images import decode_rgb
from mirilla.errors import MirillaError
from mirilla.files import explaining
from mirilla.parallel import in_order

PICTURES = "pictures.u8"
SAMPLED = 32  # pictures whose checksum is looked at when a file is opened that nothing has touched


class PictureCache:
    """Decoded pictures by number: uint8 (H, W, 3) views of one mapped file.

    shapes: (N, 2) int64, height and width. sums: (N,) uint32, each picture's CRC-32C.

    Raises:
        OSError: there is no such file.
        ValueError: it has another length.
    """

    def __init__(self, folder: Path, shapes: NDArray[np.int64], sums: NDArray[np.uint32]):
        self.shapes, self.sums = shapes, sums
        self.offsets = np.concatenate([[0], np.cumsum(shapes.prod(1) * 3)])
        path = folder / PICTURES
        if path.stat().st_size != self.nbytes:
            raise ValueError(f"{path} has {path.stat().st_size} bytes, not {self.nbytes}")
        self._bytes = np.memmap(path, np.uint8, "r", shape=(self.nbytes,))

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        height, width = self.shapes[i]
        return self._bytes[self.offsets[i] : self.offsets[i + 1]].reshape(height, width, 3)

    @property
    def nbytes(self) -> int:
        return int(self.offsets[-1])

    def damaged(self, all_of_them: bool) -> int | None:
        """The first picture that is not what was written; None where all that were looked at are."""
        count = len(self)
        step = 1 if all_of_them else max(1, count // SAMPLED)
        return next((i for i in range(0, count, step) if _sum(self[i]) != self.sums[i]), None)


def write_pictures(
    folder: Path,
    encoded: Iterable[bytes],
    count: int,
    long_side_px: int,
    advance: Callable[[int], object] = lambda count: None,
) -> PictureCache:
    """Decode pictures into `folder`; as many threads as cores decode.

    Args:
        encoded: JPEG, PNG, ... as bytes, each asked for once.
        count: how many there will be, by which the room on the disk is judged.
        long_side_px: pictures are kept with a long side below twice this.
        advance: told how many pictures are done.

    Raises:
        DataError: a picture cannot be decoded.
        MirillaError: the disk is too small.
    """
    part = folder / (PICTURES + ".part")
    shapes: list[tuple[int, int]] = []
    sums: list[int] = []
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            written = 0
            with open(part, "wb") as file:
                for picture in in_order(lambda content: shrink(decode_rgb(content), long_side_px), encoded):
                    shapes.append(picture.shape[:2])
                    sums.append(_sum(picture))
                    written += file.write(picture.data)
                    if len(shapes) in (1, 10, 100) or len(shapes) % 1000 == 0:
                        _check_room(folder, written, written / len(shapes) * count)
                    advance(1)
            os.replace(part, folder / PICTURES)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return PictureCache(folder, np.array(shapes, np.int64).reshape(-1, 2), np.array(sums, np.uint32))


def _sum(picture: NDArray[np.uint8]) -> int:
    return google_crc32c.value(picture.reshape(-1).tobytes())


def _check_room(folder: Path, written: int, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if needed - written > free * 0.9:
        raise MirillaError(
            f"{folder}: the decoded pictures take about {needed / 1e9:.1f} GB, but only {(free + written) / 1e9:.1f} "
            "GB are free for them.",
            "Free some space, or choose a model directory on another disk.",
        )


def memory_free() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def shrink(picture: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    """The picture halved (means of 2x2 pixels) until its long side is below twice `long_side_px`."""
    while max(picture.shape[:2]) >= 2 * long_side_px:
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        blocks = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        picture = ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return picture
