"""The augmentations of `train_config.data_augmentation_options`, in the order in which the config lists them.

They are implemented in `api_geometry`, `api_crops`, `api_colours`, `api_pixels` and `api_objects`; here they are made
from the config's messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mirilla.batches import api_colours as colours
from mirilla.batches import api_geometry as geometry
from mirilla.batches import api_objects as objects
from mirilla.batches import api_pixels as pixels
from mirilla.batches.api_crops import SSD_CROPS, CropSpec, RandomCrop
from mirilla.batches.api_geometry import PadSpec
from mirilla.batches.examples import Augmentation
from mirilla.errors import ConfigError
from mirilla.protos import pipeline_pb2 as messages

Step = messages.PreprocessingStep

# Steps that count in the pixels of the stored pictures: for these they are not shrunk beforehand.
NEEDS_STORED_PIXELS = frozenset(
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


def augmentations(steps: Iterable[Step]) -> tuple[Augmentation, ...]:
    """The steps of `train_config.data_augmentation_options`.

    Raises:
        ConfigError: a step that is not implemented.
    """
    return tuple(map(_augmentation, steps))


def needs_stored_pixels(steps: Iterable[Step]) -> bool:
    """Whether a step of `train_config.data_augmentation_options` counts in the pixels of the stored pictures."""
    return any(step.WhichOneof("preprocessing_step") in NEEDS_STORED_PIXELS for step in steps)


def _augmentation(step: Step) -> Augmentation:
    kind = step.WhichOneof("preprocessing_step")
    if kind is None or kind not in _STEPS:
        raise ConfigError(
            f"train_config.data_augmentation_options: '{kind}' is not implemented.",
            "Use random_horizontal_flip and ssd_random_crop.",
        )
    return _STEPS[kind](step)


_Crop = (
    messages.RandomCropImage
    | messages.RandomCropPadImage
    | messages.SSDRandomCropOperation
    | messages.SSDRandomCropPadOperation
    | messages.SSDRandomCropPadFixedAspectRatioOperation
)
_Padding = messages.RandomCropPadImage | messages.SSDRandomCropPadOperation | messages.SSDRandomCropPadFixedAspectRatio


def _crop(m: _Crop) -> CropSpec:
    aspect = m.min_aspect_ratio, m.max_aspect_ratio
    area = m.min_area, m.max_area
    return CropSpec(m.min_object_covered, m.overlap_thresh, aspect, area, m.clip_boxes, m.random_coef)


def _crops(operations: Sequence[_Crop]) -> tuple[CropSpec, ...]:
    return tuple(map(_crop, operations)) or SSD_CROPS


def _pair(values: Iterable[float], default: tuple[float, float]) -> tuple[float, float]:
    """(height, width) of a repeated field; the default where it is empty."""
    height, width = tuple(values) or default
    return height, width


def _pad(m: _Padding, colour: tuple[float, ...] | None) -> PadSpec:
    return PadSpec(_pair(m.min_padded_size_ratio, (1.0, 1.0)), _pair(m.max_padded_size_ratio, (2.0, 2.0)), colour)


def _random_pad(step: Step) -> Augmentation:
    m = step.random_pad_image
    low = (m.min_image_height, m.min_image_width) if m.HasField("min_image_height") else None
    high = (m.max_image_height, m.max_image_width) if m.HasField("max_image_height") else None
    return geometry.RandomPad(low, high, tuple(m.pad_color) or None)


def _absolute_pad(step: Step) -> Augmentation:
    m = step.random_absolute_pad_image
    return geometry.AbsolutePad((m.max_height_padding or 1, m.max_width_padding or 1), tuple(m.pad_color) or None)


def _crop_pad(step: Step) -> Augmentation:
    m = step.random_crop_pad_image
    return geometry.RandomCropPad(((_crop(m), _pad(m, tuple(m.pad_color) or None)),))


def _ssd_crop_pad(step: Step) -> Augmentation:
    operations = step.ssd_random_crop_pad.operations
    if not operations:
        return geometry.RandomCropPad()
    return geometry.RandomCropPad(
        tuple((_crop(o), _pad(o, (o.pad_color_r, o.pad_color_g, o.pad_color_b))) for o in operations)
    )


def _ssd_crop_fixed(step: Step) -> Augmentation:
    m = step.ssd_random_crop_fixed_aspect_ratio
    ratio = (m.aspect_ratio, m.aspect_ratio) if m.operations else (1.0, 1.0)
    settings = tuple(
        CropSpec(o.min_object_covered, o.overlap_thresh, ratio, (o.min_area, o.max_area), o.clip_boxes, o.random_coef)
        for o in m.operations
    )
    if not settings:
        settings = tuple(CropSpec(s.min_object_covered, s.overlap_thresh, ratio) for s in SSD_CROPS)
    return geometry.InTurn((RandomCrop(settings), geometry.CropToAspectRatio(ratio[0])))


def _ssd_crop_pad_fixed(step: Step) -> Augmentation:
    m = step.ssd_random_crop_pad_fixed_aspect_ratio
    size = _pad(m, None)
    pad = geometry.PadToAspectRatio(m.aspect_ratio or 1.0, size.min_share, size.max_share)
    return geometry.InTurn((RandomCrop(_crops(m.operations)), pad))


def _to_aspect_ratio(step: Step) -> Augmentation:
    m = step.random_crop_to_aspect_ratio
    return geometry.CropToAspectRatio(m.aspect_ratio, m.overlap_thresh, m.clip_boxes)


def _black_patches(step: Step) -> Augmentation:
    m = step.random_black_patches
    return pixels.BlackPatches(m.max_black_patches, m.probability, m.size_to_image_ratio)


def _patch_gaussian(step: Step) -> Augmentation:
    m = step.random_patch_gaussian
    sizes, deviations = (m.min_patch_size, m.max_patch_size), (m.min_gaussian_stddev, m.max_gaussian_stddev)
    return pixels.PatchGaussian(m.random_coef, sizes, deviations)


def _jpeg_quality(step: Step) -> Augmentation:
    m = step.random_jpeg_quality
    return pixels.JpegQuality(m.random_coef, (m.min_jpeg_quality, m.max_jpeg_quality))


def _self_concat(step: Step) -> Augmentation:
    m = step.random_self_concat_image
    return pixels.SelfConcat(m.concat_vertical_probability, m.concat_horizontal_probability)


def _downscale(step: Step) -> Augmentation:
    m = step.random_downscale_to_target_pixels
    return pixels.DownscaleToTargetPixels(m.random_coef, (m.min_target_pixels, m.max_target_pixels))


def _resize_method(step: Step) -> Augmentation:
    m = step.random_resize_method
    return pixels.Resize(m.target_height, m.target_width)


def _resize(step: Step) -> Augmentation:
    m = step.resize_image
    method = messages.ResizeImage.Method.Name(m.method)
    return pixels.Resize(m.new_height, m.new_width, method)


def _value_scale(step: Step) -> Augmentation:
    return colours.PixelValueScale(step.random_pixel_value_scale.minval, step.random_pixel_value_scale.maxval)


def _contrast(step: Step) -> Augmentation:
    return colours.AdjustContrast(step.random_adjust_contrast.min_delta, step.random_adjust_contrast.max_delta)


def _saturation(step: Step) -> Augmentation:
    return colours.AdjustSaturation(step.random_adjust_saturation.min_delta, step.random_adjust_saturation.max_delta)


def _image_scale(step: Step) -> Augmentation:
    return pixels.ImageScale(step.random_image_scale.min_scale_ratio, step.random_image_scale.max_scale_ratio)


def _drop_label(step: Step) -> Augmentation:
    m = step.drop_label_probabilistically
    return objects.DropLabel(m.label - 1, m.drop_probability)


def _remap_labels(step: Step) -> Augmentation:
    m = step.remap_labels
    return objects.RemapLabels(tuple(label - 1 for label in m.original_labels), m.new_label - 1)


_STEPS: dict[str, Callable[[Step], Augmentation]] = {
    "random_horizontal_flip": lambda step: geometry.horizontal_flip,
    "random_vertical_flip": lambda step: geometry.vertical_flip,
    "random_rotation90": lambda step: geometry.rotation90,
    "random_crop_image": lambda step: RandomCrop((_crop(step.random_crop_image),)),
    "random_crop_to_aspect_ratio": _to_aspect_ratio,
    "random_pad_image": _random_pad,
    "random_absolute_pad_image": _absolute_pad,
    "random_crop_pad_image": _crop_pad,
    "ssd_random_crop": lambda step: RandomCrop(_crops(step.ssd_random_crop.operations)),
    "ssd_random_crop_pad": _ssd_crop_pad,
    "ssd_random_crop_fixed_aspect_ratio": _ssd_crop_fixed,
    "ssd_random_crop_pad_fixed_aspect_ratio": _ssd_crop_pad_fixed,
    "random_pixel_value_scale": _value_scale,
    "random_rgb_to_gray": lambda step: colours.RgbToGrey(step.random_rgb_to_gray.probability),
    "random_adjust_brightness": lambda step: colours.AdjustBrightness(step.random_adjust_brightness.max_delta),
    "random_adjust_contrast": _contrast,
    "random_adjust_hue": lambda step: colours.AdjustHue(step.random_adjust_hue.max_delta),
    "random_adjust_saturation": _saturation,
    "random_distort_color": lambda step: colours.DistortColour(step.random_distort_color.color_ordering),
    "random_image_scale": _image_scale,
    "random_black_patches": _black_patches,
    "random_patch_gaussian": _patch_gaussian,
    "random_jpeg_quality": _jpeg_quality,
    "random_self_concat_image": _self_concat,
    "random_downscale_to_target_pixels": _downscale,
    "random_resize_method": _resize_method,
    "resize_image": _resize,
    "random_jitter_boxes": lambda step: objects.JitterBoxes(step.random_jitter_boxes.ratio),
    "drop_label_probabilistically": _drop_label,
    "remap_labels": _remap_labels,
}
