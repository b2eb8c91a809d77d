"""The training input of mirilla.augmentation: boxes stay on their objects, whatever happens to the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from mirilla import config
from mirilla.batches.augment import augmentations
from mirilla.batches.example import Orientation, View, whole
from mirilla.batches.framing import ZoomOut, seen_through
from mirilla.batches.input import Batches, Objects
from mirilla.batches.mosaic import LEAST_SIDE_PX, InputRecipe, Mosaic, input_recipe
from mirilla.batches.paint import Fill, draw, drawable
from mirilla.batches.photo_effects import Finish, Grey, Noise, Photometric, motion_kernel
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


def objects(boxes, ignore=None):
    count = len(boxes)
    return Objects(
        np.array(boxes, float).reshape(-1, 4),
        np.zeros(count, np.int64),
        np.ones(count),
        np.zeros(count, bool) if ignore is None else np.array(ignore),
    )


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


@pytest.fixture(autouse=True)
def dull_fills(monkeypatch):
    """Fills that cannot be taken for an object."""
    monkeypatch.setattr(Fill, "random", classmethod(lambda cls, rng, view: cls((90, 90, 90))))


@pytest.mark.parametrize("steps", GEOMETRY)
@pytest.mark.parametrize("letterbox", [True, False], ids=["letterbox", "squash"])
def test_boxes_move_with_their_pixels(steps, letterbox):
    scenes = [scene(i, i % 3) for i in range(30)]
    labelled = [replace(o, classes=np.array([i % 3])) for i, (_, o) in enumerate(scenes)]
    batches = Batches(
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
        arrays = batches.batch(step)
        assert arrays.boxes_yxyx.min() >= 0
        assert arrays.boxes_yxyx.max() <= 1
        for image, boxes, classes, valid, ignored in zip(
            arrays.images, arrays.boxes_yxyx, arrays.classes, arrays.valid, arrays.ignored, strict=True
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


def test_without_ours_nothing_of_it_acts():
    assert input_recipe([]) is None
    picture, labelled = scene(1, 0)
    plain = Batches([picture], [labelled], SPEC, 1, flips(), 3).batch(5)
    again = Batches([picture], [labelled], SPEC, 1, flips(), 3, recipe=None, total_steps=10).batch(5)
    np.testing.assert_array_equal(plain.images, again.images)


def test_a_recipe_that_does_not_move_anything_lays_a_picture_as_the_resizer_does():
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8), (0, 0), 2)
    for letterbox in (True, False):
        spec = replace(SPEC, keep_aspect_ratio=letterbox)
        exact = Batches([picture], [objects([])], spec, 1, (), 0).batch(0).images
        ours = Batches([picture], [objects([])], spec, 1, (), 0, recipe=recipe_of(GEOMETRY["none"])).batch(0).images
        assert np.abs(exact.astype(int) - ours)[:, :191].max() <= 1


def test_batches_depend_on_seed_and_step_alone():
    scenes = [scene(i, i % 3) for i in range(12)]
    pictures, labelled, recipe = [p for p, _ in scenes], [o for _, o in scenes], recipe_of(EVERYTHING)
    made = [Batches(pictures, labelled, SPEC, 6, flips(), seed, recipe=recipe) for seed in (4, 4, 5)]
    made[0].batch(0)
    first, resumed, other = (b.batch(3) for b in made)
    np.testing.assert_array_equal(first.images, resumed.images)
    np.testing.assert_array_equal(first.boxes_yxyx, resumed.boxes_yxyx)
    np.testing.assert_array_equal(first.ignored, resumed.ignored)
    assert (first.images != other.images).any()


# ---- mosaic


def tones(*values):
    return [np.full((200, 300, 3), v, np.uint8) for v in values]


def test_a_mosaic_shows_four_pictures_that_meet_in_its_middle():
    batches = Batches(
        tones(*range(100, 200)),
        [objects([])] * 100,
        replace(SPEC, keep_aspect_ratio=False),
        20,
        (),
        0,
        recipe=InputRecipe(mosaic=Mosaic(1.0)),
    )
    for image in batches.batch(0).images:
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
    batches = Batches([picture] * 4, [labelled] * 4, SPEC, 40, (), 0, recipe=InputRecipe(mosaic=Mosaic(1.0)))
    arrays = batches.batch(0)
    assert arrays.ignored.any()
    assert arrays.valid.any()
    view = whole(picture, labelled.boxes_yxyx, labelled.classes, labelled.weights, labelled.ignore)
    through = seen_through(view, (64, 64, 256, 128), 0.4)  # 64 of 128 rows, 128 of 256 columns: a quarter; then 3/8+
    np.testing.assert_allclose(through.boxes_yxyx, [[0, 0, 0.25, 1], [0.25, 0, 0.75, 1]])
    assert through.ignore.tolist() == [True, False]
    assert len(seen_through(view, (0, 0, 128, 256), 0.4).classes) == 1


def test_no_mosaics_in_the_last_share():
    recipe = InputRecipe(mosaic=Mosaic(1.0, off_share=0.25))
    assert [recipe.has_mosaics(step, 8) for step in range(8)] == [True] * 6 + [False] * 2
    assert recipe.has_mosaics(10**9, None)
    assert not InputRecipe().has_mosaics(0, None)
    batches = Batches(
        tones(60, 120, 180, 240),
        [objects([])] * 4,
        replace(SPEC, keep_aspect_ratio=False),
        4,
        (),
        0,
        recipe=recipe,
        total_steps=8,
    )
    count = [max(len(np.unique(image)) for image in batches.batch(step).images) for step in (5, 6)]
    assert count[0] > 1
    assert count[1] == 1


# ---- framing


def test_an_object_zoom_gives_objects_the_wanted_size():
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (400, 500, 3), np.uint8)
    batches = Batches(
        [picture],
        [objects([[0.4, 0.4, 0.6, 0.56]])],
        SPEC,
        100,
        (),
        0,
        recipe=recipe_of("object_zoom { probability: 1 least_px: 40 most_px: 120 }"),
    )
    arrays = batches.batch(0)
    assert arrays.valid.all()  # an object that was chosen is not cut
    sides = np.sqrt((arrays.boxes_yxyx[:, 0, 2:] - arrays.boxes_yxyx[:, 0, :2]).prod(1)) * 256
    assert 39 < sides.min() < 45
    assert 105 < sides.max() < 121
    assert 45 < np.exp(np.log(sides).mean()) < 90


def test_an_object_zoom_does_not_enlarge_beyond_its_pixels():
    picture = np.zeros((400, 500, 3), np.uint8)
    batches = Batches(
        [picture],
        [objects([[0.5, 0.5, 0.54, 0.532]])],
        SPEC,
        50,
        (),
        0,  # 16 x 16 px
        recipe=recipe_of("object_zoom { probability: 1 least_px: 100 most_px: 160 }"),
    )
    sides = (batches.batch(0).boxes_yxyx[:, 0] @ [-1, 0, 1, 0]) * 256
    assert sides.max() < 2.5 * 16 * 1.02


def test_zoom_out_keeps_all_of_the_picture():
    picture = np.full((200, 300, 3), 200, np.uint8)
    batches = Batches(
        [picture], [objects([[0, 0, 1, 1]])], SPEC, 50, (), 0, recipe=InputRecipe(zoom_out=ZoomOut(1.0, 2.0))
    )
    arrays = batches.batch(0)
    assert not arrays.ignored.any()
    size = (arrays.boxes_yxyx[:, 0, 2:] - arrays.boxes_yxyx[:, 0, :2]) * 256
    np.testing.assert_allclose(size[:, 1] / size[:, 0], 1.5, rtol=0.03)
    assert 127 < size[:, 1].min() < 150
    assert 230 < size[:, 1].max() < 257


def test_an_aspect_mix_letterboxes_and_squashes():
    picture = np.full((200, 400, 3), 200, np.uint8)
    batches = Batches([picture], [objects([[0, 0, 1, 1]])], SPEC, 100, (), 0, recipe=recipe_of("aspect_mix {}"))
    boxes = batches.batch(0).boxes_yxyx[:, 0]
    squashed = (np.abs(boxes - [0, 0, 1, 1]) < 0.01).all(1)
    assert 30 < squashed.sum() < 70
    ratio = (boxes[:, 3] - boxes[:, 1]) / (boxes[:, 2] - boxes[:, 0])
    assert (np.abs(np.log(ratio[~squashed] / 2)) < 0.16).all()
    at_top_left = (boxes[~squashed, :2] == 0).all(1)
    assert 0.25 < at_top_left.mean() < 0.75


def test_small_objects_are_ignored():
    edges = np.array([LEAST_SIDE_PX - 0.2, LEAST_SIDE_PX + 0.2]) / 256
    batches = Batches(
        [np.zeros((256, 256, 3), np.uint8)],
        [objects([[0.1, 0.1, 0.1 + e, 0.1 + e] for e in edges])],
        SPEC,
        1,
        (),
        0,
        recipe=recipe_of(GEOMETRY["none"]),
    )
    assert batches.batch(0).ignored.tolist() == [[True, False]]


# ---- drawing


def test_drawing_averages_what_it_shrinks():
    picture = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    view = whole(picture, np.zeros((0, 4)), np.zeros(0, int), np.zeros(0), np.zeros(0, bool))
    for size, deviation in ((128, 28), (64, 14)):
        field = np.empty((size, size, 3), np.uint8)
        draw(view, (0, 0, 512, 512), field, Fill())
        assert field.astype(float).std() < deviation  # of single pixels: 74
        expected = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA).astype(float)
        assert np.corrcoef(expected.ravel(), field.ravel())[0, 1] > 0.6


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("upside_down", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [256, 60, 20])
def test_drawing_lays_a_window_as_the_exact_resampling_does(turned, upside_down, mirrored, side):
    rows, columns = np.mgrid[0:400, 0:480]
    picture = np.stack([rows / 2, columns / 2, 0 * rows], -1).astype(np.uint8)
    view = View(
        picture,
        (30, 50, 300, 400),
        np.zeros((0, 4)),
        np.zeros(0, int),
        np.zeros(0),
        np.zeros(0, bool),
        Orientation(turned, upside_down, mirrored),
    )
    field = np.empty((side, side, 3), np.uint8)
    draw(view, (0, 0, *view.size_px), field, Fill())
    part = view.picture[30:330, 50:450]
    part = np.swapaxes(part, 0, 1) if turned else part
    part = part[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    exact = cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA)
    lean = 400 / side / 4 + 2  # half an output pixel, at half a level per picture pixel
    assert np.abs(field.astype(int) - exact).max() <= lean


def test_views_with_effects_are_made_drawable():
    text = "train_config { data_augmentation_options { random_pad_image {} } }"
    (pad,) = augmentations(config.loads(text).train_config.data_augmentation_options)
    picture, labelled = scene(3, 1)
    view = whole(picture, labelled.boxes_yxyx, labelled.classes, labelled.weights, labelled.ignore)
    assert drawable(view) is view
    padded = drawable(pad(np.random.default_rng(0), view))
    assert padded.picture.dtype == np.uint8
    assert padded.picture.shape[:2] == padded.size_px


# ---- finish


def test_grey_has_three_equal_channels():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    result = Finish(photometric=Photometric(1.0), grey=Grey(1.0))(np.random.default_rng(0), image)
    assert (result == result[..., :1]).all()


def test_light_and_colour_at_no_strength_change_nothing():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    same = Finish(photometric=Photometric(1.0, 0.0))(np.random.default_rng(0), image)
    assert np.abs(same.astype(int) - image).max() <= 1
    other = Finish(photometric=Photometric(1.0, 1.0))(np.random.default_rng(0), image)
    assert np.abs(other.astype(int) - image).mean() > 3


def test_noise_has_the_deviation_that_was_drawn():
    image = np.full((256, 256, 3), 128, np.uint8)
    deviations = [(Noise(1.0, 20)(np.random.default_rng(seed), image) - 128.0).std() for seed in range(40)]
    drawn = [np.random.default_rng(seed).uniform(0, 20) for seed in range(40)]
    np.testing.assert_allclose(deviations, drawn, atol=0.4)


def test_blur_noise_and_jpeg_keep_the_mean():
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8), (0, 0), 4)
    recipe = recipe_of("blur { probability: 1 } noise { probability: 1 } jpeg_traces { probability: 1 }")
    assert recipe is not None
    for seed in range(10):
        result = recipe.finish(np.random.default_rng(seed), image)
        assert (result != image).any()
        np.testing.assert_allclose(result.mean((0, 1)), image.mean((0, 1)), atol=1)


@pytest.mark.parametrize("length", [0.5, 1, 3, 5.2])
@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 2])
def test_motion_kernels(length, angle):
    kernel = motion_kernel(length, angle)
    assert kernel.shape[0] % 2 == 1
    np.testing.assert_allclose(kernel.sum(), 1, rtol=1e-6)
    if angle == 0:
        assert kernel[kernel.shape[0] // 2].sum() == pytest.approx(1)


def test_an_empty_step_is_refused():
    with pytest.raises(ConfigError, match=r"mirilla\.augmentation"):
        input_recipe(config.loads("mirilla { augmentation {} }").mirilla.augmentation)
