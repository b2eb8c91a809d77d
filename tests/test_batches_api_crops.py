"""`ssd_random_crop` against 4,000 draws of the original (seed-free: the distributions must be the same)."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_batches import draws_of, objects
from mirilla.batches.api_crops import CropSpec, RandomCrop, boxes_in_window
from mirilla.batches.draws import Draws
from mirilla.batches.examples import whole_pictures

scipy_stats = pytest.importorskip("scipy.stats")


def examples_of(boxes, size=(300, 400), count=1):
    return whole_pictures(np.array([size]), objects(boxes), np.zeros(count, np.int64))


@pytest.mark.parametrize("case", ["one", "three"])
def test_distribution_of_windows_and_boxes(shared, case):
    golden = np.load(shared / "data" / "odapi" / f"ssd_random_crop_dist_{case}.npz")
    windows = golden["windows_y_x_h_w"]
    key = next(k for k in golden.files if k in ("boxes", "gt", "groundtruth"))
    boxes = golden[key].reshape(-1, 4).astype(np.float64)
    made = RandomCrop()(draws_of(7, 4000), examples_of(boxes, count=4000))
    drawn = made.window.astype(float)
    kept = made.objects.counts(4000)
    side = np.maximum(made.objects.boxes_yxyx[:, 2:] - made.objects.boxes_yxyx[:, :2], 0)
    areas = side.prod(1)
    whole, whole_golden = (w[:, 2] * w[:, 3] == 120_000 for w in (drawn, windows))
    assert whole.mean() == pytest.approx(whole_golden.mean(), abs=0.03)

    def same(mine, theirs, what):
        # rounded, because float32 puts the many unchanged ones a hair below ours
        rounded = (np.round(np.asarray(a, np.float64), 5) for a in (mine, theirs))
        assert scipy_stats.ks_2samp(*rounded).pvalue > 1e-3, what

    same(drawn[:, 2] * drawn[:, 3], windows[:, 2] * windows[:, 3], "area")
    same(drawn[~whole, 3] / drawn[~whole, 2], windows[~whole_golden, 3] / windows[~whole_golden, 2], "aspect")
    same(drawn[:, 0], windows[:, 0], "top")
    same(drawn[:, 1], windows[:, 1], "left")
    same(kept, golden["num_kept"], "boxes kept")
    theirs = golden["kept_boxes"].reshape(-1, 4)
    theirs = theirs[~np.isnan(theirs[:, 0])]
    same(areas, (theirs[:, 2] - theirs[:, 0]) * (theirs[:, 3] - theirs[:, 1]), "area of the boxes kept")


def test_a_picture_is_cropped_the_same_beside_any_others():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.6, (12, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.05, 0.4, (12, 2))], 1)
    shapes = rng.integers(50, 500, (6, 2))
    labelled = objects(boxes)
    labelled.example[:] = np.sort(rng.integers(0, 6, 12))
    places = np.arange(60)
    whole = RandomCrop()(draws_of(3, 60), whole_pictures(shapes, labelled, places % 6))
    for i in places:
        alone = RandomCrop()(Draws(3, 0, places[i : i + 1]), whole_pictures(shapes, labelled, places[i : i + 1] % 6))
        np.testing.assert_array_equal(alone.window[0], whole.window[i])
        mine = whole.objects.take(whole.objects.example == i)
        np.testing.assert_array_equal(alone.objects.boxes_yxyx, mine.boxes_yxyx)


def test_boxes_are_dropped_by_share_and_clipped():
    boxes = np.array([[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [0.8, 0.8, 1.0, 1.0]])

    def seen(overlap_thresh, clip_boxes=True):
        window = np.array([[0.5, 0.5, 0.5, 0.5]])
        return boxes_in_window(objects(boxes), window, np.array([overlap_thresh]), np.array([clip_boxes]))

    moved, keep = seen(0.2)
    assert keep.tolist() == [False, True, True]
    np.testing.assert_allclose(moved[1], [0, 0, 0.2, 0.2])
    np.testing.assert_allclose(moved[2], [0.6, 0.6, 1, 1])
    assert seen(0.3)[1].tolist() == [False, False, True]
    np.testing.assert_allclose(seen(0, False)[0][1], [-0.2, -0.2, 0.2, 0.2])


def test_impossible_conditions_leave_the_picture_whole():
    spec = CropSpec(1.0, 1.0, area=(0.1, 0.2), random_coef=0.0)
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    made = RandomCrop((spec,))(draws_of(0), examples_of(box, (100, 100)))
    assert made.window.tolist() == [[0, 0, 100, 100]]
    np.testing.assert_array_equal(made.objects.boxes_yxyx, box)


@pytest.mark.parametrize("size", [(3, 500), (500, 3), (1, 1), (40, 40)])
def test_windows_stay_inside(size):
    made = RandomCrop()(draws_of(3, 200), examples_of([], size, 200))
    top, left, height, width = made.window.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert ((height > 0) & (height <= size[0] - top)).all()
    assert ((width > 0) & (width <= size[1] - left)).all()
