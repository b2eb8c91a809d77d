"""Random changes to a training picture, in the order in which the config lists them.

The steps themselves are in `augment_geometry`, `augment_colour`, `augment_pixels` and `augment_objects`; here
they are made from the config's messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from mirilla.batches import augment_colour as colour
from mirilla.batches import augment_geometry as geometry
from mirilla.batches import augment_objects as objects
from mirilla.batches import augment_pixels as pixels
from mirilla.batches.crop import SSD_CROPS, CropSpec
from mirilla.batches.example import View
from mirilla.errors import ConfigError

Augmentation = Callable[[np.random.Generator, View], View]

# Steps that count in the picture's own pixels: for these it is not shrunk beforehand.
NEEDS_OWN_PIXELS = frozenset(
    {
        "random_pad_image",
        "random_absolute_pad_image",
        "random_downscale_to_target_pixels",
        "random_patch_gaussian",
        "random_jpeg_quality",
        "random_image_scale",
        "random_resize_method",
        "resize_image",
    }
)


def augmentations(messages: Iterable) -> tuple[Augmentation, ...]:
    """The steps of `train_config.data_augmentation_options`.

    Raises:
        ConfigError: a step that is not implemented.
    """
    return tuple(_augmentation(message) for message in messages)


def needs_own_pixels(messages: Iterable) -> bool:
    """Whether a step of `train_config.data_augmentation_options` counts in the pixels of the stored pictures."""
    return any(message.WhichOneof("preprocessing_step") in NEEDS_OWN_PIXELS for message in messages)


def _augmentation(message: Any) -> Augmentation:
    kind = message.WhichOneof("preprocessing_step")
    if kind not in _STEPS:
        raise ConfigError(
            f"train_config.data_augmentation_options: '{kind}' is not implemented.",
            "Use random_horizontal_flip and ssd_random_crop.",
        )
    return _STEPS[kind](getattr(message, kind))


def _crop(m: Any, aspect: tuple[float, float] | None = None) -> CropSpec:
    return CropSpec(
        m.min_object_covered,
        m.overlap_thresh,
        aspect or (m.min_aspect_ratio, m.max_aspect_ratio),
        (m.min_area, m.max_area),
        m.clip_boxes,
        m.random_coef,
    )


def _crops(m: Any) -> tuple[CropSpec, ...]:
    return tuple(_crop(o) for o in m.operations) or SSD_CROPS


def _pad(m: Any, rgb: tuple[float, ...] | None) -> geometry.PadSpec:
    return geometry.PadSpec(
        tuple(m.min_padded_size_ratio) or (1.0, 1.0), tuple(m.max_padded_size_ratio) or (2.0, 2.0), rgb
    )


def _random_pad(m: Any) -> Augmentation:
    least = (m.min_image_height, m.min_image_width) if m.HasField("min_image_height") else None
    most = (m.max_image_height, m.max_image_width) if m.HasField("max_image_height") else None
    return geometry.RandomPad(least, most, tuple(m.pad_color) or None)


def _absolute_pad(m: Any) -> Augmentation:
    most = m.max_height_padding or 1, m.max_width_padding or 1
    return geometry.AbsolutePad(most, tuple(m.pad_color) or None)


def _crop_pad(m: Any) -> Augmentation:
    return geometry.RandomCropPad(((_crop(m), _pad(m, tuple(m.pad_color) or None)),))


def _ssd_crop_pad(m: Any) -> Augmentation:
    if not m.operations:
        return geometry.RandomCropPad()
    return geometry.RandomCropPad(
        tuple((_crop(o), _pad(o, (o.pad_color_r, o.pad_color_g, o.pad_color_b))) for o in m.operations)
    )


def _ssd_crop_fixed(m: Any) -> Augmentation:
    ratio = (m.aspect_ratio, m.aspect_ratio) if m.operations else (1.0, 1.0)
    settings = tuple(_crop(o, ratio) for o in m.operations)
    if not settings:
        settings = tuple(CropSpec(s.min_object_covered, s.overlap_thresh, ratio) for s in SSD_CROPS)
    return geometry.InTurn((geometry.RandomCrop(settings), geometry.CropToAspectRatio(ratio[0])))


def _ssd_crop_pad_fixed(m: Any) -> Augmentation:
    size = _pad(m, None)
    return geometry.InTurn(
        (
            geometry.RandomCrop(_crops(m)),
            geometry.PadToAspectRatio(m.aspect_ratio or 1.0, size.least, size.most),
        )
    )


def _method(m: Any) -> str:
    return m.DESCRIPTOR.fields_by_name["method"].enum_type.values_by_number[m.method].name


_STEPS: dict[str, Callable[[Any], Augmentation]] = {
    "random_horizontal_flip": lambda m: geometry.horizontal_flip,
    "random_vertical_flip": lambda m: geometry.vertical_flip,
    "random_rotation90": lambda m: geometry.rotation90,
    "random_crop_image": lambda m: geometry.RandomCrop((_crop(m),)),
    "random_crop_to_aspect_ratio": lambda m: geometry.CropToAspectRatio(m.aspect_ratio, m.overlap_thresh, m.clip_boxes),
    "random_pad_image": _random_pad,
    "random_absolute_pad_image": _absolute_pad,
    "random_crop_pad_image": _crop_pad,
    "ssd_random_crop": lambda m: geometry.RandomCrop(_crops(m)),
    "ssd_random_crop_pad": _ssd_crop_pad,
    "ssd_random_crop_fixed_aspect_ratio": _ssd_crop_fixed,
    "ssd_random_crop_pad_fixed_aspect_ratio": _ssd_crop_pad_fixed,
    "random_pixel_value_scale": lambda m: colour.PixelValueScale(m.minval, m.maxval),
    "random_rgb_to_gray": lambda m: colour.RgbToGrey(m.probability),
    "random_adjust_brightness": lambda m: colour.AdjustBrightness(m.max_delta),
    "random_adjust_contrast": lambda m: colour.AdjustContrast(m.min_delta, m.max_delta),
    "random_adjust_hue": lambda m: colour.AdjustHue(m.max_delta),
    "random_adjust_saturation": lambda m: colour.AdjustSaturation(m.min_delta, m.max_delta),
    "random_distort_color": lambda m: colour.DistortColour(m.color_ordering),
    "random_image_scale": lambda m: pixels.ImageScale(m.min_scale_ratio, m.max_scale_ratio),
    "random_black_patches": lambda m: pixels.BlackPatches(m.max_black_patches, m.probability, m.size_to_image_ratio),
    "random_patch_gaussian": lambda m: pixels.PatchGaussian(
        m.random_coef, (m.min_patch_size, m.max_patch_size), (m.min_gaussian_stddev, m.max_gaussian_stddev)
    ),
    "random_jpeg_quality": lambda m: pixels.JpegQuality(m.random_coef, (m.min_jpeg_quality, m.max_jpeg_quality)),
    "random_self_concat_image": lambda m: pixels.SelfConcat(
        m.concat_vertical_probability, m.concat_horizontal_probability
    ),
    "random_downscale_to_target_pixels": lambda m: pixels.DownscaleToTargetPixels(
        m.random_coef, (m.min_target_pixels, m.max_target_pixels)
    ),
    "random_resize_method": lambda m: pixels.Resize(m.target_height, m.target_width),
    "resize_image": lambda m: pixels.Resize(m.new_height, m.new_width, _method(m)),
    "random_jitter_boxes": lambda m: objects.JitterBoxes(m.ratio),
    "drop_label_probabilistically": lambda m: objects.DropLabel(m.label - 1, m.drop_probability),
    "remap_labels": lambda m: objects.RemapLabels(tuple(label - 1 for label in m.original_labels), m.new_label - 1),
}
