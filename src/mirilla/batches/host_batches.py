"""Training batches made on the host: which pictures a step shows, how they are changed, and the network's input.

A batch depends on the seed and the step alone, so a stopped run continues with the batches it would have had.
Batches are made by a thread ahead of the step that needs them; OpenCV's work runs beside the network's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirilla.batches.batch import Batch, padded
from mirilla.batches.draws import Draws
from mirilla.batches.examples import Augmentation, Objects, Pictures, joined, whole_pictures
from mirilla.batches.mosaic import InputRecipe
from mirilla.batches.paint import HostPainter
from mirilla.batches.tiles import DrawnBatch, whole_inputs
from mirilla.model.spec import ModelSpec

AHEAD = 4  # batches that wait for the network at most


class SoftLabels(Protocol):
    """A teacher's labels of an example: objects, and (N,) the confidence in each."""

    def __call__(self, image: NDArray[np.uint8], objects: Objects) -> tuple[Objects, NDArray[np.float32]]: ...


class Batches:
    """The batches of a training set.

    Args:
        objects: of all pictures.
        augmentations: those of train_config.data_augmentation_options.
        recipe: that of mirilla.augmentation. None: the API's input, to the bit.
        total_steps: of the training, whose last share has no mosaics; None: unknown, mosaics to the end.
        part: which examples of each batch this process makes, where several share it.
        teacher: softens the labels of every example; None: they stay.
    """

    def __init__(
        self,
        pictures: Pictures,
        objects: Objects,
        spec: ModelSpec,
        batch_size: int,
        augmentations: Sequence[Augmentation],
        seed: int,
        shuffle: bool = True,
        recipe: InputRecipe | None = None,
        total_steps: int | None = None,
        part: slice = slice(None),
        teacher: SoftLabels | None = None,
    ):
        self.pictures, self.objects, self.spec = pictures, objects, spec
        self.recipe, self.total_steps = recipe, total_steps
        self.batch_size, self.augmentations = batch_size, tuple(augmentations)
        self.seed, self.shuffle, self.part, self.teacher = seed, shuffle, part, teacher
        self._epochs: dict[int, NDArray[np.int64]] = {}

    def indices(self, step: int) -> list[int]:
        """Numbers of the pictures of a step: each picture once per epoch, in an order of its own in each."""
        count = len(self.pictures)
        result = []
        for place in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, at = divmod(place, count)
            if epoch not in self._epochs:
                order = np.arange(count)
                if self.shuffle:
                    np.random.default_rng([self.seed, 1, epoch]).shuffle(order)
                self._epochs = {e: o for e, o in self._epochs.items() if e >= epoch - 1} | {epoch: order}
            result.append(int(self._epochs[epoch][at]))
        return result

    def draw(self, step: int, count: int = 1) -> DrawnBatch:
        """The batches of some steps as numbers, one after the other: this process's part of them."""
        steps = np.arange(step, step + count)
        numbers = np.array([self.indices(s)[self.part] for s in steps.tolist()], np.int64).ravel()
        places = np.tile(np.arange(self.batch_size)[self.part], count)
        step_of = np.repeat(steps, len(places) // count)

        def draws(inputs: NDArray[np.int64], stream: NDArray[np.int64]) -> Draws:
            return Draws(self.seed, step_of[inputs], places[inputs], stream)

        shapes, objects = self.pictures.shapes, self.objects
        if self.recipe is not None:
            mosaics = self.recipe.has_mosaics(step_of, self.total_steps)
            return self.recipe.draw(shapes, objects, numbers, draws, self.augmentations, self.spec, mosaics)
        examples = whole_pictures(shapes, objects, numbers)
        rows = np.arange(len(numbers))
        of_examples = draws(rows, 0 * rows)
        for step_of_api in self.augmentations:
            examples = step_of_api(of_examples, examples)
        return whole_inputs(examples, self.spec)

    def batch(self, step: int) -> tuple[Tensor, Batch]:
        """Images (B, H, W, 3) uint8 and objects of a step; the same however often it is made."""
        drawn = self.draw(step)
        images = HostPainter(self.pictures).paint(drawn, self.spec.height_px, self.spec.width_px)
        objects, confidences = drawn.objects, None
        if self.teacher is not None:
            rows = np.arange(len(images))
            softened = [self.teacher(images[i], objects.of_examples(rows[i : i + 1])) for i in rows]
            objects = joined([soft for soft, _ in softened])
            confidences = np.concatenate([confidence for _, confidence in softened])
        return torch.from_numpy(images), padded(objects, len(images), confidences)

    def stream(self, start: int, stop: int | None = None) -> Generator[tuple[Tensor, Batch], None, None]:
        """Batches from step `start` on, made ahead by a thread; errors are raised to the consumer."""
        ready: queue.Queue[tuple[Tensor, Batch] | BaseException | None] = queue.Queue(AHEAD)
        ended = threading.Event()

        def offer(item: tuple[Tensor, Batch] | BaseException | None) -> bool:
            while not ended.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    return True
                except queue.Full:
                    continue
            return False

        def work() -> None:
            cv2.setNumThreads(1)
            step = start
            try:
                while stop is None or step < stop:
                    if not offer(self.batch(step)):
                        return
                    step += 1
                offer(None)
            except BaseException as error:  # handed to the consumer, which raises it
                offer(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            thread.join()
