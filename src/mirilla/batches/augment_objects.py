"""Augmentations of the labels alone: boxes that shake, classes that are dropped or renamed.

Ranges and defaults are those of the Object Detection API's `core/preprocessor.py`; classes count from 0 here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mirilla.batches.example import View


@dataclass(frozen=True)
class JitterBoxes:
    """`random_jitter_boxes`: every edge moves by up to a share of the box's side, and stays in the picture."""

    ratio: float = 0.05

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        boxes = view.boxes_yxyx
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = boxes + sides * rng.uniform(-self.ratio, self.ratio, boxes.shape)
        return replace(view, boxes_yxyx=np.clip(moved, 0, 1))


@dataclass(frozen=True)
class DropLabel:
    """`drop_label_probabilistically`: objects of a class are left out with a probability, each by itself."""

    label: int
    probability: float = 1.0

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        dropped = (view.classes == self.label) & (rng.random(len(view.classes)) < self.probability)
        return view.keep(~dropped)


@dataclass(frozen=True)
class RemapLabels:
    """`remap_labels`: several classes become one."""

    labels: tuple[int, ...]
    new: int

    def __call__(self, rng: np.random.Generator, view: View) -> View:
        return replace(view, classes=np.where(np.isin(view.classes, self.labels), self.new, view.classes))
