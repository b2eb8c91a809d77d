"""Training batches: which pictures a step sees, how they are changed, and how they become the network's input.

A batch depends on the seed and the step alone, so a run that was stopped goes on with the very batches it would have
had. Batches are made by a thread ahead of the step that needs them; OpenCV's work runs beside the network's.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from mirilla.batches.augment import Augmentation
from mirilla.batches.example import View, resample, to_uint8, whole
from mirilla.batches.mosaic import InputRecipe
from mirilla.boxes import Letterbox
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.model.spec import ModelSpec

AHEAD = 4  # batches that wait for the network at most


class Pictures(Protocol):
    """Decoded pictures by number, uint8 (H, W, 3)."""

    def __getitem__(self, i: int) -> NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Objects:
    """What is labelled in one picture, (N, ...) each; boxes normalised to it, classes from 0."""

    boxes_yxyx: NDArray[np.float64]
    classes: NDArray[np.int64]
    weights: NDArray[np.float64]
    ignore: NDArray[np.bool_]


class SoftLabels(Protocol):
    """What a teacher makes of an example's labels: objects, and (N,) how sure to be of each."""

    def __call__(self, image: NDArray[np.uint8], objects: Objects) -> tuple[Objects, NDArray[np.float32]]: ...


@dataclass(frozen=True)
class Arrays:
    """One batch of B pictures with at most G objects each.

    images: (B, H, W, 3) uint8. boxes_yxyx: (B, G, 4) float32, normalised to the input. classes: (B, G) int64.
    weights: (B, G) float32. valid, ignored: (B, G) bool. confidences: (B, G) float32 with soft labels, else None.
    """

    images: NDArray[np.uint8]
    boxes_yxyx: NDArray[np.float32]
    classes: NDArray[np.int64]
    weights: NDArray[np.float32]
    valid: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    confidences: NDArray[np.float32] | None = None


def objects_of(sample: Sample, ids: dict[str, int]) -> Objects:
    """The objects of a sample that can be learnt or ignored; boxes are cut at the picture, empty ones left out.

    Args:
        ids: class name -> number from 0.

    Raises:
        DataError: a class that the label map does not know.
    """
    unknown = sorted(set(sample.labels) - set(ids))
    if unknown:
        raise DataError(
            f"{sample.where or sample.filename}: class '{unknown[0]}' is not in the label map.",
            f"The label map has: {', '.join(ids)}. Add the class, or correct the label.",
        )
    boxes = np.clip(sample.boxes_yxyx, 0, 1)
    fine = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    classes = np.array([ids[label] for label in sample.labels], np.int64)
    return Objects(boxes[fine], classes[fine], sample.weight[fine], (sample.ignore | sample.is_crowd)[fine])


class Batches:
    """The batches of a training set.

    Args:
        augmentations: those of train_config.data_augmentation_options.
        recipe: what mirilla.augmentation asks for besides. None: the API's input, to the bit.
        total_steps: of the training, whose last share has no mosaics; None: not known, mosaics to the end.
        part: which examples of each batch this process makes, where several share it.
        teacher: softens the labels of every example; None: they stay.
    """

    def __init__(
        self,
        pictures: Pictures,
        objects: Sequence[Objects],
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
        """Numbers of the pictures of a step: each picture once per epoch, in an order of that epoch's own."""
        count = len(self.objects)
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

    def batch(self, step: int) -> Arrays:
        """The batch of a step, the same whenever it is asked for."""
        mosaic = self.recipe is not None and self.recipe.has_mosaics(step, self.total_steps)
        examples = []
        for i, index in list(enumerate(self.indices(step)))[self.part]:
            rng = np.random.default_rng([self.seed, 2, step, i])
            examples.append(self.example(index, rng, mosaic))
        if self.teacher is None:
            return _stack(examples)
        softened = [self.teacher(image, objects) for image, objects in examples]
        arrays = _stack([(image, objects) for (image, _), (objects, _) in zip(examples, softened, strict=True)])
        return replace(arrays, confidences=_padded([confidence for _, confidence in softened]))

    def example(self, index: int, rng: np.random.Generator, mosaic: bool = True) -> tuple[NDArray[np.uint8], Objects]:
        """One picture as the network sees it, and its objects, normalised to the network's input.

        Args:
            mosaic: whether it may be one of several in the input, where the recipe has mosaics.
        """
        view = self._changed(index, rng)
        if self.recipe is None:
            image, place = render(view, self.spec)
            boxes = np.asarray(place.to_input(view.boxes_yxyx), np.float64)
            return image, Objects(boxes, view.classes, view.weights, view.ignore)

        def other() -> View:
            return self._changed(int(rng.integers(len(self.objects))), rng)

        image, view = self.recipe.example(rng, view, other, self.spec, mosaic)
        return image, Objects(view.boxes_yxyx, view.classes, view.weights, view.ignore)

    def _changed(self, index: int, rng: np.random.Generator) -> View:
        """A picture after the API's augmentations."""
        picture, labelled = self.pictures[index], self.objects[index]
        view = whole(picture, labelled.boxes_yxyx, labelled.classes, labelled.weights, labelled.ignore)
        for change in self.augmentations:
            view = change(rng, view)
        return view

    def stream(self, start: int, stop: int | None = None) -> Generator[Arrays, None, None]:
        """Batches from step `start` on, made ahead by a thread; errors arise where the batch is asked for."""
        ready: queue.Queue = queue.Queue(AHEAD)
        ended = threading.Event()

        def offer(item: object) -> bool:
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


def render(view: View, spec: ModelSpec) -> tuple[NDArray[np.uint8], Letterbox]:
    """A view resampled to the network's input, and where it lies in there."""
    place = Letterbox.squash()
    out_height, out_width = spec.height_px, spec.width_px
    if spec.keep_aspect_ratio:
        place = Letterbox.fit(*view.size_px, spec.height_px, spec.width_px)
        out_height, out_width = round(place.scale_y * spec.height_px), round(place.scale_x * spec.width_px)
    image = to_uint8(resample(view, out_height, out_width))
    if image.shape[:2] != (spec.height_px, spec.width_px):
        canvas = np.zeros((spec.height_px, spec.width_px, 3), np.uint8)
        canvas[:out_height, :out_width] = image
        image = canvas
    return image, place


def _stack(examples: list[tuple[NDArray[np.uint8], Objects]]) -> Arrays:
    most = max(len(o.classes) for _, o in examples)
    size = (len(examples), most)
    boxes, classes = np.zeros((*size, 4), np.float32), np.zeros(size, np.int64)
    weights, valid, ignored = np.zeros(size, np.float32), np.zeros(size, bool), np.zeros(size, bool)
    for i, (_, labelled) in enumerate(examples):
        count = len(labelled.classes)
        boxes[i, :count], classes[i, :count] = labelled.boxes_yxyx, labelled.classes
        weights[i, :count] = labelled.weights
        valid[i, :count], ignored[i, :count] = ~labelled.ignore, labelled.ignore
    return Arrays(np.stack([image for image, _ in examples]), boxes, classes, weights, valid, ignored)


def _padded(rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    result = np.ones((len(rows), max(map(len, rows))), np.float32)
    for i, row in enumerate(rows):
        result[i, : len(row)] = row
    return result
