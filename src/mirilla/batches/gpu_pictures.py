"""A training set on the device: its pictures as they are in the cache, one after the other, and its objects.

A pixel is one 32-bit word, so that the four neighbours that an interpolation needs are four loads. Where inputs are to
be averaged rather than sampled, the pictures are kept halved, too, some times over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mirilla.batches.input import Objects
from mirilla.batches.pictures import PictureCache
from mirilla.errors import MirillaError

BYTES_PER_PIXEL = 4
SHARE_OF_FREE_MEMORY = 0.6  # the rest is the step's
CHUNK = 1 << 26  # pixels that travel at once


@dataclass(frozen=True)
class DevicePictures:
    """N pictures, and L - 1 times halved copies of them.

    pixels: (P,) int32, red in the lowest byte. level_starts: (L, N) int64. level_sizes: (L, N, 2) float64, height and
    width. mean: (N, 3) float32 colour.
    """

    pixels: Tensor
    level_starts: Tensor
    level_sizes: Tensor
    mean: Tensor

    @property
    def sizes(self) -> Tensor:
        """(N, 2) height and width."""
        return self.level_sizes[0]

    @property
    def levels(self) -> int:
        return len(self.level_sizes)

    def __len__(self) -> int:
        return self.level_starts.shape[1]


@dataclass(frozen=True)
class DeviceObjects:
    """What is labelled in N pictures, padded to G.

    boxes_yxyx: (N, G, 4) float64. classes: (N, G) int64. weights: (N, G) float32. present, ignore: (N, G) bool.
    """

    boxes_yxyx: Tensor
    classes: Tensor
    weights: Tensor
    present: Tensor
    ignore: Tensor


def shapes_of(pictures: PictureCache, levels: int) -> np.ndarray:
    """(L, N, 2) int64, height and width; the side of a copy is halved and rounded down, and at least 1."""
    return np.stack([np.maximum(pictures.shapes >> level, 1) for level in range(levels)])


def bytes_needed(pictures: PictureCache, levels: int = 1) -> int:
    return int(shapes_of(pictures, levels).prod(2).sum()) * BYTES_PER_PIXEL


def bytes_free(device: torch.device) -> int | None:
    """What a training set may take; None where that is not the device's to say."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] * SHARE_OF_FREE_MEMORY)


def upload(
    pictures: PictureCache,
    device: torch.device,
    levels: int = 1,
    room_bytes: int | None = None,
    advance: Callable[[int], object] = lambda count: None,
) -> DevicePictures:
    """The pictures of a cache, on a device.

    Args:
        levels: 1 for the pictures alone, 2 for copies of half the size as well, ...
        room_bytes: the most that they may take; None for no bound.
        advance: told how many pictures are done.

    Raises:
        MirillaError: they need more room.
    """
    needed = bytes_needed(pictures, levels)
    if room_bytes is not None and needed > room_bytes:
        raise MirillaError(
            f"{device}: the {len(pictures)} decoded pictures take {needed / 1e9:.1f} GB there, "
            f"{room_bytes / 1e9:.1f} GB are free for them.",
            "Free memory of the device, or let the host augment: it reads pictures from the disk.",
        )
    shapes = shapes_of(pictures, levels)
    counts = shapes.prod(2).T.reshape(-1)  # picture by picture, its levels one after the other
    starts = np.concatenate([[0], np.cumsum(counts)])
    pixels = torch.empty(int(starts[-1]), dtype=torch.int32, device=device)
    mean = np.zeros((len(pictures), 3), np.float32)
    first = 0
    while first < len(pictures):
        last = first + 1
        while last < len(pictures) and starts[(last + 1) * levels] - starts[first * levels] <= CHUNK:
            last += 1
        parts = []
        for i in range(first, last):
            picture = pictures[i]
            mean[i] = picture.mean((0, 1), dtype=np.float32)
            for level in range(levels):
                if level:
                    height, width = shapes[level, i]
                    picture = cv2.resize(picture, (int(width), int(height)), interpolation=cv2.INTER_AREA)
                parts.append(packed(picture))
        words = np.concatenate(parts)
        pixels[int(starts[first * levels]) : int(starts[last * levels])] = torch.from_numpy(words).to(device)
        advance(last - first)
        first = last
    places = np.ascontiguousarray(starts[:-1].reshape(len(pictures), levels).T)
    return DevicePictures(
        pixels,
        torch.from_numpy(places).to(device),
        torch.from_numpy(shapes.astype(np.float64)).to(device),
        torch.from_numpy(mean).to(device),
    )


def packed(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H * W,) int32."""
    words = np.zeros((picture.shape[0] * picture.shape[1], 4), np.uint8)
    words[:, :3] = picture.reshape(-1, 3)
    return words.view("<i4").reshape(-1)


def upload_objects(objects: Sequence[Objects], device: torch.device) -> DeviceObjects:
    """The objects of all pictures, padded to the most that one has (at least one place)."""
    size = len(objects), max(1, *(len(o.classes) for o in objects))
    boxes, classes = np.zeros((*size, 4)), np.zeros(size, np.int64)
    weights, present, ignore = np.zeros(size, np.float32), np.zeros(size, bool), np.zeros(size, bool)
    for i, labelled in enumerate(objects):
        count = len(labelled.classes)
        boxes[i, :count], classes[i, :count] = labelled.boxes_yxyx, labelled.classes
        weights[i, :count], present[i, :count], ignore[i, :count] = labelled.weights, True, labelled.ignore
    return DeviceObjects(*(torch.from_numpy(a).to(device) for a in (boxes, classes, weights, present, ignore)))
