"""A rule about sizes that no machine bears: they are refused before memory is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from mirilla.config.pipeline import Pipeline
from mirilla.config.rules_fields import refused
from mirilla.findings import Finding

MOST_BYTES = 1e12
_FLOAT_BYTES = 4
_COPIES = 4  # of a weight: itself, its gradient, the optimizer's slot, its moving average
_BASE_WEIGHTS = 3.2e6  # MobileNet v1 at depth multiplier 1, without the classifier
_STEM_CHANNELS = 32
_SCALED_CHANNELS, _FIXED_CHANNELS = 512 + 1024, 512 + 256 + 256 + 128  # of the six maps that boxes are predicted from
_ANCHORS = 6  # a cell, at most


def least_bytes(pipeline: Pipeline, pictures: int) -> float:
    """A lower bound of the memory for a network and a batch, in bytes: its weights, its input and its first layer."""
    ssd = pipeline.model.ssd
    resizer = ssd.image_resizer
    if resizer.HasField("keep_aspect_ratio_resizer"):
        pixels = float(resizer.keep_aspect_ratio_resizer.max_dimension)
    else:
        pixels = float(resizer.fixed_shape_resizer.height) * float(resizer.fixed_shape_resizer.width)
    depth = abs(float(ssd.feature_extractor.depth_multiplier))
    predictors = (_SCALED_CHANNELS * depth + _FIXED_CHANNELS) * _ANCHORS * (abs(float(ssd.num_classes)) + 5)
    weights = _COPIES * (_BASE_WEIGHTS * depth**2 + predictors)
    activations = pixels * 3 + pixels / 4 * _STEM_CHANNELS * depth
    return _FLOAT_BYTES * (weights + pictures * activations)


def findings(pipeline: Pipeline, where: str, pictures: int = 1) -> Iterator[Finding]:
    """A finding if a batch of `pictures` needs more memory than any machine has."""
    needed = least_bytes(pipeline, pictures)
    if needed > MOST_BYTES:
        yield refused(
            where,
            f"needs {needed / 1e9:,.0f} GB of memory or more.",
            "Lower image_resizer, depth_multiplier, num_classes or batch_size; 'mirilla init' writes usual values.",
        )
