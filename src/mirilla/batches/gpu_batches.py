"""Training batches painted on the device that trains.

The host draws batches as numbers (`Batches.draw`), several steps at once, and sends them ahead as one small table; the
pictures are on the device, which makes the pixels. So the batches are those of the host except for the last bits of
their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirilla.batches import api_colours as colours
from mirilla.batches import api_geometry as geometry
from mirilla.batches import api_objects as objects
from mirilla.batches.api_crops import RandomCrop
from mirilla.batches.batch import Batch, padded
from mirilla.batches.examples import Augmentation
from mirilla.batches.gpu_effects import paint_api, paint_photo
from mirilla.batches.gpu_paint import gather, tile_columns
from mirilla.batches.gpu_pictures import GpuPictures
from mirilla.batches.host_batches import Batches
from mirilla.batches.mosaic import InputRecipe
from mirilla.batches.noise_pools import normal_pool, uniform_pool
from mirilla.batches.tiles import QUARTERS, DrawnBatch

AHEAD = 16  # steps that are drawn and sent at once
LEVELS = 4  # of pictures that a recipe averages: down to an eighth
# A mosaic keeps at most so many objects (or as many as one picture has, where that is more).
MAX_OBJECTS = 160

GEOMETRY = (
    RandomCrop,
    geometry.CropToAspectRatio,
    objects.JitterBoxes,
    objects.DropLabel,
    objects.RemapLabels,
)
COLOURS = (
    colours.AdjustBrightness,
    colours.AdjustContrast,
    colours.AdjustHue,
    colours.AdjustSaturation,
    colours.DistortColour,
    colours.RgbToGrey,
)


def unsupported(augmentations: Sequence[Augmentation], recipe: InputRecipe | None, letterbox: bool) -> str | None:
    """The first augmentation that the device cannot paint, in words; None if it can paint all."""
    for step in augmentations:
        name = getattr(step, "__name__", type(step).__name__)
        if step in (geometry.horizontal_flip, geometry.vertical_flip) or isinstance(step, GEOMETRY):
            continue
        if not isinstance(step, COLOURS):
            return name
        if recipe is not None:
            return f"{name} together with mirilla.augmentation"
        if letterbox:
            return f"{name} together with keep_aspect_ratio_resizer"
    return None


class StaticTable:
    """The arrays of several steps, of fixed shapes, in one tensor on a device.

    Args:
        arrays: (steps * B, ...) each, as they will be sent.
    """

    def __init__(self, arrays: dict[str, NDArray], steps: int, device: torch.device):
        self._pinned, self._steps = device.type == "cuda", steps
        self._columns: dict[str, tuple[int, int, torch.dtype, tuple[int, ...]]] = {}
        end = 0
        for name, array in arrays.items():
            size, shape = array.nbytes // steps, (len(array) // steps, *array.shape[1:])
            self._columns[name] = end, end + size, torch.from_numpy(np.zeros(0, array.dtype)).dtype, shape
            end += -(-size // 16) * 16  # where every type is aligned
        self._bytes = torch.zeros(steps, end, dtype=torch.uint8, device=device)

    def send(self, arrays: dict[str, NDArray]) -> None:
        """Replace the numbers. Returns before they have arrived; work that is queued later sees them."""
        staged = torch.empty(self._bytes.shape, dtype=torch.uint8, pin_memory=self._pinned)
        content = staged.numpy()
        for name, (first, last, _, _) in self._columns.items():
            rows = np.ascontiguousarray(arrays[name]).reshape(self._steps, -1)
            content[:, first:last] = rows.view(np.uint8)
        self._bytes.copy_(staged, non_blocking=True)

    def of_step(self, number: Tensor) -> dict[str, Tensor]:
        """The arrays of a step, (B, ...) each, given by its number in the table, an int64 scalar on the device."""
        row = self._bytes.index_select(0, number.view(1))[0]
        return {name: row[a:b].view(kind).view(shape) for name, (a, b, kind, shape) in self._columns.items()}


class GpuBatches:
    """The batches of a training set whose pictures are on a device.

    Args:
        host: the same set's batches on the host, which draw.
    """

    def __init__(self, pictures: GpuPictures, host: Batches):
        self.pictures, self.host = pictures, host
        device = pictures.pixels.device
        mosaics = host.recipe is not None and host.recipe.mosaic is not None
        self._quarters = QUARTERS if mosaics else 1
        most = max(1, int(host.objects.counts(len(host.pictures)).max(initial=0)))
        self._width = max(most, min(QUARTERS * most, MAX_OBJECTS)) if mosaics else most
        self._uniform, self._normal = (torch.from_numpy(pool).to(device) for pool in (uniform_pool(), normal_pool()))
        drawn = host.draw(0, AHEAD)
        self._effects = [type(effect) for effect in drawn.examples.effects]
        self._table = StaticTable(self._arrays(drawn), AHEAD, device)
        self._first = torch.zeros((), dtype=torch.int64, device=device)  # step that the table starts at
        self._range = range(0)

    def prepare(self, step: int) -> None:
        """Draw the next batches and send their numbers, if this step's have not been sent.

        Has to be called before each `batch`.
        """
        if step not in self._range:
            self._range = range(step, step + AHEAD)
            self._table.send(self._arrays(self.host.draw(step, AHEAD)))
            self._first.fill_(step)

    @torch.no_grad()
    def batch(self, step: Tensor) -> tuple[Tensor, Batch]:
        """Pixels (B, 3, H, W) float32, whole numbers of 0..255, and the objects of a step (int64 scalar)."""
        columns, spec = self._table.of_step(step - self._first), self.host.spec
        pixels = gather(self.pictures.pixels, columns, spec.height_px, spec.width_px, self._uniform)
        pixels = paint_api(self._effects, columns, pixels)
        if self.host.recipe is not None:
            pixels = paint_photo(columns, pixels, self._normal)
        pixels = pixels.round().clamp(0, 255)
        boxes, classes, weights, valid, ignored = (columns[name] for name in _OBJECTS)
        return pixels.contiguous(memory_format=torch.channels_last), Batch(boxes, classes, weights, valid, ignored)

    def _arrays(self, drawn: DrawnBatch) -> dict[str, NDArray]:
        batch = padded(drawn.objects, drawn.inputs, width=self._width)
        labels = {name: getattr(batch, name).numpy() for name in _OBJECTS}
        return tile_columns(drawn, self.pictures, self._quarters) | labels


_OBJECTS = ("boxes_yxyx", "classes", "weights", "valid", "ignored")
