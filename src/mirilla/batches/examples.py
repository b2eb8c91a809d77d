"""The table of training examples: what each shows of its picture, and the objects in it.

A training set is such a table, in which every example shows its whole picture. A batch takes rows of it, augmentations
change the numbers of all rows at once, and a painter makes pixels of them at the end: a crop costs nothing, and every
pixel is interpolated once.

Geometry is a window of the picture, which may reach outside it, and one of eight orientations. What happens to pixels
is a list of effects, each a column of the table. Augmentations that need the pixels of what is shown so far (JPEG,
resizing) make the window refer to a new picture (`NewPictures`), which the painter makes first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.draws import Draws

Pixels = NDArray  # (H, W, 3), uint8, or float32 of 0..255
Windows = NDArray[np.int64]  # (B, 4) top, left, height, width in pixels


class Pictures(Protocol):
    """Decoded pictures by number, uint8 (H, W, 3); shapes: (N, 2) height and width."""

    shapes: NDArray[np.int64]

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Objects:
    """N labelled objects of several examples.

    boxes_yxyx: (N, 4) normalised to what their example shows. classes: from 0. weights: in the loss. ignore: neither
    an object to learn nor background. example: row of the table, ascending. All but the boxes are (N,).
    """

    boxes_yxyx: NDArray[np.float64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]
    ignore: NDArray[np.bool_]
    example: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.classes)

    def take(self, index: NDArray) -> Objects:
        """The objects at an index, or of a mask."""
        return Objects(
            self.boxes_yxyx[index], self.classes[index], self.weights[index], self.ignore[index], self.example[index]
        )

    def of_examples(self, numbers: NDArray[np.int64]) -> Objects:
        """The objects of these examples (B,), which become rows 0 to B - 1."""
        first, end = (np.searchsorted(self.example, numbers, side) for side in ("left", "right"))
        counts = end - first
        ends = np.cumsum(counts)
        index = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - counts), counts)
        return replace(self.take(index), example=np.repeat(np.arange(len(numbers)), counts))

    def counts(self, examples: int) -> NDArray[np.int64]:
        """(examples,) how many objects each has."""
        return np.bincount(self.example, minlength=examples)


def joined(parts: Sequence[Objects]) -> Objects:
    """Objects of several tables of one row each, as one table."""
    return Objects(
        np.concatenate([part.boxes_yxyx for part in parts]),
        np.concatenate([part.classes for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.ignore for part in parts]),
        np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    )


@dataclass(frozen=True)
class Places:
    """Where the pixels of a resampled example come from.

    rows, columns: float, for each row and column of it, the row or column of the picture; where `turned`, its rows are
    columns of the picture, and `rows` holds these.
    """

    rows: NDArray[np.floating]
    columns: NDArray[np.floating]
    turned: bool

    def inside(self, region: Sequence[int]) -> NDArray[np.bool_]:
        """(H, W): which pixels are inside a region of the picture (top, left, height, width)."""
        top, left, height, width = region
        along_y, along_x = (self.columns, self.rows) if self.turned else (self.rows, self.columns)
        y, x = np.floor(along_y + 0.5), np.floor(along_x + 0.5)
        in_y, in_x = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
        return in_x[:, None] & in_y[None] if self.turned else in_y[:, None] & in_x[None]


class Painter(Protocol):
    """What an effect needs of its painter."""

    def mean_colour(self, examples: Examples, row: int) -> NDArray[np.float32]:
        """(3,) mean of what an example shows."""
        ...


class Effect(Protocol):
    """A change of pixels, with its numbers for each of B examples."""

    def paint(self, painter: Painter, row: int, pixels: NDArray[np.float32], places: Places) -> NDArray[np.float32]:
        """The changed pixels (H, W, 3) of one example; pixels and result are float32 of 0..255."""
        ...


@dataclass(frozen=True)
class NewPictures:
    """Pictures made of what examples show, at sizes (B, 2): resampled, then changed by `change(row, pixels)`."""

    shown: Examples
    size_px: NDArray[np.int64]
    change: Callable[[int, Pixels], Pixels]


@dataclass(frozen=True)
class Examples:
    """B examples.

    picture: (B,) number of the picture in the training set.
    size_px: (B, 2) height and width of the picture.
    window: (B, 4) top, left, height, width of what is shown, in pixels of the picture; may be partly outside it.
    turned, upside_down, mirrored: (B,) orientation of the window: first turned (rows become columns), then mirrored in
    both directions.
    objects: their boxes are normalised to the window as shown.
    effects: what happens to the pixels, in order.
    new_pictures: the pictures that size and window refer to; None: those of the training set.
    """

    picture: NDArray[np.int64]
    size_px: NDArray[np.int64]
    window: Windows
    turned: NDArray[np.bool_]
    upside_down: NDArray[np.bool_]
    mirrored: NDArray[np.bool_]
    objects: Objects
    effects: tuple[Effect, ...] = ()
    new_pictures: NewPictures | None = None

    def __len__(self) -> int:
        return len(self.picture)

    @property
    def shown_px(self) -> NDArray[np.int64]:
        """(B, 2) height and width as shown."""
        return np.where(self.turned[:, None], self.window[:, :1:-1], self.window[:, 2:])

    def region(self, part: Windows) -> Windows:
        """Parts (B, 4) of what is shown -> the same parts of the pictures."""
        start, span = part[:, :2], part[:, 2:]
        backwards = np.stack([self.upside_down, self.mirrored], 1)
        start = np.where(backwards, self.shown_px - start - span, start)
        turned = self.turned[:, None]
        start, span = (np.where(turned, pair[:, ::-1], pair) for pair in (start, span))
        return np.concatenate([self.window[:, :2] + start, span], 1)

    def with_boxes(self, boxes_yxyx: NDArray[np.float64]) -> Examples:
        return replace(self, objects=replace(self.objects, boxes_yxyx=boxes_yxyx))

    def with_effect(self, effect: Effect) -> Examples:
        return replace(self, effects=(*self.effects, effect))

    def with_new_pictures(
        self,
        change: Callable[[int, Pixels], Pixels],
        size_px: NDArray[np.int64] | None = None,
        new_size_px: NDArray[np.int64] | None = None,
    ) -> Examples:
        """Examples that show all of new pictures.

        Args:
            change: (row, pixels) -> the new picture.
            size_px: (B, 2) at which the pixels are resampled; None: as they are shown.
            new_size_px: (B, 2) of the new pictures, where `change` changes the size.
        """
        size_px = self.shown_px if size_px is None else size_px
        new_size_px = size_px if new_size_px is None else new_size_px
        false = np.zeros(len(self), bool)
        window = np.concatenate([np.zeros_like(new_size_px), new_size_px], 1)
        return Examples(
            self.picture, new_size_px, window, false, false, false, self.objects, (), NewPictures(self, size_px, change)
        )


def whole_pictures(shapes: NDArray[np.int64], objects: Objects, numbers: NDArray[np.int64]) -> Examples:
    """Examples that show pictures of a training set, given by number (B,), as they are."""
    size_px, false = shapes[numbers], np.zeros(len(numbers), bool)
    window = np.concatenate([np.zeros_like(size_px), size_px], 1)
    return Examples(numbers, size_px, window, false, false, false, objects.of_examples(numbers))


# (random numbers of each example, table) -> changed table
Augmentation = Callable[[Draws, Examples], Examples]
