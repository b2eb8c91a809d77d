"""Training batches: the same for the same step, every picture once per epoch, boxes where the pixels are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("torch")

from helpers_batches import Fixed, Pictures, arrays, batches_of, objects
from mirilla import resize
from mirilla.batches import api_geometry as geometry
from mirilla.batches.api_crops import RandomCrop
from mirilla.batches.dataset import objects_of
from mirilla.batches.host_batches import Batches
from mirilla.data.sample import Sample
from mirilla.errors import DataError
from mirilla.model.spec import ModelSpec

SQUASH = ModelSpec()
LETTERBOX = ModelSpec(keep_aspect_ratio=True)
STEPS = (geometry.horizontal_flip, geometry.rotation90, RandomCrop())


def always_mirrored(draws, examples):
    return geometry.horizontal_flip(Fixed(0.9, count=len(examples)), examples)


def picture_with_square(height, width, box_px):
    """Dark, with a bright rectangle [top, left, bottom, right] in pixels."""
    picture = np.full((height, width, 3), 20, np.uint8)
    top, left, bottom, right = box_px
    picture[top:bottom, left:right] = 230
    return picture


@pytest.mark.parametrize("spec", [SQUASH, LETTERBOX], ids=["squash", "letterbox"])
@pytest.mark.parametrize("size", [(300, 400), (256, 256), (97, 411), (640, 480)])
def test_pixels_are_those_that_the_detector_sees(spec, size):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    (image,) = arrays(batches_of([picture], [objects()], spec, 1, (), seed=0).batch(0)).images
    exact, _ = resize.to_input(picture, 256, 256, keep_aspect_ratio=spec.keep_aspect_ratio)
    difference = np.abs(image - (exact + 1) / (2 / 255))
    assert difference.mean() < 1.5  # OpenCV's sample positions are rounded to 1/32 of a pixel; noise is the worst case
    assert np.quantile(difference, 0.999) < 9


@pytest.mark.parametrize("spec", [SQUASH, LETTERBOX], ids=["squash", "letterbox"])
@pytest.mark.parametrize("mirrored", [False, True])
def test_boxes_are_where_the_object_is(spec, mirrored):
    picture = picture_with_square(300, 400, (60, 80, 120, 200))
    steps = (always_mirrored,) if mirrored else ()
    made = arrays(batches_of([picture], [objects([[0.2, 0.2, 0.4, 0.5]])], spec, 1, steps, 0).batch(0))
    (image,), (boxes,) = made.images, made.boxes_yxyx
    rows, columns = np.nonzero(image[..., 0] > 125)
    seen = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / 256
    np.testing.assert_allclose(boxes[0], seen, atol=2 / 256)
    if spec is SQUASH:
        expected = [0.2, 0.5, 0.4, 0.8] if mirrored else [0.2, 0.2, 0.4, 0.5]
        np.testing.assert_allclose(boxes[0], expected, atol=1e-7)


def test_every_picture_once_per_epoch_in_an_order_of_its_own():
    batches = batches_of([np.zeros((8, 8, 3), np.uint8)] * 10, [objects()] * 10, SQUASH, 4, (), seed=3)
    seen = [i for step in range(5) for i in batches.indices(step)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    again = batches_of([np.zeros((8, 8, 3), np.uint8)] * 10, [objects()] * 10, SQUASH, 4, (), seed=3)
    assert again.indices(4) == seen[16:]
    plain = batches_of([np.zeros((8, 8, 3), np.uint8)] * 10, [objects()] * 10, SQUASH, 4, (), seed=3, shuffle=False)
    assert plain.indices(2) == [8, 9, 0, 1]


def test_a_batch_depends_on_its_step_alone():
    rng = np.random.default_rng(5)
    shots = [rng.integers(0, 256, (60, 90, 3)).astype(np.uint8) for _ in range(6)]
    made = [batches_of(shots, [objects([[0.1, 0.1, 0.6, 0.6]])] * 6, SQUASH, 4, STEPS, 1) for _ in range(2)]
    streamed = list(itertools.islice(made[0].stream(2, 5), 3))
    for step, batch in enumerate(map(arrays, streamed), start=2):
        again = arrays(made[1].batch(step))
        np.testing.assert_array_equal(batch.images, again.images)
        np.testing.assert_array_equal(batch.boxes_yxyx, again.boxes_yxyx)


def test_a_part_of_a_batch_is_the_same_in_another_process():
    rng = np.random.default_rng(5)
    shots = [rng.integers(0, 256, (60, 90, 3)).astype(np.uint8) for _ in range(6)]
    labelled = [objects([[0.1, 0.1, 0.6, 0.6]])] * 6
    whole = arrays(batches_of(shots, labelled, SQUASH, 5, STEPS, 1).batch(7))
    part = arrays(batches_of(shots, labelled, SQUASH, 5, STEPS, 1, part=slice(2, 5)).batch(7))
    np.testing.assert_array_equal(part.images, whole.images[2:])
    np.testing.assert_array_equal(part.boxes_yxyx, whole.boxes_yxyx[2:])


def test_batches_are_padded():
    labelled = [objects(), objects([[0, 0, 1, 1], [0.2, 0.2, 0.3, 0.3]], ignore=[False, True])]
    pictures = [np.zeros((8, 8, 3), np.uint8)] * 2
    made = arrays(batches_of(pictures, labelled, SQUASH, 2, (), 0, shuffle=False).batch(0))
    assert made.boxes_yxyx.shape == (2, 2, 4)
    assert made.valid.tolist() == [[False, False], [True, False]]
    assert made.ignored.tolist() == [[False, False], [False, True]]


def test_an_error_in_the_thread_reaches_the_loop():
    class Broken(Pictures):
        def __getitem__(self, i):
            raise DataError("picture 3 is broken")

    with pytest.raises(DataError, match="picture 3"):
        next(Batches(Broken([np.zeros((8, 8, 3))]), objects(), SQUASH, 1, (), 0).stream(0))


def test_objects_are_cut_at_the_picture_and_empty_ones_left_out():
    boxes = np.array([[-0.1, 0.5, 0.2, 1.3], [0.4, 0.4, 0.4, 0.6], [0.9, 0.9, 0.8, 1.0]])
    sample = Sample(b"", "a.jpg", 10, 10, boxes, ("face",) * 3)
    kept = objects_of(sample, {"face": 0})
    np.testing.assert_allclose(kept.boxes_yxyx, [[0, 0.5, 0.2, 1.0]])
    with pytest.raises(DataError, match=r"'face' is not in the label map"):
        objects_of(sample, {"cat": 0})
