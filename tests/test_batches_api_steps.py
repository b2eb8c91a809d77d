"""Augmentations: geometry on pictures small enough to follow by hand, colours by hand and by TensorFlow."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2")

from helpers_batches import Fixed, Shown, draws_of, objects
from mirilla import config
from mirilla.batches import api_colours as colours
from mirilla.batches import api_geometry as geometry
from mirilla.batches import api_objects, api_pixels
from mirilla.batches.api_crops import CropSpec, RandomCrop
from mirilla.batches.api_steps import augmentations, needs_stored_pixels
from mirilla.batches.examples import Places, whole_pictures
from mirilla.errors import ConfigError

NOWHERE = Places(np.zeros(1), np.zeros(1), False)
MEAN = np.full(1, True)
NO_COLOUR = np.zeros((1, 3), np.float32)


class FixedMean:
    """A painter for which every example has this mean colour."""

    def __init__(self, *colour):
        self.colour = np.array(colour, np.float32)

    def mean_colour(self, examples, row):
        return self.colour


def picture(height=4, width=6):
    """Every pixel has its own value; the object is the pixel in row 1, column 2."""
    image = np.repeat(np.arange(height * width, dtype=np.uint8).reshape(height, width, 1) * 5, 3, -1)
    return Shown(image, objects([[1 / height, 2 / width, 2 / height, 3 / width]]))


def many(height, width, count):
    """The same picture `count` times in a table; the object as in `picture`."""
    shapes = np.array([[height, width]])
    return whole_pictures(shapes, picture(height, width).examples.objects, np.zeros(count, np.int64))


def in_box(view, index=0):
    """The pixels under an object."""
    height, width = view.size_px
    y0, x0, y1, x1 = np.rint(view.boxes_yxyx[index] * [height, width, height, width]).astype(int)
    return view.values()[y0:y1, x0:x1]


def padded(view, window, colour):
    colours = NO_COLOUR if colour is None else np.array([colour], np.float32)
    return view.then(geometry.padded(view.examples, np.array([window]), colours, np.array([colour is None])))


def painted(effect, pixels, painter=None):
    return effect.paint(painter, 0, pixels, NOWHERE)


def option(text):
    steps = config.loads(f"train_config {{ data_augmentation_options {{ {text} }} }}")
    return augmentations(steps.train_config.data_augmentation_options)[0]


# ---- geometry


def test_flips_and_turns_against_numpy():
    image = picture().picture[..., 0]
    turns = {
        geometry.horizontal_flip: np.fliplr,
        geometry.vertical_flip: np.flipud,
        geometry.rotation90: np.rot90,
    }
    for step, expected in turns.items():
        np.testing.assert_array_equal(picture().after(step, Fixed(0.6)).values(), expected(image))
        np.testing.assert_array_equal(picture().after(step, Fixed(0.5)).values(), image)


def test_any_sequence_of_flips_turns_and_crops_keeps_the_object_on_its_pixels():
    pairs = [
        (geometry.horizontal_flip, np.fliplr),
        (geometry.vertical_flip, np.flipud),
        (geometry.rotation90, np.rot90),
    ]
    for chosen in itertools.product(pairs, repeat=4):
        view, image = picture(), picture().picture[..., 0]
        for step, by_numpy in chosen:
            view, image = view.after(step, Fixed(0.9)), by_numpy(image)
        np.testing.assert_array_equal(view.values(), image)
        np.testing.assert_array_equal(in_box(view), [[40]])
        height, width = view.size_px
        cut = view.examples.region(np.array([[0, 0, height - 1, width - 1]]))
        np.testing.assert_array_equal(view.then(replace(view.examples, window=cut)).values(), image[:-1, :-1])


def test_crops_of_turned_pictures_show_what_their_boxes_say():
    spec = CropSpec(1.0, 0.9, area=(0.2, 0.9), random_coef=0.0)
    steps_ = [
        geometry.horizontal_flip,
        geometry.rotation90,
        RandomCrop((spec,)),
        geometry.vertical_flip,
        geometry.RandomPad(colour=(255.0, 0.0, 0.0)),
        geometry.rotation90,
        RandomCrop((spec,)),
    ]
    seen = 0
    for seed in range(300):
        image = picture(8, 12).picture
        mark = image[2:4, 4:8].copy()
        view, draws = Shown(image, objects([[2 / 8, 4 / 12, 4 / 8, 8 / 12]])), draws_of(seed)
        for step in steps_:
            view = view.after(step, draws)
        if len(view.classes) and in_box(view).size == 8:
            seen += 1
            assert sorted(in_box(view).ravel()) == sorted(mark[..., 0].ravel())
    assert seen > 100


def test_padding_by_hand():
    view = padded(picture(2, 2), (-1, -2, 4, 5), (7.0, 8.0, 9.0))
    expected = np.full((4, 5), 7)
    expected[1:3, 2:4] = [[0, 5], [10, 15]]
    np.testing.assert_array_equal(view.values(), expected)
    assert view.pixels()[0, 0].tolist() == [7, 8, 9]
    # the object of the 2x2 picture is at rows 1/2 .. 1, columns 1 .. 3/2
    np.testing.assert_allclose(view.boxes_yxyx, [[(1 + 1) / 4, (2 + 2) / 5, (1 + 2) / 4, (2 + 3) / 5]])
    mean = padded(picture(2, 2), (-1, -2, 4, 5), None)
    assert mean.values()[0, 0] == round((0 + 5 + 10 + 15) / 4)


def test_colour_changes_reach_the_padding_only_where_they_come_later():
    brighter = colours.AdjustBrightness(0.2)
    before = padded(picture(2, 2).after(brighter, Fixed(1.0)), (0, 0, 2, 3), (0.0, 0.0, 0.0))
    after = padded(picture(2, 2), (0, 0, 2, 3), (0.0, 0.0, 0.0)).after(brighter, Fixed(1.0))
    assert before.values().tolist() == [[51, 56, 0], [61, 66, 0]]
    assert after.values().tolist() == [[51, 56, 51], [61, 66, 51]]


def test_random_pad_sizes():
    step = option(
        "random_pad_image { min_image_height: 10 min_image_width: 3 max_image_height: 20 max_image_width: 5 }"
    )

    def sizes(step, count=400):
        return step(draws_of(0, count), many(4, 6, count)).shown_px

    assert set(sizes(step)[:, 0].tolist()) == set(range(10, 20))
    assert set(sizes(step)[:, 1].tolist()) == {6}  # 3..5 is less than the picture has
    assert set(sizes(option("random_pad_image {}"))[:, 0].tolist()) == set(range(4, 8))
    absolute = sizes(option("random_absolute_pad_image { max_height_padding: 3 }"), 99)
    assert set(map(tuple, absolute.tolist())) == {(4, 6), (5, 6), (6, 6)}  # max_width_padding unset counts as 1


def test_crop_pad_sizes_are_relative_to_the_picture_before_the_crop():
    step = option(
        "random_crop_pad_image { min_area: 0.2 max_area: 0.4 min_padded_size_ratio: [1.5, 1.0] "
        "max_padded_size_ratio: [1.5, 1.0] min_object_covered: 0 pad_color: [1, 2, 3] }"
    )
    for seed in range(20):
        view = picture(20, 30).after(step, draws_of(seed))
        assert view.size_px == (30, 30)
        assert (view.values() == 1).sum() > 400


def test_crop_to_aspect_ratio():
    square = option("random_crop_to_aspect_ratio {}")
    made = square(draws_of(0, 200), many(4, 6, 200))
    assert set(map(tuple, made.shown_px.tolist())) == {(4, 4)}
    assert set(made.window[:, 1].tolist()) == {0, 1, 2}
    wide = option("random_crop_to_aspect_ratio { aspect_ratio: 3 }")
    assert picture(4, 6).after(wide, draws_of(0)).size_px == (2, 6)
    # 1/6 of the width starting at 2/6: 4 columns of 6 from column 0 on put it at 2/4 .. 3/4
    np.testing.assert_allclose(picture(4, 6).after(square, Fixed(0.0)).boxes_yxyx, [[0.25, 0.5, 0.5, 0.75]])


def test_pad_to_aspect_ratio():
    # 4x6 to a square: 6x6 at least; twice the height would be 8, twice the width 12: scales from 1 to 8/6
    step = geometry.PadToAspectRatio()
    assert picture(4, 6).after(step, Fixed(0.0)).size_px == (6, 6)
    assert picture(4, 6).after(step, Fixed(1.0)).size_px == (8, 8)
    view = picture(4, 6).after(step, Fixed(0.0))
    assert (view.values()[4:] == 0).all()
    np.testing.assert_allclose(view.boxes_yxyx, [[1 / 6, 2 / 6, 2 / 6, 3 / 6]])


@pytest.mark.parametrize("name", ["ssd_random_crop_fixed_aspect_ratio", "ssd_random_crop_pad_fixed_aspect_ratio"])
def test_fixed_aspect_ratio(name):
    operation = "operations { min_object_covered: 0 min_area: 0.1 max_area: 1 random_coef: 0"
    if "pad" in name:
        operation += " min_aspect_ratio: 0.5 max_aspect_ratio: 2"
    step = option(f"{name} {{ aspect_ratio: 1.5 {operation} }} }}")
    for height, width in step(draws_of(1, 50), many(90, 120, 50)).shown_px:
        assert width / height == pytest.approx(1.5, abs=0.1)
    # the API reads the ratio only together with operations
    without = option("ssd_random_crop_fixed_aspect_ratio { aspect_ratio: 3 }")
    height, width = picture(9, 12).after(without, draws_of(1)).size_px
    assert abs(width - height) <= 1


def test_ssd_crop_pad_defaults():
    step = option("ssd_random_crop_pad {}")
    assert [crop.min_object_covered for crop, _ in step.settings] == [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    assert step.settings[0][1] == geometry.PadSpec((1.0, 1.0), (2.0, 2.0), None)
    own = option("ssd_random_crop_pad { operations { min_padded_size_ratio: [1, 1] max_padded_size_ratio: [3, 2] } }")
    assert own.settings[0][1] == geometry.PadSpec((1.0, 1.0), (3.0, 2.0), (0.0, 0.0, 0.0))


# ---- objects


def test_jitter_stays_within_its_share_and_the_picture():
    labelled = objects([[0.2, 0.4, 0.4, 0.8], [0.0, 0.0, 1.0, 1.0]])
    examples = whole_pictures(np.array([[10, 10]]), labelled, np.zeros(500, np.int64))
    moved = api_objects.JitterBoxes(0.1)(draws_of(0, 500), examples).objects.boxes_yxyx.reshape(500, 2, 4)
    step = np.abs(moved[:, 0] - labelled.boxes_yxyx[0])
    assert (step <= [0.02, 0.04, 0.02, 0.04]).all()
    assert (step.max(0) > [0.019, 0.038, 0.019, 0.038]).all()
    assert moved[:, 1].min() == 0
    assert moved[:, 1].max() == 1


def test_labels_dropped_and_renamed():
    view = Shown(np.zeros((4, 4, 3), np.uint8), objects(np.zeros((4, 4)), [0, 1, 1, 2]))
    draws = draws_of(0)
    assert view.after(option("drop_label_probabilistically { label: 2 }"), draws).classes.tolist() == [0, 2]
    half = option("drop_label_probabilistically { label: 2 drop_probability: 0.25 }")
    examples = whole_pictures(np.array([[4, 4]]), view.examples.objects, np.zeros(2000, np.int64))
    kept = half(draws_of(0, 2000), examples).objects.counts(2000)
    assert kept.mean() == pytest.approx(3.5, abs=0.06)
    renamed = view.after(option("remap_labels { original_labels: [1, 3] new_label: 2 }"), draws)
    assert renamed.classes.tolist() == [1] * 4


# ---- colours and pixels


def test_colours_by_hand():
    pixel = np.array([[[200.0, 100.0, 50.0]]], np.float32)
    one = np.ones(1)
    np.testing.assert_allclose(painted(colours.Brightness(0.1 * one), pixel), [[[225.5, 125.5, 75.5]]], rtol=1e-6)
    np.testing.assert_allclose(painted(colours.Brightness(-0.3 * one), pixel), [[[123.5, 23.5, 0]]], rtol=1e-6)
    contrast = colours.Contrast(2.0 * one, picture().examples)
    np.testing.assert_allclose(painted(contrast, pixel, FixedMean(100, 100, 100)), [[[255, 100, 0]]], rtol=1e-6)
    grey = colours.Grey(np.array([True]))
    np.testing.assert_allclose(painted(grey, pixel), np.full((1, 1, 3), 0.2989 * 200 + 58.7 + 5.7), rtol=1e-6)
    # half the saturation: the least channel goes from 50 to 200 - 150 / 2
    np.testing.assert_allclose(
        painted(colours.HueSaturation(0 * one, 0.5 * one), pixel), [[[200, 150, 125]]], atol=1e-3
    )
    # a third of the circle turns red to green
    np.testing.assert_allclose(painted(colours.HueSaturation(one / 3, one), pixel), [[[50, 200, 100]]], atol=1e-2)


def test_contrast_uses_the_mean_of_what_was_shown_at_its_turn():
    changed = picture().after(colours.AdjustContrast(0.0, 0.0), Fixed(0.0))
    cut = changed.after(RandomCrop((CropSpec(0, 0, area=(0.2, 0.5), random_coef=0),)), draws_of(0))
    assert cut.size_px != changed.size_px
    np.testing.assert_array_equal(np.unique(cut.values()), [round(23 * 5 / 2)])


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("random_adjust_brightness {}", -0.2, 0.2),
        ("random_adjust_brightness { max_delta: 0.5 }", -0.5, 0.5),
        ("random_adjust_hue {}", -0.02, 0.02),
        ("random_adjust_saturation {}", 0.8, 1.25),
        ("random_adjust_contrast {}", 0.8, 1.25),
        ("random_adjust_contrast { min_delta: 0.1 max_delta: 0.3 }", 0.1, 0.3),
        ("random_pixel_value_scale {}", 0.9, 1.1),
    ],
)
def test_ranges_are_the_originals(text, low, high):
    def strength(effect):
        for name in ("delta", "turn", "factor"):
            values = getattr(effect, name, None)
            if values is not None and not np.isin(values, (0.0, 1.0)).all():
                return values
        pixel = np.full((1, 1, 3), 100, np.float32)
        return [effect.paint(None, row, pixel, NOWHERE)[0, 0, 0] / 100 for row in range(1000)]

    drawn = strength(option(text)(draws_of(0, 1000), many(4, 6, 1000)).effects[0])
    assert low - 1e-6 <= min(drawn) < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < max(drawn) <= high + 1e-6


def test_distortions_in_both_orders():
    def kinds(text):
        effects = option(text)(Fixed(0.9), picture().examples).effects
        return [(type(e).__name__, bool(getattr(e, "turn", np.zeros(1))[0] != 0)) for e in effects]

    assert kinds("random_distort_color {}") == [
        ("Brightness", False),
        ("HueSaturation", False),
        ("HueSaturation", True),
        ("Contrast", False),
    ]
    assert kinds("random_distort_color { color_ordering: 1 }") == [
        ("Brightness", False),
        ("Contrast", False),
        ("HueSaturation", False),
        ("HueSaturation", True),
    ]


def test_grey_with_its_probability():
    (effect,) = option("random_rgb_to_gray {}")(draws_of(0, 3000), many(4, 6, 3000)).effects
    assert effect.acts.mean() == pytest.approx(0.1, abs=0.02)


def test_black_patches():
    step = option("random_black_patches { max_black_patches: 4 size_to_image_ratio: 0.2 }")
    (effect,) = step(draws_of(0, 500), many(20, 40, 500)).effects
    assert effect.acts.sum(1).mean() == pytest.approx(2.0, abs=0.2)
    view = Shown(np.full((20, 40, 3), 200, np.uint8)).after(geometry.rotation90, Fixed(0.9))
    image = view.after(api_pixels.BlackPatches(1, 1.0, 0.2), Fixed(0.5)).values()
    # 40 rows, 20 columns: a square of 4 at row int(0.4 * 40), column int(0.4 * 20)
    assert (image[16:20, 8:12] == 0).all()
    assert (image == 0).sum() == 16


def test_patch_of_noise():
    view = Shown(np.full((50, 60, 3), 128, np.uint8))
    noisy = view.after(api_pixels.PatchGaussian(0.0, (9, 10), (0.05, 0.05)), Fixed(0.5))
    changed = np.abs(noisy.values().astype(int) - 128) > 0
    assert changed[25 - 4 : 25 + 5, 30 - 4 : 30 + 5].mean() > 0.8
    changed[25 - 4 : 25 + 5, 30 - 4 : 30 + 5] = False
    assert not changed.any()
    np.testing.assert_array_equal(view.after(api_pixels.PatchGaussian(0.6), Fixed(0.5)).pixels(), view.picture)


def test_jpeg_and_resizing_keep_objects_and_change_pixels():
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    view = Shown(noise, objects([[0.1, 0.2, 0.5, 0.6]]))
    rough = view.after(geometry.vertical_flip, Fixed(0.9)).after(api_pixels.JpegQuality(0.0, (5, 6)), draws_of(0))
    assert np.abs(rough.pixels().astype(int) - noise[::-1]).mean() > 10
    fine = Shown(np.full_like(noise, 90)).after(api_pixels.JpegQuality(0.0, (99, 100)), draws_of(0))
    assert np.abs(fine.pixels().astype(int) - 90).max() <= 1
    for text, size in [
        ("random_image_scale { min_scale_ratio: 0.5 max_scale_ratio: 0.5 }", (20, 30)),
        ("resize_image { new_height: 11 new_width: 13 method: BICUBIC }", (11, 13)),
        ("random_resize_method { target_height: 8 target_width: 9 }", (8, 9)),
        ("random_downscale_to_target_pixels { min_target_pixels: 600 max_target_pixels: 600 }", (20, 30)),
        ("random_downscale_to_target_pixels { min_target_pixels: 6000 max_target_pixels: 6001 }", (40, 60)),
    ]:
        result = view.after(option(text), draws_of(0))
        assert result.size_px == size, text
        assert result.pixels().shape[:2] == size, text
        np.testing.assert_array_equal(result.boxes_yxyx, view.boxes_yxyx)


def test_a_picture_twice():
    below = option("random_self_concat_image { concat_vertical_probability: 1 concat_horizontal_probability: 0 }")
    view = picture(4, 6).after(below, draws_of(0))
    image = picture(4, 6).picture[..., 0]
    np.testing.assert_array_equal(view.values(), np.concatenate([image, image]))
    np.testing.assert_array_equal(in_box(view, 0), [[40]])
    np.testing.assert_array_equal(in_box(view, 1), [[40]])
    np.testing.assert_allclose(view.boxes_yxyx[1], [5 / 8, 2 / 6, 6 / 8, 3 / 6])
    both = option("random_self_concat_image { concat_vertical_probability: 1 concat_horizontal_probability: 1 }")
    view = picture(4, 6).after(both, draws_of(0))
    assert view.size_px == (8, 12)
    assert len(view.classes) == 4
    assert {int(in_box(view, i)[0, 0]) for i in range(4)} == {40}
    rare = option("random_self_concat_image {}")(draws_of(0, 2000), many(4, 6, 2000))
    assert (rare.objects.counts(2000) > 1).mean() == pytest.approx(0.19, abs=0.03)


def test_which_steps_need_the_stored_pixels():
    def needs(text):
        return needs_stored_pixels(config.loads(f"train_config {{ {text} }}").train_config.data_augmentation_options)

    assert not needs(
        "data_augmentation_options { ssd_random_crop {} } data_augmentation_options { random_adjust_hue {} }"
    )
    assert needs("data_augmentation_options { random_jpeg_quality {} }")


def test_a_step_that_is_missing_is_named():
    with pytest.raises(ConfigError, match="autoaugment_image"):
        option("autoaugment_image {}")


# ---- against TensorFlow


@pytest.mark.tensorflow
def test_colours_equal_tensorflow():
    tf = pytest.importorskip("tensorflow")
    image = np.random.default_rng(0).random((9, 11, 3), np.float32) * 255
    mean, one, examples = FixedMean(*image.mean((0, 1))), np.ones(1), picture().examples
    pairs = [
        (colours.Brightness(0.13 * one), lambda x: tf.image.adjust_brightness(x, 0.13)),
        (colours.Contrast(1.4 * one, examples), lambda x: tf.image.adjust_contrast(x, 1.4)),
        (colours.Contrast(0.6 * one, examples), lambda x: tf.image.adjust_contrast(x, 0.6)),
        (colours.HueSaturation(0.11 * one, one), lambda x: tf.image.adjust_hue(x, 0.11)),
        (colours.HueSaturation(-0.2 * one, one), lambda x: tf.image.adjust_hue(x, -0.2)),
        (colours.HueSaturation(0 * one, 0.55 * one), lambda x: tf.image.adjust_saturation(x, 0.55)),
        (colours.HueSaturation(0 * one, 1.45 * one), lambda x: tf.image.adjust_saturation(x, 1.45)),
    ]
    for mine, theirs in pairs:
        expected = np.clip(theirs(tf.constant(image / 255)).numpy() * 255, 0, 255)
        np.testing.assert_allclose(painted(mine, image, mean), expected, atol=0.02, err_msg=str(mine))


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("method", "op"),
    [
        ("BILINEAR", "resize_bilinear"),
        ("NEAREST_NEIGHBOR", "resize_nearest_neighbor"),
        ("BICUBIC", "resize_bicubic"),
        ("AREA", "resize_area"),
    ],
)
def test_resizing_equals_tensorflow(method, op):
    tf = pytest.importorskip("tensorflow")
    image = np.random.default_rng(0).random((40, 62, 3), np.float32) * 255
    for size in ((20, 31), (17, 25), (37, 61)):
        expected = getattr(tf.compat.v1.image, op)(image[None], size)[0].numpy()
        # OpenCV takes places to 1/32 of a pixel
        limit = 1e-3 if method in ("NEAREST_NEIGHBOR", "AREA") else 10
        difference = np.abs(api_pixels.resize(image, *size, method) - expected)
        assert difference.max() <= limit
        assert difference.mean() <= 1.5
    corners = tf.compat.v1.image.resize_bilinear(image[None], (55, 70), align_corners=True)[0].numpy()
    mine = api_pixels.resize(image, 55, 70, "BILINEAR", align_corners=True)
    assert np.abs(mine - corners).mean() <= 1.5


@pytest.mark.tensorflow
def test_turns_equal_tensorflow():
    tf = pytest.importorskip("tensorflow")
    image = picture().picture
    expected = tf.image.rot90(image).numpy()[..., 0]
    np.testing.assert_array_equal(picture().after(geometry.rotation90, Fixed(0.9)).values(), expected)
