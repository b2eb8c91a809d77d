"""Rules about `train_config.data_augmentation_options` and `mirilla.augmentation`: ranges, and what must be given
together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mirilla.config.rules_fields import above, between, refused
from mirilla.findings import Finding

# names of fields that are probabilities or shares, wherever they stand
_SHARES = frozenset(
    {
        "min_object_covered",
        "overlap_thresh",
        "random_coef",
        "probability",
        "drop_probability",
        "ratio",
        "size_to_image_ratio",
        "concat_vertical_probability",
        "concat_horizontal_probability",
    }
)

# (least, most) of one range; the limits of `most`, and whether the range must not be empty
_RANGES = (
    ("min_area", "max_area", 1.0, False),
    ("min_aspect_ratio", "max_aspect_ratio", None, False),
    ("minval", "maxval", None, False),
    ("min_scale_ratio", "max_scale_ratio", None, False),
    ("min_delta", "max_delta", None, False),
    ("min_jpeg_quality", "max_jpeg_quality", 100, True),
    ("min_target_pixels", "max_target_pixels", None, False),
    ("min_patch_size", "max_patch_size", None, True),
    ("min_gaussian_stddev", "max_gaussian_stddev", None, False),
)

_POSITIVE = frozenset(
    {
        "min_target_pixels",
        "min_patch_size",
        "min_scale_ratio",
        "new_height",
        "new_width",
        "target_height",
        "target_width",
        "aspect_ratio",
    }
)

_PAIRS = frozenset({"min_padded_size_ratio", "max_padded_size_ratio"})


def findings(options: Iterable[Any], num_classes: int, path: str) -> Iterator[Finding]:
    """What the steps' values break.

    Args:
        options: the `PreprocessingStep` messages, in order.
        num_classes: of the model; labels in steps must be among them.
    """
    for number, step in enumerate(options):
        here = path + (f"[{number}]" if number else "")
        kind = step.WhichOneof("preprocessing_step")
        if kind is None:
            yield refused(here, "is empty.", "Name a step in it, or remove it.")
            continue
        message, place = getattr(step, kind), f"{here}.{kind}"
        yield from _values(message, place)
        yield from _step(kind, message, place, num_classes)
        if "operations" in message.DESCRIPTOR.fields_by_name:
            for index, operation in enumerate(message.operations):
                inner = f"{place}.operations" + (f"[{index}]" if index else "")
                yield from _values(operation, inner)
                if "min_padded_size_ratio" in operation.DESCRIPTOR.fields_by_name:
                    for name in sorted(_PAIRS):
                        if not getattr(operation, name):
                            yield refused(f"{inner}.{name}", "is missing.", f"Set {name}: [1.0, 1.0].")


def _values(message: Any, path: str) -> Iterator[Finding]:
    names = set(message.DESCRIPTOR.fields_by_name)
    for name in sorted(names & _SHARES):
        value = getattr(message, name)
        if not 0 <= value <= 1:
            yield refused(f"{path}.{name}", f"{value:g} must be from 0 to 1.")
    for name in sorted(names & _POSITIVE):
        if not getattr(message, name) > 0:
            yield refused(f"{path}.{name}", f"{getattr(message, name):g} must be above 0.")
    for low, high, top, open_end in _RANGES:
        if not {low, high} <= names:
            continue
        least, most = getattr(message, low), getattr(message, high)
        wrong = least < 0 or least > most or (open_end and least == most) or (top is not None and most > top)
        if wrong or (most <= 0 and high in ("max_area", "max_aspect_ratio")):
            limit = f" <= {top:g}" if top is not None else ""
            sign = "<" if open_end else "<="
            rule = f"0 <= {low} {sign} {high}{limit}"
            yield refused(f"{path}.{high}", f"{low} {least:g} and {high} {most:g} must be {rule}.")
    for name in sorted(names & _PAIRS):
        given = list(getattr(message, name))
        if given and len(given) != 2:
            yield refused(f"{path}.{name}", f"has {len(given)} values, but needs two: height and width.")
    if "pad_color" in names and len(message.pad_color) not in (0, 3):
        count = len(message.pad_color)
        yield refused(f"{path}.pad_color", f"has {count} values, but needs three: red, green, blue.")


def _step(kind: str, message: Any, path: str, num_classes: int) -> Iterator[Finding]:
    if kind == "random_pad_image":
        for end in ("min", "max"):
            names = f"{end}_image_height", f"{end}_image_width"
            if message.HasField(names[0]) != message.HasField(names[1]):
                yield refused(f"{path}.{names[0]}", f"and {names[1]} go together.", "Set both, or none.")
    elif kind == "random_absolute_pad_image":
        for name in ("max_height_padding", "max_width_padding"):
            if getattr(message, name) < 0:
                yield refused(f"{path}.{name}", f"{getattr(message, name)} must be 0 or more.")
    elif kind == "random_distort_color" and message.color_ordering not in (0, 1):
        yield refused(f"{path}.color_ordering", f"{message.color_ordering} must be 0 or 1.")
    elif kind in ("random_adjust_brightness", "random_adjust_hue"):
        top = 0.5 if kind == "random_adjust_hue" else 1.0
        if not 0 <= message.max_delta <= top:
            yield refused(f"{path}.max_delta", f"{message.max_delta:g} must be from 0 to {top:g}.")
    elif kind == "random_black_patches" and message.max_black_patches < 0:
        yield refused(f"{path}.max_black_patches", f"{message.max_black_patches} must be 0 or more.")
    elif kind == "drop_label_probabilistically":
        yield from _label(message.label, num_classes, f"{path}.label")
    elif kind == "remap_labels":
        if not message.original_labels:
            yield refused(f"{path}.original_labels", "is missing.", "Name the classes' ids in the label map.")
        for label in message.original_labels:
            yield from _label(label, num_classes, f"{path}.original_labels")
        yield from _label(message.new_label, num_classes, f"{path}.new_label")


def _label(label: int, num_classes: int, path: str) -> Iterator[Finding]:
    if not 1 <= label <= num_classes:
        yield refused(path, f"{label} is no id of the label map: they go from 1 to {num_classes}.")


# ---- mirilla.augmentation


def own_findings(augmentations: Iterable[Any], path: str) -> Iterator[Finding]:
    """What the values of our own steps break.

    Args:
        augmentations: the `Augmentation` messages.
    """
    seen: set[str] = set()
    for number, message in enumerate(augmentations):
        here = path + (f"[{number}]" if number else "")
        kind = message.WhichOneof("step")
        if kind is None:
            yield refused(here, "is empty.", "Name a step in it, or remove it.")
            continue
        if kind in seen:
            yield refused(f"{here}.{kind}", "is there twice, but acts once.", "Remove one of them.")
        seen.add(kind)
        yield from _own_step(kind, getattr(message, kind), f"{here}.{kind}")


def _own_step(kind: str, step: Any, path: str) -> Iterator[Finding]:
    for name in ("probability", "letterbox_probability", "off_share"):
        if name in step.DESCRIPTOR.fields_by_name:
            yield from between(step, path, name, 0, 1)
    if kind == "zoom_out":
        yield from between(step, path, "most", 1, 16)
    elif kind == "object_zoom":
        yield from above(step, path, "least_px", 0)
        if not step.most_px >= step.least_px:
            rule = f"least_px {step.least_px:g} and most_px {step.most_px:g} must be least_px <= most_px."
            yield refused(f"{path}.most_px", rule)
    elif kind == "blur":
        yield from between(step, path, "most_sigma_px", 0.3, 16)
    elif kind == "noise":
        yield from between(step, path, "most_stddev", 0, 128)
    elif kind == "jpeg_traces":
        yield from between(step, path, "least_quality", 1, 95)
    elif kind == "photometric":
        yield from between(step, path, "strength", 0, 2)
