"""Small training sets, tables of examples, and random numbers that tests choose."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples, Objects, joined, whole_pictures
from mirilla.batches.paint import HostPainter, to_uint8

if TYPE_CHECKING:
    from mirilla.batches.host_batches import Batches


class Pictures:
    """Decoded pictures, as the cache gives them."""

    def __init__(self, pictures):
        self.pictures = list(pictures)
        self.shapes = np.array([p.shape[:2] for p in self.pictures], np.int64).reshape(-1, 2)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, i):
        return self.pictures[i]


def objects(boxes=(), classes=None, ignore=None) -> Objects:
    """The objects of one picture."""
    count = len(boxes)
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.zeros(count, np.int64) if classes is None else np.array(classes, np.int64),
        np.ones(count),
        np.zeros(count, bool) if ignore is None else np.array(ignore, bool),
        np.zeros(count, np.int64),
    )


def batches_of(pictures, labelled, *arguments, **options) -> Batches:
    """Batches of pictures and the objects of each; needs PyTorch."""
    from mirilla.batches.host_batches import Batches

    return Batches(Pictures(pictures), joined(labelled), *arguments, **options)


def arrays(made) -> SimpleNamespace:
    """A batch's images and objects as arrays."""
    images, batch = made
    columns = ("boxes_yxyx", "classes", "weights", "valid", "ignored", "confidences")
    found = {name: getattr(batch, name) for name in columns}
    return SimpleNamespace(
        images=images.numpy(), **{name: None if t is None else t.numpy() for name, t in found.items()}
    )


class Fixed(Draws):
    """Random numbers that are these ones in turn, the same for all examples."""

    def __init__(self, *values, count=1):
        super().__init__(0, 0, np.arange(count))
        self._values = itertools.cycle(values)

    def fractions(self, count):
        return np.full((len(self), count), next(self._values))

    def sequence(self):
        return lambda rows, first, end: self.fractions(end - first)[rows]


def draws_of(seed, count=1) -> Draws:
    return Draws(seed, 0, np.arange(count))


class Shown:
    """One example of a picture, with what it shows."""

    def __init__(self, picture, labelled=None, examples=None):
        self.picture = picture
        self.pictures = Pictures([picture])
        labelled = objects() if labelled is None else labelled
        self.examples: Examples = examples or whole_pictures(self.pictures.shapes, labelled, np.zeros(1, np.int64))

    def after(self, step, draws) -> Shown:
        """The example after an augmentation."""
        return self.then(step(draws, self.examples))

    def then(self, examples) -> Shown:
        return Shown(self.picture, examples=examples)

    @property
    def size_px(self):
        return tuple(self.examples.shown_px[0].tolist())

    @property
    def boxes_yxyx(self):
        return self.examples.objects.boxes_yxyx

    @property
    def classes(self):
        return self.examples.objects.classes

    def pixels(self):
        """(H, W, 3) uint8."""
        return to_uint8(HostPainter(self.pictures).resample(self.examples, 0, *self.size_px))

    def values(self):
        """(H, W) of the first channel."""
        return self.pixels()[..., 0]
