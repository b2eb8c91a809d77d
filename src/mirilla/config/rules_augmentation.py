"""Rules about `train_config.data_augmentation_options` and `mirilla.augmentation`: ranges, and fields that must be set
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from google.protobuf.message import Message

from mirilla.config.fields import indexed
from mirilla.config.rules_fields import above, at_least, between, refused
from mirilla.findings import Finding
from mirilla.protos.pipeline_pb2 import (
    Augmentation,
    DropLabelProbabilistically,
    PreprocessingStep,
    RandomPadImage,
    RemapLabels,
)


class _Range(NamedTuple):
    """Two fields that are the ends of a range."""

    low: str
    high: str
    limit: float | None = None  # maximum of `high`
    may_be_empty: bool = True  # low == high
    may_be_zero: bool = True  # high == 0


_RANGES = (
    _Range("min_area", "max_area", 1.0, may_be_zero=False),
    _Range("min_aspect_ratio", "max_aspect_ratio", may_be_zero=False),
    _Range("minval", "maxval"),
    _Range("min_scale_ratio", "max_scale_ratio"),
    _Range("min_delta", "max_delta"),
    _Range("min_jpeg_quality", "max_jpeg_quality", 100, may_be_empty=False),
    _Range("min_target_pixels", "max_target_pixels"),
    _Range("min_patch_size", "max_patch_size", may_be_empty=False),
    _Range("min_gaussian_stddev", "max_gaussian_stddev"),
)

# Fields of any step that are probabilities or shares.
_SHARES = (
    "concat_horizontal_probability",
    "concat_vertical_probability",
    "drop_probability",
    "min_object_covered",
    "overlap_thresh",
    "probability",
    "random_coef",
    "ratio",
    "size_to_image_ratio",
)

# Fields of any step that must be above 0.
_POSITIVE = (
    "aspect_ratio",
    "min_patch_size",
    "min_scale_ratio",
    "min_target_pixels",
    "new_height",
    "new_width",
    "target_height",
    "target_width",
)

# List fields of any step that have a fixed number of values.
_LISTS = {
    "max_padded_size_ratio": (2, "two: height and width"),
    "min_padded_size_ratio": (2, "two: height and width"),
    "pad_color": (3, "three: red, green, blue"),
}
_PADDED_SIZES = ("max_padded_size_ratio", "min_padded_size_ratio")


def findings(steps: Iterable[PreprocessingStep], num_classes: int, path: str) -> Iterator[Finding]:
    """Violations of the rules about the API's steps.

    Args:
        num_classes: the model's number of classes; labels in steps must be from 1 to this number.
    """
    for index, step in enumerate(steps):
        here = indexed(path, index)
        kind = step.WhichOneof("preprocessing_step")
        if kind is None:
            yield refused(here, "is empty.", "Set a step in it, or remove it.")
            continue
        message: Message = getattr(step, kind)
        yield from _values(message, f"{here}.{kind}")
        yield from _operations(message, f"{here}.{kind}")
        yield from _step(step, kind, num_classes, f"{here}.{kind}")


def _operations(message: Message, path: str) -> Iterator[Finding]:
    """Rules about `operations`, the list of alternatives of some steps."""
    operations: Iterable[Message] = getattr(message, "operations", ())
    for index, operation in enumerate(operations):
        here = indexed(f"{path}.operations", index)
        yield from _values(operation, here)
        for name in _PADDED_SIZES:
            if name in operation.DESCRIPTOR.fields_by_name and not getattr(operation, name):
                yield refused(f"{here}.{name}", "is missing.", f"Set {name}: [1.0, 1.0].")


def _values(message: Message, path: str) -> Iterator[Finding]:
    """Rules that apply to a field of this name in any step."""
    names = message.DESCRIPTOR.fields_by_name
    for name in _SHARES:
        if name in names:
            yield from between(message, path, name, 0, 1)
    for name in _POSITIVE:
        if name in names:
            yield from above(message, path, name, 0)
    for ends in _RANGES:
        if ends.low in names and ends.high in names:
            yield from _range(ends, getattr(message, ends.low), getattr(message, ends.high), path)
    for name, (count, needed) in _LISTS.items():
        if name in names and len(getattr(message, name)) not in (0, count):
            yield refused(f"{path}.{name}", f"has {len(getattr(message, name))} values, but needs {needed}.")


def _range(ends: _Range, low: float, high: float, path: str) -> Iterator[Finding]:
    is_ordered = 0 <= low <= high if ends.may_be_empty else 0 <= low < high
    is_within = ends.limit is None or high <= ends.limit
    if not (is_ordered and is_within and (high > 0 or ends.may_be_zero)):
        sign = "<=" if ends.may_be_empty else "<"
        limit = "" if ends.limit is None else f" <= {ends.limit:g}"
        rule = f"0 <= {ends.low} {sign} {ends.high}{limit}"
        yield refused(f"{path}.{ends.high}", f"{ends.low} {low:g} and {ends.high} {high:g} must be {rule}.")


def _step(step: PreprocessingStep, kind: str, num_classes: int, path: str) -> Iterator[Finding]:
    """Rules about particular steps."""
    if kind == "random_pad_image":
        yield from _pad_image(step.random_pad_image, path)
    elif kind == "random_absolute_pad_image":
        yield from at_least(step.random_absolute_pad_image, path, "max_height_padding", 0)
        yield from at_least(step.random_absolute_pad_image, path, "max_width_padding", 0)
    elif kind == "random_distort_color":
        if step.random_distort_color.color_ordering not in (0, 1):
            value = step.random_distort_color.color_ordering
            yield refused(f"{path}.color_ordering", f"{value} must be 0 or 1.")
    elif kind == "random_adjust_brightness":
        yield from between(step.random_adjust_brightness, path, "max_delta", 0, 1)
    elif kind == "random_adjust_hue":
        yield from between(step.random_adjust_hue, path, "max_delta", 0, 0.5)
    elif kind == "random_black_patches":
        yield from at_least(step.random_black_patches, path, "max_black_patches", 0)
    elif kind == "drop_label_probabilistically":
        yield from _dropped_label(step.drop_label_probabilistically, num_classes, path)
    elif kind == "remap_labels":
        yield from _remapped_labels(step.remap_labels, num_classes, path)


def _pad_image(step: RandomPadImage, path: str) -> Iterator[Finding]:
    for height, width in (("min_image_height", "min_image_width"), ("max_image_height", "max_image_width")):
        if step.HasField(height) != step.HasField(width):
            yield refused(f"{path}.{height}", f"must be set together with {width}.", "Set both, or neither.")


def _dropped_label(step: DropLabelProbabilistically, num_classes: int, path: str) -> Iterator[Finding]:
    yield from _label(step.label, num_classes, f"{path}.label")


def _remapped_labels(step: RemapLabels, num_classes: int, path: str) -> Iterator[Finding]:
    if not step.original_labels:
        yield refused(f"{path}.original_labels", "is missing.", "List ids of the label map.")
    for label in step.original_labels:
        yield from _label(label, num_classes, f"{path}.original_labels")
    yield from _label(step.new_label, num_classes, f"{path}.new_label")


def _label(label: int, num_classes: int, path: str) -> Iterator[Finding]:
    if not 1 <= label <= num_classes:
        yield refused(path, f"{label} is not an id of the label map; ids are from 1 to {num_classes}.")


# ---- mirilla.augmentation

# Step -> {field: range}, for fields that are not shares.
_OWN_RANGES: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "zoom_out": {"most": (1, 16)},
    "blur": {"most_sigma_px": (0.3, 16)},
    "noise": {"most_stddev": (0, 128)},
    "jpeg_traces": {"least_quality": (1, 95)},
    "photometric": {"strength": (0, 2)},
}
_OWN_SHARES = ("probability", "letterbox_probability", "off_share")


def own_findings(augmentations: Iterable[Augmentation], path: str) -> Iterator[Finding]:
    """Violations of the rules about Mirilla's own steps."""
    seen: set[str] = set()
    for index, augmentation in enumerate(augmentations):
        here = indexed(path, index)
        kind = augmentation.WhichOneof("step")
        if kind is None:
            yield refused(here, "is empty.", "Set a step in it, or remove it.")
            continue
        if kind in seen:
            yield refused(f"{here}.{kind}", "is set twice, but each step is applied once.", "Remove one of the two.")
        seen.add(kind)
        yield from _own_values(getattr(augmentation, kind), _OWN_RANGES.get(kind, {}), f"{here}.{kind}")
        if kind == "object_zoom":
            yield from _object_zoom(augmentation, f"{here}.{kind}")


def _own_values(step: Message, ranges: Mapping[str, tuple[float, float]], path: str) -> Iterator[Finding]:
    for name in _OWN_SHARES:
        if name in step.DESCRIPTOR.fields_by_name:
            yield from between(step, path, name, 0, 1)
    for name, (low, high) in ranges.items():
        yield from between(step, path, name, low, high)


def _object_zoom(augmentation: Augmentation, path: str) -> Iterator[Finding]:
    step = augmentation.object_zoom
    yield from above(step, path, "least_px", 0)
    if not step.most_px >= step.least_px:
        yield refused(f"{path}.most_px", f"{step.most_px:g} must be at least least_px, {step.least_px:g}.")
