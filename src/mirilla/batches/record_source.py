"""The pictures of record files by number, each read from its record and decoded whenever it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.data import records
from mirilla.data.images import decode_rgb
from mirilla.errors import DataError
from mirilla.protos import example


class RecordPictures:
    """Decoded pictures by number, uint8 (H, W, 3).

    Args:
        paths: of the record files.
        places: (N, 5) int64, as `places_of` finds them.
        long_side_px: pictures come with a long side below twice this.
    """

    def __init__(self, paths: Sequence[Path], places: NDArray[np.int64], long_side_px: int):
        self.paths, self.places, self.long_side_px = tuple(paths), places, long_side_px

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """
        Raises:
            DataError: the picture cannot be decoded, or its record is no longer the one that was found.
            MirillaError: the file cannot be opened.
        """
        number, index, *place = map(int, self.places[i])
        where = f"{self.paths[number]}, record {index}"
        content = records.read_content(self.paths[number], *place)
        if content is None:
            raise DataError(
                f"{where}: it has been changed since the training began.",
                "Start again: the changed records will be read anew.",
            )
        (encoded,) = example.decode(content, where)["image/encoded"]
        assert isinstance(encoded, bytes)
        try:
            return shrink(decode_rgb(encoded), self.long_side_px)
        except DataError as error:
            raise DataError(f"{where}: {error.what}", error.remedy) from error


def places_of(paths: Sequence[Path]) -> NDArray[np.int64]:
    """Where the records of files lie.

    Returns:
        (N, 5): number of the file, number of the record in it, and first byte, length and checksum of its content.
    """
    found = [np.zeros((0, 5), np.int64)]
    for number, path in enumerate(paths):
        layout = records.layout(path)
        found.append(np.column_stack([np.full(len(layout), number), np.arange(len(layout)), layout]))
    return np.concatenate(found)


def shrink(picture: NDArray[np.uint8], long_side_px: int) -> NDArray[np.uint8]:
    """The picture halved (means of 2x2 pixels) until its long side is below twice `long_side_px`."""
    while max(picture.shape[:2]) >= 2 * long_side_px:
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        blocks = picture[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
        picture = ((blocks.sum((1, 3), dtype=np.uint16) + 2) // 4).astype(np.uint8)
    return picture


def shrunk(size_px: tuple[int, int], long_side_px: int) -> tuple[int, int]:
    """(height, width) of a picture of this size after `shrink`."""
    height, width = size_px
    while max(height, width) >= 2 * long_side_px:
        height, width = height // 2, width // 2
    return height, width
