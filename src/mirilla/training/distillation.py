"""Knowledge distillation: YuNet looks at what the network is shown, and its certainty softens the labels.

The teacher sees every example as the network does, after all augmentation ("a good teacher is patient and
consistent", arXiv:2106.05237). The class target of an anchor is the IoU of its box with its object times the object's
confidence, and that is where the teacher comes in (soft targets: arXiv:1503.02531):

    object                                        confidence
    labelled                                      1 - share + share * score of the teacher's find there, if any
    ignored, but found by the teacher             score, the find's box
    found by the teacher alone                    share * score, the find's box

The weight of a find in the loss is its score. So a face that cannot be made out in 20 pixels asks for less than a
clear one, and one that nobody labelled is no background.
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
class Softened:
    """Soft labels of one class; objects of others keep theirs.

    teacher: a picture (H, W, 3) uint8 RGB -> boxes_yxyx, normalised, and scores.
    class_number: of what the teacher finds, from 0.
    """

    teacher: Callable[[NDArray[np.uint8]], Found]
    class_number: int
    share: float

    def __call__(self, image: NDArray[np.uint8], objects: Objects) -> tuple[Objects, NDArray[np.float32]]:
        finds, scores = self.teacher(image)
        own = objects.classes == self.class_number
        met = matches(finds, objects.boxes_yxyx) & own  # (N, M)
        seen = (met * scores[:, None]).max(0, initial=0.0)  # (M,)
        confidences = np.where(own, 1 - self.share + self.share * seen, 1.0)
        new = ~(met & ~objects.ignore).any(1)
        share = np.where(met.any(1), 1.0, self.share)  # nobody speaks against a find in an ignored object
        count = int(new.sum())
        together = Objects(
            np.concatenate([objects.boxes_yxyx, finds[new].astype(np.float64)]),
            np.concatenate([objects.classes, np.full(count, self.class_number)]),
            np.concatenate([objects.weights, scores[new].astype(np.float64)]),
            np.concatenate([objects.ignore, np.zeros(count, bool)]),
            np.zeros(len(objects) + count, np.int64),
        )
        return together, np.concatenate([confidences, (share * scores)[new]]).astype(np.float32)


def load(spec: DistillationSpec, labels: LabelMap, model: ModelSpec) -> Softened:
    """Open the teacher.

    Raises:
        ConfigError: several classes, none of them called 'face'.
        ModelError, MissingExtraError: the teacher cannot be opened.
    """
    names = labels.names
    if len(names) > 1 and FACE not in names:
        raise ConfigError(
            f"mirilla.distillation: the label map has the classes {', '.join(names)}; none is called '{FACE}': "
            "that is what the teacher finds.",
            "Rename the class of faces, or remove distillation.",
        )
    size_px = max(model.height_px, model.width_px)
    yunet = YuNet.load(spec.teacher, (size_px,), spec.least_score, threads=1)
    return Softened(yunet, names.index(FACE) if FACE in names else 0, spec.share)
