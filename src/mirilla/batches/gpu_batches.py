"""Training batches made on the device that trains: the twin of `input.Batches`.

The pictures and objects live there. A step's number is all that the host sends, and a table of which pictures come
when, every few hundred steps. A batch depends on seed and step alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mirilla.batches.augment import Augmentation
from mirilla.batches.batch import Batch
from mirilla.batches.gpu_framing import framed, plain
from mirilla.batches.gpu_photo_effects import finished
from mirilla.batches.gpu_pictures import DeviceObjects, DevicePictures
from mirilla.batches.gpu_random import Draws
from mirilla.batches.gpu_sampling import QUARTERS, resample
from mirilla.batches.gpu_views import Views, batched, colour_step, whole
from mirilla.batches.input import Batches
from mirilla.batches.mosaic import InputRecipe
from mirilla.model.spec import ModelSpec

LEVELS = 4  # of pictures that a recipe averages: down to an eighth
AHEAD = 256  # steps whose pictures are numbered at once


def not_batched(augmentations: Sequence[Augmentation], recipe: InputRecipe | None, letterbox: bool) -> str | None:
    """The first augmentation that the device cannot make, in words; None where it makes all."""
    for step in augmentations:
        name = getattr(step, "__name__", type(step).__name__)
        if batched(step) is None:
            return name
        if colour_step(step) is not None and recipe is not None:
            return f"{name} together with mirilla.augmentation"
        if colour_step(step) is not None and letterbox:
            return f"{name} together with keep_aspect_ratio_resizer"
    return None


class DeviceBatches:
    """The batches of a training set that lies on a device.

    Args:
        host: the same set's batches on the host, which say what comes when.
    """

    def __init__(self, pictures: DevicePictures, objects: DeviceObjects, host: Batches):
        self.pictures, self.objects, self.host = pictures, objects, host
        self.spec: ModelSpec = host.spec
        self.recipe = host.recipe
        self.steps = tuple(made for step in host.augmentations if (made := batched(step)) is not None)
        self.device = pictures.pixels.device
        self.rows = range(host.batch_size)[host.part]
        self._slots = torch.arange(self.rows.start, self.rows.stop, device=self.device)
        self._first = torch.zeros((), dtype=torch.int64, device=self.device)  # step that the table starts at
        self._table = torch.zeros(AHEAD, len(self.rows), dtype=torch.int64, device=self.device)
        self._range = range(0)
        total = host.total_steps if self.recipe is not None and self.recipe.mosaic is not None else None
        self._last_mosaic = None if total is None else total * (1 - self.recipe.mosaic.off_share)  # type: ignore[union-attr]

    def prepare(self, step: int) -> None:
        """See to it that `batch` can make this step's; to be called before each."""
        if step in self._range:
            return
        numbers = np.array([self.host.indices(s)[self.host.part] for s in range(step, step + AHEAD)], np.int64)
        self._table.copy_(torch.from_numpy(numbers))
        self._first.fill_(step)
        self._range = range(step, step + AHEAD)

    @torch.no_grad()
    def batch(self, step: Tensor) -> tuple[Tensor, Batch]:
        """Pixels (B, 3, H, W) float32, whole numbers of 0..255, and the objects of a step (int64 scalar)."""
        index = self._table.index_select(0, (step - self._first).view(1))[0]
        spec, recipe = self.spec, self.recipe
        draws = Draws(self.host.seed, step, self._slots)
        noise = None
        if recipe is None:
            views = self._changed(draws, index)
            made = plain(views, spec)
        else:
            mosaics, fields, sources = None, draws, index
            if recipe.mosaic is not None:
                mosaics = draws
                slots = (self._slots[:, None] * QUARTERS + torch.arange(QUARTERS, device=self.device)).flatten()
                fields = Draws(self.host.seed + 1, step, slots)
                others = draws.uniform(QUARTERS - 1).mul(len(self.pictures)).to(torch.int64)
                sources = torch.cat([index[:, None], others], 1).flatten()
            views = self._changed(fields, sources)
            made = framed(fields, views, self.pictures, recipe, spec, mosaics, self._shows_mosaics(step))
            noise = draws.pixels(3, spec.height_px, spec.width_px)
        pixels = resample(self.pictures, made.views, made.fields, spec.height_px, spec.width_px, noise)
        for effect in made.views.effects:
            pixels = effect(pixels)
        if recipe is not None:
            pixels = finished(draws, pixels, recipe.finish)
        pixels = pixels.round().clamp(0, 255)
        return pixels.contiguous(memory_format=torch.channels_last), _objects(made.views)

    def _changed(self, draws: Draws, index: Tensor) -> Views:
        views = whole(self.pictures, self.objects, index)
        for step in self.steps:
            views = step(draws, views)
        return views

    def _shows_mosaics(self, step: Tensor) -> Tensor:
        if self._last_mosaic is None:
            return torch.ones_like(step, dtype=torch.bool)
        return step < self._last_mosaic


def _objects(views: Views) -> Batch:
    boxes = torch.where(views.present[..., None], views.boxes_yxyx, 0.0).to(torch.float32)
    return Batch(boxes, views.classes, views.weights, views.present & ~views.ignore, views.present & views.ignore)
