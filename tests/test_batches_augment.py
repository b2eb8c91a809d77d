"""Augmentations: geometry on pictures small enough to follow by hand, colours by hand and by TensorFlow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("cv2")

from mirilla import config
from mirilla.batches import augment_colour as colour
from mirilla.batches import augment_geometry as geometry
from mirilla.batches import augment_objects as objects
from mirilla.batches import augment_pixels as pixels
from mirilla.batches.augment import augmentations, needs_own_pixels
from mirilla.batches.crop import CropSpec
from mirilla.batches.example import Places, resample, to_uint8, whole
from mirilla.errors import ConfigError

NOWHERE = Places(np.zeros(1), np.zeros(1), False)


class Fixed:
    """A generator that gives these numbers, whatever is asked."""

    def __init__(self, *values):
        self.values = itertools.cycle(values)

    def random(self, size=None, dtype=None):
        return next(self.values)

    def uniform(self, low=0.0, high=1.0, size=None):
        return low + (high - low) * next(self.values)

    def integers(self, low, high=None):
        low, high = (0, low) if high is None else (low, high)
        assert high > low
        return low + int((high - low) * next(self.values))


def picture(height=4, width=6):
    """Every pixel another value; the object is the pixel in row 1, column 2."""
    image = np.repeat(np.arange(height * width, dtype=np.uint8).reshape(height, width, 1) * 5, 3, -1)
    box = np.array([[1 / height, 2 / width, 2 / height, 3 / width]])
    return whole(image, box, np.array([0]), np.ones(1), np.zeros(1, bool))


def shown(view):
    return to_uint8(resample(view, *view.size_px))[..., 0]


def in_box(view, index=0):
    """The pixels under an object."""
    height, width = view.size_px
    y0, x0, y1, x1 = np.rint(view.boxes_yxyx[index] * [height, width, height, width]).astype(int)
    return shown(view)[y0:y1, x0:x1]


def steps(text):
    return augmentations(config.loads(f"train_config {{ {text} }}").train_config.data_augmentation_options)


def option(text):
    return steps(f"data_augmentation_options {{ {text} }}")[0]


# ---- geometry


def test_flips_and_turns_against_numpy():
    image = picture().picture[..., 0]
    turns = {
        geometry.horizontal_flip: np.fliplr,
        geometry.vertical_flip: np.flipud,
        geometry.rotation90: np.rot90,
    }
    for step, expected in turns.items():
        np.testing.assert_array_equal(shown(step(Fixed(0.6), picture())), expected(image))
        np.testing.assert_array_equal(shown(step(Fixed(0.5), picture())), image)


def test_any_sequence_of_flips_turns_and_crops_keeps_the_object_on_its_pixels():
    pairs = [
        (geometry.horizontal_flip, np.fliplr),
        (geometry.vertical_flip, np.flipud),
        (geometry.rotation90, np.rot90),
    ]
    for chosen in itertools.product(pairs, repeat=4):
        view, image = picture(), picture().picture[..., 0]
        for step, by_numpy in chosen:
            view, image = step(Fixed(0.9), view), by_numpy(image)
        np.testing.assert_array_equal(shown(view), image)
        np.testing.assert_array_equal(in_box(view), [[40]])
        height, width = view.size_px
        cut = view.region((0, 0, height - 1, width - 1))
        from dataclasses import replace

        np.testing.assert_array_equal(shown(replace(view, window=cut)), image[:-1, :-1])


def test_crops_of_turned_pictures_show_what_their_boxes_say():
    rng = np.random.default_rng(5)
    spec = CropSpec(1.0, 0.9, area=(0.2, 0.9), random_coef=0.0)
    steps_ = [
        geometry.horizontal_flip,
        geometry.rotation90,
        geometry.RandomCrop((spec,)),
        geometry.vertical_flip,
        geometry.RandomPad(colour=(255.0, 0.0, 0.0)),
        geometry.rotation90,
        geometry.RandomCrop((spec,)),
    ]
    seen = 0
    for _ in range(300):
        view = picture(8, 12)
        mark = view.picture[2:4, 4:8].copy()
        view = whole(view.picture, np.array([[2 / 8, 4 / 12, 4 / 8, 8 / 12]]), view.classes, view.weights, view.ignore)
        for step in steps_:
            view = step(rng, view)
        if len(view.classes) and in_box(view).size == 8:
            seen += 1
            assert sorted(in_box(view).ravel()) == sorted(mark[..., 0].ravel())
    assert seen > 100


def test_padding_by_hand():
    view = geometry.padded(picture(2, 2), (-1, -2, 4, 5), (7.0, 8.0, 9.0))
    expected = np.full((4, 5), 7)
    expected[1:3, 2:4] = [[0, 5], [10, 15]]
    np.testing.assert_array_equal(shown(view), expected)
    assert to_uint8(resample(view, 4, 5))[0, 0].tolist() == [7, 8, 9]
    # the object of the 2x2 picture lies at rows 1/2 .. 1, columns 1 .. 3/2
    np.testing.assert_allclose(view.boxes_yxyx, [[(1 + 1) / 4, (2 + 2) / 5, (1 + 2) / 4, (2 + 3) / 5]])
    mean = geometry.padded(picture(2, 2), (-1, -2, 4, 5), None)
    assert shown(mean)[0, 0] == round((0 + 5 + 10 + 15) / 4)


def test_colour_changes_reach_the_padding_only_where_they_come_later():
    before = geometry.padded(colour.AdjustBrightness(0.2)(Fixed(1.0), picture(2, 2)), (0, 0, 2, 3), (0.0, 0.0, 0.0))
    after = colour.AdjustBrightness(0.2)(Fixed(1.0), geometry.padded(picture(2, 2), (0, 0, 2, 3), (0.0, 0.0, 0.0)))
    assert shown(before).tolist() == [[51, 56, 0], [61, 66, 0]]
    assert shown(after).tolist() == [[51, 56, 51], [61, 66, 51]]


def test_random_pad_sizes():
    step = option(
        "random_pad_image { min_image_height: 10 min_image_width: 3 max_image_height: 20 max_image_width: 5 }"
    )
    rng = np.random.default_rng(0)
    sizes = {step(rng, picture(4, 6)).size_px for _ in range(400)}
    assert {h for h, _ in sizes} == set(range(10, 20))
    assert {w for _, w in sizes} == {6}  # 3..5 is less than the picture has
    free = {option("random_pad_image {}")(rng, picture(4, 6)).size_px for _ in range(400)}
    assert {h for h, _ in free} == set(range(4, 8))
    absolute = {
        option("random_absolute_pad_image { max_height_padding: 3 }")(rng, picture()).size_px for _ in range(99)
    }
    assert absolute == {(4, 6), (5, 6), (6, 6)}  # max_width_padding unset counts as 1


def test_crop_pad_sizes_go_by_the_picture_before_the_crop():
    step = option(
        "random_crop_pad_image { min_area: 0.2 max_area: 0.4 min_padded_size_ratio: [1.5, 1.0] "
        "max_padded_size_ratio: [1.5, 1.0] min_object_covered: 0 pad_color: [1, 2, 3] }"
    )
    for seed in range(20):
        view = step(np.random.default_rng(seed), picture(20, 30))
        assert view.size_px == (30, 30)
        assert (shown(view) == 1).sum() > 400


def test_crop_to_aspect_ratio():
    square = option("random_crop_to_aspect_ratio {}")
    rng = np.random.default_rng(0)
    views = [square(rng, picture(4, 6)) for _ in range(200)]
    assert {v.size_px for v in views} == {(4, 4)}
    assert {v.window[1] for v in views} == {0, 1, 2}
    wide = option("random_crop_to_aspect_ratio { aspect_ratio: 3 }")
    assert wide(rng, picture(4, 6)).size_px == (2, 6)
    # 1/6 of the width starting at 2/6: 4 columns of 6 from column 0 on put it at 2/4 .. 3/4
    np.testing.assert_allclose(square(Fixed(0.0), picture(4, 6)).boxes_yxyx, [[0.25, 0.5, 0.5, 0.75]])


def test_pad_to_aspect_ratio():
    # 4x6 to a square: 6x6 at least; twice the height would be 8, twice the width 12: scales from 1 to 8/6
    step = geometry.PadToAspectRatio()
    assert step(Fixed(0.0), picture(4, 6)).size_px == (6, 6)
    assert step(Fixed(1.0), picture(4, 6)).size_px == (8, 8)
    view = step(Fixed(0.0), picture(4, 6))
    assert (shown(view)[4:] == 0).all()
    np.testing.assert_allclose(view.boxes_yxyx, [[1 / 6, 2 / 6, 2 / 6, 3 / 6]])


@pytest.mark.parametrize("name", ["ssd_random_crop_fixed_aspect_ratio", "ssd_random_crop_pad_fixed_aspect_ratio"])
def test_fixed_aspect_ratio(name):
    operation = "operations { min_object_covered: 0 min_area: 0.1 max_area: 1 random_coef: 0"
    if "pad" in name:
        operation += " min_aspect_ratio: 0.5 max_aspect_ratio: 2"
    step = option(f"{name} {{ aspect_ratio: 1.5 {operation} }} }}")
    rng = np.random.default_rng(1)
    for _ in range(50):
        height, width = step(rng, picture(90, 120)).size_px
        assert width / height == pytest.approx(1.5, abs=0.1)
    # the API reads the ratio only together with operations
    height, width = option("ssd_random_crop_fixed_aspect_ratio { aspect_ratio: 3 }")(rng, picture(90, 120)).size_px
    assert abs(width - height) <= 1


def test_ssd_crop_pad_defaults():
    step = option("ssd_random_crop_pad {}")
    assert [crop.min_object_covered for crop, _ in step.settings] == [0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    assert step.settings[0][1] == geometry.PadSpec((1.0, 1.0), (2.0, 2.0), None)
    own = option("ssd_random_crop_pad { operations { min_padded_size_ratio: [1, 1] max_padded_size_ratio: [3, 2] } }")
    assert own.settings[0][1] == geometry.PadSpec((1.0, 1.0), (3.0, 2.0), (0.0, 0.0, 0.0))


# ---- objects


def test_jitter_stays_within_its_share_and_the_picture():
    view = whole(
        np.zeros((10, 10, 3), np.uint8),
        np.array([[0.2, 0.4, 0.4, 0.8], [0.0, 0.0, 1.0, 1.0]]),
        np.zeros(2, int),
        np.ones(2),
        np.zeros(2, bool),
    )
    moved = np.array([objects.JitterBoxes(0.1)(np.random.default_rng(i), view).boxes_yxyx for i in range(500)])
    step = np.abs(moved[:, 0] - view.boxes_yxyx[0])
    assert (step <= [0.02, 0.04, 0.02, 0.04]).all()
    assert (step.max(0) > [0.019, 0.038, 0.019, 0.038]).all()
    assert moved[:, 1].min() == 0
    assert moved[:, 1].max() == 1


def test_labels_dropped_and_renamed():
    view = whole(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4)), np.array([0, 1, 1, 2]), np.ones(4), np.zeros(4, bool))
    rng = np.random.default_rng(0)
    assert option("drop_label_probabilistically { label: 2 }")(rng, view).classes.tolist() == [0, 2]
    half = option("drop_label_probabilistically { label: 2 drop_probability: 0.25 }")
    assert np.mean([len(half(rng, view).classes) for _ in range(2000)]) == pytest.approx(3.5, abs=0.06)
    assert option("remap_labels { original_labels: [1, 3] new_label: 2 }")(rng, view).classes.tolist() == [1] * 4


# ---- colours and pixels


def test_colours_by_hand():
    pixel = np.array([[[200.0, 100.0, 50.0]]], np.float32)
    np.testing.assert_allclose(colour.Brighter(0.1)(pixel, NOWHERE), [[[225.5, 125.5, 75.5]]], rtol=1e-6)
    np.testing.assert_allclose(colour.Brighter(-0.3)(pixel, NOWHERE), [[[123.5, 23.5, 0]]], rtol=1e-6)
    mean = np.array([100, 100, 100], np.float32)
    np.testing.assert_allclose(colour.Contrast(2.0, mean)(pixel, NOWHERE), [[[255, 100, 0]]], rtol=1e-6)
    np.testing.assert_allclose(colour.grey(pixel, NOWHERE), np.full((1, 1, 3), 0.2989 * 200 + 58.7 + 5.7), rtol=1e-6)
    # half the saturation: the least channel goes from 50 to 200 - 150 / 2
    np.testing.assert_allclose(colour.HueSaturation(factor=0.5)(pixel, NOWHERE), [[[200, 150, 125]]], atol=1e-3)
    # a third of the circle turns red to green
    np.testing.assert_allclose(colour.HueSaturation(turn=1 / 3)(pixel, NOWHERE), [[[50, 200, 100]]], atol=1e-2)


def test_contrast_goes_by_what_was_shown_at_its_turn():
    view = picture()
    changed = colour.AdjustContrast(0.0, 0.0)(Fixed(0.0), view)
    cut = geometry.RandomCrop((CropSpec(0, 0, area=(0.2, 0.5), random_coef=0),))(np.random.default_rng(0), changed)
    np.testing.assert_array_equal(np.unique(shown(cut)), [round(23 * 5 / 2)])


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
            if getattr(effect, name, None) not in (None, 0.0, 1.0):
                return getattr(effect, name)
        return effect(np.full((1, 1, 3), 100, np.float32), NOWHERE)[0, 0, 0] / 100

    rng = np.random.default_rng(0)
    drawn = [strength(option(text)(rng, picture()).effects[0]) for _ in range(1000)]
    assert low - 1e-6 <= min(drawn) < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < max(drawn) <= high + 1e-6


def test_distortions_in_both_orders():
    def kinds(text):
        return [(type(e).__name__, getattr(e, "turn", 0) != 0) for e in option(text)(Fixed(0.9), picture()).effects]

    assert kinds("random_distort_color {}") == [
        ("Brighter", False),
        ("HueSaturation", False),
        ("HueSaturation", True),
        ("Contrast", False),
    ]
    assert kinds("random_distort_color { color_ordering: 1 }") == [
        ("Brighter", False),
        ("Contrast", False),
        ("HueSaturation", False),
        ("HueSaturation", True),
    ]


def test_grey_with_its_probability():
    rng = np.random.default_rng(0)
    assert np.mean([len(option("random_rgb_to_gray {}")(rng, picture()).effects) for _ in range(3000)]) == (
        pytest.approx(0.1, abs=0.02)
    )


def test_black_patches():
    view = picture(20, 40)
    view = whole(np.full_like(view.picture, 200), view.boxes_yxyx, view.classes, view.weights, view.ignore)
    rng = np.random.default_rng(0)
    step = option("random_black_patches { max_black_patches: 4 size_to_image_ratio: 0.2 }")
    counts = [len(step(rng, view).effects) for _ in range(500)]
    assert np.mean(counts) == pytest.approx(2.0, abs=0.2)
    one = pixels.BlackPatches(1, 1.0, 0.2)(Fixed(0.5), geometry.rotation90(Fixed(0.9), view))
    image = shown(one)  # 40 rows, 20 columns: a square of 4 at row int(0.4 * 40), column int(0.4 * 20)
    assert (image[16:20, 8:12] == 0).all()
    assert (image == 0).sum() == 16


def test_patch_of_noise():
    view = whole(
        np.full((50, 60, 3), 128, np.uint8),
        np.zeros((0, 4)),
        np.zeros(0, int),
        np.zeros(0),
        np.zeros(0, bool),
    )
    noisy = pixels.PatchGaussian(0.0, (9, 10), (0.05, 0.05))(Fixed(0.5), view)
    changed = np.abs(shown(noisy).astype(int) - 128) > 0
    assert changed[25 - 4 : 25 + 5, 30 - 4 : 30 + 5].mean() > 0.8
    changed[25 - 4 : 25 + 5, 30 - 4 : 30 + 5] = False
    assert not changed.any()
    assert pixels.PatchGaussian(0.6)(Fixed(0.5), view) is view


def test_jpeg_and_resizing_keep_objects_and_change_pixels():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (40, 60, 3)).astype(np.uint8)
    view = whole(noise, np.array([[0.1, 0.2, 0.5, 0.6]]), np.zeros(1, int), np.ones(1), np.zeros(1, bool))
    rough = pixels.JpegQuality(0.0, (5, 6))(rng, geometry.vertical_flip(Fixed(0.9), view))
    assert np.abs(rough.picture.astype(int) - noise[::-1]).mean() > 10
    fine = pixels.JpegQuality(0.0, (99, 100))(rng, whole(np.full_like(noise, 90), *_labels(view)))
    assert np.abs(fine.picture.astype(int) - 90).max() <= 1
    for text, size in [
        ("random_image_scale { min_scale_ratio: 0.5 max_scale_ratio: 0.5 }", (20, 30)),
        ("resize_image { new_height: 11 new_width: 13 method: BICUBIC }", (11, 13)),
        ("random_resize_method { target_height: 8 target_width: 9 }", (8, 9)),
        ("random_downscale_to_target_pixels { min_target_pixels: 600 max_target_pixels: 600 }", (20, 30)),
        ("random_downscale_to_target_pixels { min_target_pixels: 6000 max_target_pixels: 6001 }", (40, 60)),
    ]:
        result = option(text)(rng, view)
        assert result.size_px == size, text
        np.testing.assert_array_equal(result.boxes_yxyx, view.boxes_yxyx)


def test_a_picture_twice():
    below = option("random_self_concat_image { concat_vertical_probability: 1 concat_horizontal_probability: 0 }")
    view = below(np.random.default_rng(0), picture(4, 6))
    image = picture(4, 6).picture[..., 0]
    np.testing.assert_array_equal(shown(view), np.concatenate([image, image]))
    np.testing.assert_array_equal(in_box(view, 0), [[40]])
    np.testing.assert_array_equal(in_box(view, 1), [[40]])
    np.testing.assert_allclose(view.boxes_yxyx[1], [5 / 8, 2 / 6, 6 / 8, 3 / 6])
    both = option("random_self_concat_image { concat_vertical_probability: 1 concat_horizontal_probability: 1 }")
    view = both(np.random.default_rng(0), picture(4, 6))
    assert view.size_px == (8, 12)
    assert len(view.classes) == 4
    assert {int(in_box(view, i)[0, 0]) for i in range(4)} == {40}
    rare = option("random_self_concat_image {}")
    rng = np.random.default_rng(0)
    assert np.mean([len(rare(rng, picture()).classes) > 1 for _ in range(2000)]) == pytest.approx(0.19, abs=0.03)


def _labels(view):
    return view.boxes_yxyx, view.classes, view.weights, view.ignore


def test_which_steps_want_the_stored_pixels():
    def needs(text):
        return needs_own_pixels(config.loads(f"train_config {{ {text} }}").train_config.data_augmentation_options)

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
    mean = image.mean((0, 1))
    pairs = [
        (colour.Brighter(0.13), lambda x: tf.image.adjust_brightness(x, 0.13)),
        (colour.Contrast(1.4, mean), lambda x: tf.image.adjust_contrast(x, 1.4)),
        (colour.Contrast(0.6, mean), lambda x: tf.image.adjust_contrast(x, 0.6)),
        (colour.HueSaturation(turn=0.11), lambda x: tf.image.adjust_hue(x, 0.11)),
        (colour.HueSaturation(turn=-0.2), lambda x: tf.image.adjust_hue(x, -0.2)),
        (colour.HueSaturation(factor=0.55), lambda x: tf.image.adjust_saturation(x, 0.55)),
        (colour.HueSaturation(factor=1.45), lambda x: tf.image.adjust_saturation(x, 1.45)),
    ]
    for mine, theirs in pairs:
        expected = np.clip(theirs(tf.constant(image / 255)).numpy() * 255, 0, 255)
        np.testing.assert_allclose(mine(image, NOWHERE), expected, atol=0.02, err_msg=str(mine))


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
        difference = np.abs(pixels.resize(image, *size, method) - expected)
        assert difference.max() <= limit
        assert difference.mean() <= 1.5
    corners = tf.compat.v1.image.resize_bilinear(image[None], (55, 70), align_corners=True)[0].numpy()
    mine = pixels.resize(image, 55, 70, "BILINEAR", align_corners=True)
    assert np.abs(mine - corners).mean() <= 1.5


@pytest.mark.tensorflow
def test_turns_equal_tensorflow():
    tf = pytest.importorskip("tensorflow")
    image = picture().picture
    expected = tf.image.rot90(image).numpy()[..., 0]
    np.testing.assert_array_equal(shown(geometry.rotation90(Fixed(0.9), picture())), expected)
