"""Augmentations of the labels alone: boxes are jittered, classes dropped or renamed.

Ranges and defaults are those of the Object Detection API's `core/preprocessor.py`; classes count from 0 here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mirilla.batches.draws import Draws
from mirilla.batches.examples import Examples


@dataclass(frozen=True)
class JitterBoxes:
    """`random_jitter_boxes`: every edge moves by up to a share of the box's side, and stays in the picture."""

    ratio: float = 0.05

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        boxes = examples.objects.boxes_yxyx
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        jitter = self.ratio * (2 * draws.of_objects(examples.objects.example, 4) - 1)
        return examples.with_boxes(np.clip(boxes + sides * jitter, 0, 1))


@dataclass(frozen=True)
class DropLabel:
    """`drop_label_probabilistically`: objects of a class are dropped with a probability, independently."""

    label: int
    probability: float = 1.0

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        objects = examples.objects
        dropped = draws.of_objects(objects.example, 1)[:, 0] < self.probability
        return replace(examples, objects=objects.take(~(dropped & (objects.classes == self.label))))


@dataclass(frozen=True)
class RemapLabels:
    """`remap_labels`: several classes become one."""

    labels: tuple[int, ...]
    new: int

    def __call__(self, draws: Draws, examples: Examples) -> Examples:
        classes = examples.objects.classes
        renamed = np.where(np.isin(classes, self.labels), self.new, classes)
        return replace(examples, objects=replace(examples.objects, classes=renamed))
