"""Knowledge distillation: YuNet runs on the network's input, and its scores soften the labels.

The teacher sees each example as the network does, after all augmentation ("a good teacher is patient and
consistent", arXiv:2106.05237). The class target of an anchor is the IoU of its box with its object times the object's
confidence. The teacher sets this confidence (soft targets: arXiv:1503.02531):

    object                                        confidence
    labelled                                      1 - share + share * score of the teacher's detection there, if any
    ignored, but detected by the teacher          score, with the detection's box
    detected only by the teacher                  share * score, with the detection's box

The weight of a detection in the loss is its score. So the target of a blurred face of 20 pixels is lower than that of
a clear one, and unlabelled faces are not trained as background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.batches.examples import Objects
from mirilla.data.teacher import FACE, matches
from mirilla.data.yunet import Found, YuNet
from mirilla.errors import ConfigError
from mirilla.labels import LabelMap
from mirilla.model.spec import ModelSpec


@dataclass(frozen=True)
class DistillationSpec:
    """See `Distillation` in pipeline.proto."""

    teacher: Path
    share: float = 0.5
    least_score: float = 0.3


@dataclass(frozen=True)
class SoftLabels:
    """Soft labels for a class; objects of other classes keep hard labels.

    teacher: image (H, W, 3) uint8 RGB -> boxes_yxyx, normalised, and scores.
    class_number: index of the class that the teacher detects, from 0.
    """

    teacher: Callable[[NDArray[np.uint8]], Found]
    class_number: int
    share: float

    def __call__(self, image: NDArray[np.uint8], objects: Objects) -> tuple[Objects, NDArray[np.float32]]:
        boxes, scores = self.teacher(image)  # (N, 4), (N,)
        taught = objects.classes == self.class_number  # (M,)
        matched = matches(boxes, objects.boxes_yxyx) & taught  # (N, M)
        best_scores = (matched * scores[:, None]).max(0, initial=0.0)  # (M,)
        confidences = np.where(taught, 1 - self.share + self.share * best_scores, 1.0)
        new = ~(matched & ~objects.ignore).any(1)
        share = np.where(matched.any(1), 1.0, self.share)  # no label contradicts a detection in an ignored object
        count = int(new.sum())
        combined = Objects(
            np.concatenate([objects.boxes_yxyx, boxes[new].astype(np.float64)]),
            np.concatenate([objects.classes, np.full(count, self.class_number)]),
            np.concatenate([objects.weights, scores[new].astype(np.float64)]),
            np.concatenate([objects.ignore, np.zeros(count, bool)]),
            np.zeros(len(objects) + count, np.int64),
        )
        return combined, np.concatenate([confidences, (share * scores)[new]]).astype(np.float32)


def load(spec: DistillationSpec, labels: LabelMap, model: ModelSpec) -> SoftLabels:
    """Open the teacher.

    Raises:
        ConfigError: there are several classes, none named 'face'.
        ModelError, MissingExtraError: the teacher cannot be opened.
    """
    names = labels.names
    if len(names) > 1 and FACE not in names:
        raise ConfigError(
            f"mirilla.distillation: the label map has the classes {', '.join(names)}, but the teacher detects "
            f"'{FACE}'.",
            f"Rename the class of faces to '{FACE}', or remove distillation.",
        )
    size_px = max(model.height_px, model.width_px)
    teacher = YuNet.load(spec.teacher, (size_px,), spec.least_score, threads=1)
    return SoftLabels(teacher, names.index(FACE) if FACE in names else 0, spec.share)
