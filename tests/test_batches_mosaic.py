"""The training input of mirilla.augmentation: boxes stay on their objects, whatever happens to the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from helpers_batches import Pictures, Shown, arrays, batches_of, draws_of, objects
from mirilla import config
from mirilla.batches.api_steps import augmentations
from mirilla.batches.examples import whole_pictures
from mirilla.batches.framing import ZoomOut, seen_through
from mirilla.batches.mosaic import MIN_SIDE_PX, InputRecipe, Mosaic, in_bytes, input_recipe
from mirilla.batches.paint import HostPainter
from mirilla.batches.photo_effects import Grey, Noise, PhotoEffects, Photometric, motion_kernel
from mirilla.batches.tiles import ANY_COLOUR, BLACK, DrawnBatch, Fills, Tiles, draw_fills
from mirilla.errors import ConfigError
from mirilla.model.spec import ModelSpec

SPEC = ModelSpec(keep_aspect_ratio=True)
GEOMETRY = {
    "object_zoom": "object_zoom { probability: 1 }",
    "zoom_out": "zoom_out { probability: 1 }",
    "aspect_mix": "aspect_mix {}",
    "mosaic": "mosaic { probability: 1 }",
    "all": "mosaic {} object_zoom {} zoom_out {} aspect_mix {}",
    "none": "grey { probability: 0 }",
}
EVERYTHING = GEOMETRY["all"] + " grey {} photometric {} blur {} noise {} jpeg_traces {}"


def recipe_of(steps: str) -> InputRecipe | None:
    for name in (
        "mosaic",
        "object_zoom",
        "zoom_out",
        "aspect_mix",
        "grey",
        "photometric",
        "blur",
        "noise",
        "jpeg_traces",
    ):
        steps = steps.replace(f"{name} {{", f"augmentation {{ {name} {{")
    steps = steps.replace("}", "}}")
    return input_recipe(config.loads(f"mirilla {{ {steps} }}").mirilla.augmentation)


def flips():
    text = """train_config { data_augmentation_options { random_horizontal_flip {} }
              data_augmentation_options { random_vertical_flip {} }
              data_augmentation_options { random_rotation90 {} } }"""
    return augmentations(config.loads(text).train_config.data_augmentation_options)


def scene(seed: int, colour: int):
    """A dark picture of any size with one rectangle of a colour, and its label."""
    rng = np.random.default_rng([7, seed])
    height, width = (int(v) for v in rng.integers(100, 512, 2))
    picture = np.full((height, width, 3), 30, np.uint8)
    tall, wide = int(rng.integers(12, height // 2)), int(rng.integers(12, width // 2))
    top, left = int(rng.integers(height - tall)), int(rng.integers(width - wide))
    picture[top : top + tall, left : left + wide] = 30
    picture[top : top + tall, left : left + wide, colour] = 250
    box = [top / height, left / width, (top + tall) / height, (left + wide) / width]
    return picture, objects([box])


def coloured(image, colour: int):
    """Pixels that are the rectangle's: its channel high, the others dark. Fills can be that, too: see below."""
    others = [c for c in range(3) if c != colour]
    return (image[..., colour] > 140) & (image[..., others].max(-1) < 60)


@pytest.fixture
def fills(monkeypatch):
    """The fills as they are drawn."""
    return draw_fills


@pytest.fixture(autouse=True)
def dull_fills(monkeypatch, fills):
    """Fills that cannot be taken for an object."""

    def grey(draws, black, tile_px):
        colour = np.full((len(black), 3), 90, np.uint8)
        return Fills(np.where(black, BLACK, ANY_COLOUR), colour, 0 * tile_px)

    monkeypatch.setattr("mirilla.batches.mosaic.draw_fills", grey)


@pytest.mark.parametrize("steps", GEOMETRY)
@pytest.mark.parametrize("letterbox", [True, False], ids=["letterbox", "squash"])
def test_boxes_move_with_their_pixels(steps, letterbox):
    scenes = [scene(i, i % 3) for i in range(30)]
    labelled = [replace(o, classes=np.array([i % 3])) for i, (_, o) in enumerate(scenes)]
    batches = batches_of(
        [p for p, _ in scenes],
        labelled,
        replace(SPEC, keep_aspect_ratio=letterbox),
        30,
        flips(),
        0,
        recipe=recipe_of(GEOMETRY[steps]),
    )
    seen = 0
    for step in range(3):
        made = arrays(batches.batch(step))
        assert made.boxes_yxyx.min() >= 0
        assert made.boxes_yxyx.max() <= 1
        for image, boxes, classes, valid, ignored in zip(
            made.images, made.boxes_yxyx, made.classes, made.valid, made.ignored, strict=True
        ):
            for colour in range(3):
                mine = boxes[(classes == colour) & (valid | ignored)] * 256
                found = coloured(image, colour)
                for top, left, bottom, right in mine:  # filled by the colour, and it ends where the box does
                    rows = slice(int(np.ceil(top + 1.5)), max(int(bottom - 1.5), 0))
                    inner = found[rows, int(np.ceil(left + 1.5)) : max(int(right - 1.5), 0)]
                    assert inner.all()
                    seen += inner.size > 0
                for top, left, bottom, right in mine:
                    rows = slice(max(round(top - 1.5), 0), round(bottom + 1.5))
                    found[rows, max(round(left - 1.5), 0) : round(right + 1.5)] = False
                assert not found.any()  # no object without its box, however little of it is left
    assert seen > 60


def test_without_a_recipe_none_of_its_steps_acts():
    assert input_recipe([]) is None
    picture, labelled = scene(1, 0)
    plain = arrays(batches_of([picture], [labelled], SPEC, 1, flips(), 3).batch(5))
    again = arrays(batches_of([picture], [labelled], SPEC, 1, flips(), 3, recipe=None, total_steps=10).batch(5))
    np.testing.assert_array_equal(plain.images, again.images)


def test_a_recipe_without_geometry_places_a_picture_as_the_resizer_does():
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8), (0, 0), 2)
    for letterbox in (True, False):
        spec = replace(SPEC, keep_aspect_ratio=letterbox)
        recipes = (None, recipe_of(GEOMETRY["none"]))
        made = [batches_of([picture], [objects()], spec, 1, (), 0, recipe=recipe) for recipe in recipes]
        exact, ours = (arrays(batches.batch(0)).images for batches in made)
        assert np.abs(exact.astype(int) - ours)[:, :191].max() <= 1


def test_batches_depend_on_seed_and_step_alone():
    scenes = [scene(i, i % 3) for i in range(12)]
    pictures, labelled, recipe = [p for p, _ in scenes], [o for _, o in scenes], recipe_of(EVERYTHING)
    made = [batches_of(pictures, labelled, SPEC, 6, flips(), seed, recipe=recipe) for seed in (4, 4, 5)]
    made[0].batch(0)
    first, resumed, other = (arrays(batches.batch(3)) for batches in made)
    np.testing.assert_array_equal(first.images, resumed.images)
    np.testing.assert_array_equal(first.boxes_yxyx, resumed.boxes_yxyx)
    np.testing.assert_array_equal(first.ignored, resumed.ignored)
    assert (first.images != other.images).any()


# ---- mosaic


def tones(*values):
    return [np.full((200, 300, 3), v, np.uint8) for v in values]


def test_a_mosaic_shows_four_pictures_that_meet_in_its_middle():
    batches = batches_of(
        tones(*range(100, 200)),
        [objects()] * 100,
        replace(SPEC, keep_aspect_ratio=False),
        20,
        (),
        0,
        recipe=InputRecipe(mosaic=Mosaic(1.0)),
    )
    for image in arrays(batches.batch(0)).images:
        pictures = image[..., 0] != 90
        corners = [image[0, 0], image[0, -1], image[-1, 0], image[-1, -1]]
        assert pictures.mean() > 0.3
        shown = set(np.unique(image[..., 0])) - {90}
        assert 3 <= len(shown) <= 4  # one may be drawn twice
        assert all(c[0] == c[1] == c[2] for c in corners)
        changes = [np.flatnonzero((np.diff(image[..., 0].astype(int), axis=a) != 0).any(1 - a)) + 1 for a in (0, 1)]
        assert all(any(0.29 * 256 <= c <= 0.71 * 256 for c in along) for along in changes)


def test_objects_that_a_tile_cuts_off_are_ignored():
    picture, labelled = np.full((256, 256, 3), 50, np.uint8), objects([[0.0, 0.0, 0.5, 1.0], [0.5, 0, 1, 1]])
    batches = batches_of([picture] * 4, [labelled] * 4, SPEC, 40, (), 0, recipe=InputRecipe(mosaic=Mosaic(1.0)))
    made = arrays(batches.batch(0))
    assert made.ignored.any()
    assert made.valid.any()
    examples = Shown(picture, labelled).examples

    def through_window(*window):
        return seen_through(examples, np.array([window], float), np.array([0.4]))

    through = through_window(64, 64, 256, 128)  # 64 of 128 rows, 128 of 256 columns: a quarter; then 3/8+
    np.testing.assert_allclose(through.boxes_yxyx, [[0, 0, 0.25, 1], [0.25, 0, 0.75, 1]])
    assert through.ignore.tolist() == [True, False]
    assert len(through_window(0, 0, 128, 256)) == 1


def test_no_mosaics_in_the_last_share():
    recipe = InputRecipe(mosaic=Mosaic(1.0, off_share=0.25))
    assert recipe.has_mosaics(np.arange(8), 8).tolist() == [True] * 6 + [False] * 2
    assert recipe.has_mosaics(np.array([10**9]), None).all()
    assert not InputRecipe().has_mosaics(np.arange(2), None).any()
    batches = batches_of(
        tones(60, 120, 180, 240),
        [objects()] * 4,
        replace(SPEC, keep_aspect_ratio=False),
        4,
        (),
        0,
        recipe=recipe,
        total_steps=8,
    )
    count = [max(len(np.unique(image)) for image in arrays(batches.batch(step)).images) for step in (5, 6)]
    assert count[0] > 1
    assert count[1] == 1


# ---- framing


def test_an_object_zoom_gives_objects_the_drawn_size():
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (400, 500, 3), np.uint8)
    batches = batches_of(
        [picture],
        [objects([[0.4, 0.4, 0.6, 0.56]])],
        SPEC,
        100,
        (),
        0,
        recipe=recipe_of("object_zoom { probability: 1 least_px: 40 most_px: 120 }"),
    )
    made = arrays(batches.batch(0))
    assert made.valid.all()  # an object that was chosen is not cut
    sides = np.sqrt((made.boxes_yxyx[:, 0, 2:] - made.boxes_yxyx[:, 0, :2]).prod(1)) * 256
    assert 39 < sides.min() < 45
    assert 105 < sides.max() < 121
    assert 45 < np.exp(np.log(sides).mean()) < 90


def test_an_object_zoom_does_not_enlarge_beyond_its_pixels():
    picture = np.zeros((400, 500, 3), np.uint8)
    batches = batches_of(
        [picture],
        [objects([[0.5, 0.5, 0.54, 0.532]])],
        SPEC,
        50,
        (),
        0,  # 16 x 16 px
        recipe=recipe_of("object_zoom { probability: 1 least_px: 100 most_px: 160 }"),
    )
    sides = (arrays(batches.batch(0)).boxes_yxyx[:, 0] @ [-1, 0, 1, 0]) * 256
    assert sides.max() < 2.5 * 16 * 1.02


def test_zoom_out_keeps_all_of_the_picture():
    picture = np.full((200, 300, 3), 200, np.uint8)
    batches = batches_of(
        [picture], [objects([[0, 0, 1, 1]])], SPEC, 50, (), 0, recipe=InputRecipe(zoom_out=ZoomOut(1.0, 2.0))
    )
    made = arrays(batches.batch(0))
    assert not made.ignored.any()
    size = (made.boxes_yxyx[:, 0, 2:] - made.boxes_yxyx[:, 0, :2]) * 256
    np.testing.assert_allclose(size[:, 1] / size[:, 0], 1.5, rtol=0.03)
    assert 127 < size[:, 1].min() < 150
    assert 230 < size[:, 1].max() < 257


def test_an_aspect_mix_letterboxes_and_squashes():
    picture = np.full((200, 400, 3), 200, np.uint8)
    batches = batches_of([picture], [objects([[0, 0, 1, 1]])], SPEC, 100, (), 0, recipe=recipe_of("aspect_mix {}"))
    boxes = arrays(batches.batch(0)).boxes_yxyx[:, 0]
    squashed = (np.abs(boxes - [0, 0, 1, 1]) < 0.01).all(1)
    assert 30 < squashed.sum() < 70
    ratio = (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0])
    assert (np.abs(np.log(ratio[~squashed] / 2)) < 0.16).all()
    at_top_left = (boxes[~squashed, :2] == 0).all(1)
    assert 0.25 < at_top_left.mean() < 0.75


def test_small_objects_are_ignored():
    edges = np.array([MIN_SIDE_PX - 0.2, MIN_SIDE_PX + 0.2]) / 256
    batches = batches_of(
        [np.zeros((256, 256, 3), np.uint8)],
        [objects([[0.1, 0.1, 0.1 + e, 0.1 + e] for e in edges])],
        SPEC,
        1,
        (),
        0,
        recipe=recipe_of(GEOMETRY["none"]),
    )
    assert arrays(batches.batch(0)).ignored.tolist() == [[True, False]]


# ---- drawing


def painted(shown, window, height, width):
    """A window of what an example shows, over all of an input; averaged where it shrinks, black around it."""
    one, zero = np.ones(1, bool), np.zeros(1, np.int64)
    black = Fills(zero + BLACK, np.zeros((1, 3), np.uint8), np.zeros((1, 2), np.int64))
    tiles = Tiles(zero, zero, np.array([[0, 0, height, width]]), np.array([window], float), one, black, centred=True)
    drawn = DrawnBatch(1, shown.examples, tiles, shown.examples.objects, None)
    return HostPainter(shown.pictures).paint(drawn, height, width)[0]


def test_shrinking_averages():
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    for size, deviation in ((128, 28), (64, 14)):
        field = painted(Shown(picture), (0, 0, 512, 512), size, size)
        assert field.astype(float).std() < deviation  # of single pixels: 74
        expected = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).astype(float)
        assert np.corrcoef(expected.ravel(), field.ravel())[0, 1] > 0.6


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [256, 60, 20])
def test_a_window_is_painted_as_by_exact_resampling(turned, upside_down, mirrored, side):
    rows, columns = np.mgrid[0:400, 0:480]
    picture = np.stack([rows / 2, columns / 2, 0 * rows], -1).astype(np.uint8)
    whole = Shown(picture)
    shown = whole.then(
        replace(
            whole.examples,
            window=np.array([[30, 50, 300, 400]]),
            turned=np.array([turned]),
            upside_down=np.array([upside_down]),
            mirrored=np.array([mirrored]),
        )
    )
    field = painted(shown, (0, 0, *shown.size_px), side, side)
    part = picture[30:330, 50:450]
    part = np.swapaxes(part, 0, 1) if turned else part
    part = part[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    exact = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
    lean = 400 / side / 4 + 2  # half an output pixel, at half a level per picture pixel
    assert np.abs(field.astype(int) - exact).max() <= lean


def test_examples_with_effects_become_new_pictures():
    text = "train_config { data_augmentation_options { random_pad_image {} } }"
    (pad,) = augmentations(config.loads(text).train_config.data_augmentation_options)
    shown = Shown(*scene(3, 1))
    assert in_bytes(shown.examples) is shown.examples
    padded = shown.after(pad, draws_of(0))
    made = padded.then(in_bytes(padded.examples))
    picture = HostPainter(shown.pictures).picture(made.examples, 0)
    assert picture.dtype == np.uint8
    assert picture.shape[:2] == made.size_px == padded.size_px
    np.testing.assert_array_equal(made.pixels(), padded.pixels())


def test_fills_are_distributed_as_documented(fills):
    """Mean colour 40 %, any colour 20 %, black 30 %, noise 10 %."""
    count = 4000
    shapes, labelled = np.array([[20, 20]]), objects()
    black = np.arange(2 * count) >= count
    drawn = fills(draws_of(0, 2 * count), black, np.full((2 * count, 2), 100))
    np.testing.assert_allclose(np.bincount(drawn.kind[~black], minlength=4) / count, [0.4, 0.2, 0.3, 0.1], atol=0.025)
    assert (drawn.kind[black] == BLACK).all()
    # as painted: the picture is nowhere in its tile
    picture = np.full((20, 20, 3), (200, 201, 202), np.uint8)
    examples = whole_pictures(shapes, labelled, np.zeros(count, np.int64))
    inputs, box = np.arange(count), np.tile([0, 0, 8, 8], (count, 1))
    window = np.tile([100.0, 100.0, 8.0, 8.0], (count, 1))
    only = Fills(drawn.kind[:count], drawn.colour[:count], drawn.noise_start[:count])
    tiles = Tiles(inputs, 0 * inputs, box, window, np.zeros(count, bool), only, centred=True)
    images = HostPainter(Pictures([picture])).paint(DrawnBatch(count, examples, tiles, labelled, None), 8, 8)
    noise = (images != images[:, :1, :1]).any((1, 2, 3))
    mean = (images == picture[0, 0]).all((1, 2, 3))
    dark = (images == 0).all((1, 2, 3))
    shares = [mean.mean(), 1 - (mean | dark | noise).mean(), dark.mean(), noise.mean()]
    np.testing.assert_allclose(shares, [0.4, 0.2, 0.3, 0.1], atol=0.025)


# ---- effects


def after_effects(effects, image, seed=0):
    return effects.draw(draws_of(seed), np.array(image.shape[:2])).paint(0, image)


def test_grey_has_three_equal_channels():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    result = after_effects(PhotoEffects(photometric=Photometric(1.0), grey=Grey(1.0)), image)
    assert (result == result[..., :1]).all()


def test_light_and_colour_at_no_strength_change_nothing():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    same = after_effects(PhotoEffects(photometric=Photometric(1.0, 0.0)), image)
    assert np.abs(same.astype(int) - image).max() <= 1
    other = after_effects(PhotoEffects(photometric=Photometric(1.0, 1.0)), image)
    assert np.abs(other.astype(int) - image).mean() > 3


def test_noise_has_the_deviation_that_was_drawn():
    image = np.full((256, 256, 3), 128, np.uint8)
    drawn = PhotoEffects(noise=Noise(1.0, 20)).draw(draws_of(0, 40), np.array([256, 256]))
    deviations = [(drawn.paint(row, image) - 128.0).std() for row in range(40)]
    np.testing.assert_allclose(deviations, drawn.stddev, atol=0.4)
    assert drawn.stddev.min() < 2
    assert 18 < drawn.stddev.max() < 20


def test_blur_noise_and_jpeg_keep_the_mean():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 4)
    recipe = recipe_of("blur { probability: 1 } noise { probability: 1 } jpeg_traces { probability: 1 }")
    assert recipe is not None
    for seed in range(10):
        result = after_effects(recipe.effects, image, seed)
        assert (result != image).any()
        np.testing.assert_allclose(result.mean((0, 1)), image.mean((0, 1)), atol=1)


@pytest.mark.parametrize("length", [0.5, 1, 3, 5.2])
@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2])
def test_motion_kernels(length, angle):
    kernel = motion_kernel(length / np.sqrt(12), angle)
    assert kernel.shape[0] % 2 == 1
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-6)
    if angle == 0:
        assert kernel[kernel.shape[0] // 2].sum() == pytest.approx(1)


def test_an_empty_step_is_refused():
    with pytest.raises(ConfigError, match=r"mirilla\.augmentation"):
        input_recipe(config.loads("mirilla { augmentation {} }").mirilla.augmentation)
