"""The decoded pictures of a training set, kept on disk as plain bytes and read through memory mapping.

Decoding a JPEG costs more than everything else that happens to a picture, so it is done once. Pictures larger than
`long_side_px` are halved by area averaging until they are not much larger: the network's input is smaller still.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data.images import decode_rgb
from mirilla.errors import MirillaError
from mirilla.files import explaining, write_text

PICTURES, INDEX = "pictures.u8", "pictures.json"


class PictureCache:
    """Decoded pictures by number: uint8 (H, W, 3) views of one mapped file."""

    def __init__(self, folder: Path):
        index = json.loads((folder / INDEX).read_text())
        self.key: str = index["key"]
        self.shapes = np.array(index["shapes"], np.int64).reshape(-1, 2)
        self.offsets = np.concatenate([[0], np.cumsum(self.shapes.prod(1) * 3)])
        self._bytes = np.memmap(folder / PICTURES, np.uint8, "r", shape=(int(self.offsets[-1]),))

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        height, width = self.shapes[i]
        return self._bytes[self.offsets[i] : self.offsets[i + 1]].reshape(height, width, 3)


def open_cache(folder: Path, key: str, count: int, encoded: Iterable[bytes], long_side_px: int,
               advance: Callable[[int], object] = lambda count: None) -> PictureCache:
    """The cache of these pictures in `folder`, made where it is missing or of other pictures.

    Args:
        key: names the pictures; a cache with another key is made anew.
        count: how many pictures there are.
        encoded: JPEG, PNG, ... as bytes; asked for only if the cache has to be made.
        long_side_px: pictures are kept with a long side below twice this.
        advance: told how many pictures are done.

    Raises:
        DataError: a picture cannot be decoded.
        MirillaError: the disk is too small for the cache.
    """
    key = f"{key}/{long_side_px}"
    try:
        cache = PictureCache(folder)
        if cache.key == key and len(cache) == count:
            return cache
    except (OSError, ValueError, KeyError):
        pass
    return _make(folder, key, count, encoded, long_side_px, advance)


def _make(folder: Path, key: str, count: int, encoded: Iterable[bytes], long_side_px: int, advance) -> PictureCache:
    part = folder / (PICTURES + ".part")
    shapes: list[tuple[int, int]] = []
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INDEX).unlink(missing_ok=True)
        try:
            with open(part, "wb") as file:
                for i, content in enumerate(encoded):
                    picture = shrink(decode_rgb(content), long_side_px)
                    if i == 0:
                        _check_room(folder, picture.nbytes * count)
                    shapes.append(picture.shape[:2])
                    file.write(picture.tobytes())
                    advance(1)
            os.replace(part, folder / PICTURES)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    write_text(folder / INDEX, json.dumps({"key": key, "shapes": shapes}))
    return PictureCache(folder)


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free * 0.9:
        raise MirillaError(
            f"{folder}: the decoded pictures take about {needed / 1e9:.1f} GB, but only {free / 1e9:.1f} GB are free.",
            "Free some space, or choose a model directory on another disk.",
        )


def shrink(picture: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    """The picture halved (means of 2x2 pixels) until its long side is below twice `long_side_px`."""
    while max(picture.shape[:2]) >= 2 * long_side_px:
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        blocks = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        picture = ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return picture
