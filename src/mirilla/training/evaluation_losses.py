"""The losses of weights on examples for evaluation, as the original's evaluation reports them.

Each example is a batch of its own: the whole picture, resized to the network's input, without augmentation. Batch norm
uses its stored statistics. The figures are means over the examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mirilla import resize
from mirilla.batches.batch import padded
from mirilla.batches.dataset import objects_of
from mirilla.config import Pipeline
from mirilla.config.to_spec import model_spec
from mirilla.data.images import decode_rgb
from mirilla.data.sample import Sample
from mirilla.labels import LabelMap
from mirilla.training.learner import Learner
from mirilla.training.log import SCALARS
from mirilla.training.losses import objective
from mirilla.training.plan import training_plan


@torch.no_grad()
def evaluation_losses(
    pipeline: Pipeline, variables: Mapping[str, NDArray], samples: Sequence[Sample], labels: LabelMap
) -> dict[str, float]:
    """The losses by the original's tags: `Loss/total_loss`, its three parts, and `loss`.

    Raises:
        ModelError: the variables do not fit the pipeline's network.
        DataError: a picture cannot be decoded, or has a class that the label map lacks.
    """
    spec = model_spec(pipeline)
    learner = Learner(spec, training_plan(pipeline, spec), torch.device("cpu"))
    learner.network.set_weights(variables)
    learner.network.eval()
    ids = {item.name: item.id - 1 for item in labels}
    parts = []
    for sample in samples:
        pixels, letterbox = resize.to_input(
            decode_rgb(sample.image), spec.height_px, spec.width_px, keep_aspect_ratio=spec.keep_aspect_ratio
        )
        objects = objects_of(sample, ids)
        objects.boxes_yxyx[:] = letterbox.to_input(objects.boxes_yxyx)
        codes, logits = learner.network(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)[None])
        targets = learner.targets(padded(objects, 1), codes, logits)
        losses, _ = objective(codes, logits, targets, learner.anchors, learner.plan.objective)
        parts.append((float(losses.localization), float(losses.classification)))
    localization, classification = np.mean(parts, 0).tolist()
    regularization = float(learner.parameters.regularization())
    total = localization + classification + regularization
    return {
        SCALARS["localization_loss"]: localization,
        SCALARS["classification_loss"]: classification,
        SCALARS["regularization_loss"]: regularization,
        SCALARS["loss"]: total,
        "loss": total,
    }
