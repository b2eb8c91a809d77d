"""A training set's pictures on a GPU, one after the other as they are in the cache.

A pixel is one 32-bit word, so that the four neighbours that an interpolation needs are four loads. Where inputs are to
be averaged rather than sampled, halved copies of the pictures are kept as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirilla.batches.examples import Pictures
from mirilla.errors import MirillaError

BYTES_PER_PIXEL = 4
SHARE_OF_FREE_MEMORY = 0.6  # the rest is the step's
CHUNK = 1 << 26  # pixels that are sent at once


@dataclass(frozen=True)
class GpuPictures:
    """N pictures, and L - 1 halved copies of them. All but the pixels stays on the host, where batches are drawn.

    pixels: (P,) int32, red in the lowest byte. starts: (L, N) first pixel. sizes: (L, N, 2) height and width.
    means: (N, 3) float32 colour.
    """

    pixels: Tensor
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    means: NDArray[np.float32]

    @property
    def levels(self) -> int:
        return len(self.sizes)


def level_sizes(shapes: NDArray[np.int64], levels: int) -> NDArray[np.int64]:
    """(L, N, 2) height and width; the side of a copy is halved and rounded down, and at least 1."""
    return np.stack([np.maximum(shapes >> level, 1) for level in range(levels)])


def bytes_needed(pictures: Pictures, levels: int = 1) -> int:
    return int(level_sizes(pictures.shapes, levels).prod(2).sum()) * BYTES_PER_PIXEL


def bytes_free(device: torch.device) -> int | None:
    """Bytes that a training set may take; None if the device does not limit it."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] * SHARE_OF_FREE_MEMORY)


def upload(
    pictures: Pictures,
    device: torch.device,
    levels: int = 1,
    room_bytes: int | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> GpuPictures:
    """Copy pictures to a device.

    Args:
        levels: 1 for the pictures alone, 2 for copies of half the size as well, ...
        room_bytes: the most that they may take; None: no limit.
        advance: called with the number of pictures that have been copied since the last call.

    Raises:
        MirillaError: they need more room.
    """
    needed = bytes_needed(pictures, levels)
    if room_bytes is not None and needed > room_bytes:
        raise MirillaError(
            f"{device}: the {len(pictures)} decoded pictures take {needed / 1e9:.1f} GB there, "
            f"{room_bytes / 1e9:.1f} GB are free for them.",
            "Free memory of the device, or let the host make the batches: it reads pictures from the disk.",
        )
    sizes = level_sizes(pictures.shapes, levels)
    ends = np.cumsum(sizes.prod(2).T.reshape(-1))  # picture by picture, its levels one after the other
    starts = np.concatenate([[0], ends]).reshape(-1)
    pixels = torch.empty(int(starts[-1]), dtype=torch.int32, device=device)
    means = np.zeros((len(pictures), 3), np.float32)
    first = 0
    while first < len(pictures):
        last = first + 1
        while last < len(pictures) and starts[(last + 1) * levels] - starts[first * levels] <= CHUNK:
            last += 1
        parts = []
        for i in range(first, last):
            picture = pictures[i]
            means[i] = picture.mean((0, 1), dtype=np.float32)
            for level in range(levels):
                if level:
                    height, width = sizes[level, i].tolist()
                    picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
                parts.append(packed(picture))
        words = torch.from_numpy(np.concatenate(parts))
        pixels[int(starts[first * levels]) : int(starts[last * levels])] = words.to(device)
        advance(last - first)
        first = last
    return GpuPictures(pixels, starts[:-1].reshape(len(pictures), levels).T, sizes, means)


def packed(picture: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W, 3) uint8 -> (H * W,) int32."""
    words = np.zeros((picture.shape[0] * picture.shape[1], 4), np.uint8)
    words[:, :3] = picture.reshape(-1, 3)
    return words.view("<i4").reshape(-1)
