"""`ssd_random_crop` against 4,000 draws of the original (seed-free: the distributions must be the same)."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.batches.crop import SSD_CROPS, CropSpec, boxes_in_window, draw_crop, sample_window

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("case", ["one", "three"])
def test_distribution_of_windows_and_boxes(shared, case):
    golden = np.load(shared / "data" / "odapi" / f"ssd_random_crop_dist_{case}.npz")
    windows = golden["windows_y_x_h_w"]
    key = next(k for k in golden.files if k in ("boxes", "gt", "groundtruth"))
    boxes = golden[key].reshape(-1, 4).astype(np.float64)
    rng = np.random.default_rng(7)
    drawn, kept, areas = [], [], []
    for _ in range(4000):
        window, moved, keep = draw_crop(rng, 300, 400, boxes)
        drawn.append(window)
        kept.append(int(keep.sum()))
        side = np.maximum(moved[keep][:, 2:] - moved[keep][:, :2], 0)
        areas.extend(side.prod(1))
    drawn = np.array(drawn, float)
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
    same(np.array(kept), golden["num_kept"], "boxes kept")
    theirs = golden["kept_boxes"].reshape(-1, 4)
    theirs = theirs[~np.isnan(theirs[:, 0])]
    same(np.array(areas), (theirs[:, 2] - theirs[:, 0]) * (theirs[:, 3] - theirs[:, 1]), "area of the boxes kept")


def test_boxes_are_dropped_by_share_and_clipped():
    boxes = np.array([[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [0.8, 0.8, 1.0, 1.0]])
    window = np.array([0.5, 0.5, 1.0, 1.0])
    moved, keep = boxes_in_window(boxes, window, CropSpec(0, 0.2))
    assert keep.tolist() == [False, True, True]
    np.testing.assert_allclose(moved[1], [0, 0, 0.2, 0.2])
    np.testing.assert_allclose(moved[2], [0.6, 0.6, 1, 1])
    assert boxes_in_window(boxes, window, CropSpec(0, 0.3))[1].tolist() == [False, False, True]
    free, _ = boxes_in_window(boxes, window, CropSpec(0, 0, clip_boxes=False))
    np.testing.assert_allclose(free[1], [-0.2, -0.2, 0.2, 0.2])


def test_impossible_wishes_leave_the_picture_whole():
    spec = CropSpec(1.0, 1.0, area=(0.1, 0.2), random_coef=0.0)
    box = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert sample_window(np.random.default_rng(0), 100, 100, box, spec) is None
    window, moved, keep = draw_crop(np.random.default_rng(0), 100, 100, box, (spec,))
    assert window == (0, 0, 100, 100)
    assert keep.all()
    np.testing.assert_array_equal(moved, box)


@pytest.mark.parametrize("size", [(3, 500), (500, 3), (1, 1), (40, 40)])
def test_windows_stay_inside(size):
    rng = np.random.default_rng(3)
    for _ in range(200):
        (top, left, height, width), _, _ = draw_crop(rng, *size, np.zeros((0, 4)), SSD_CROPS)
        assert top >= 0
        assert left >= 0
        assert 0 < height <= size[0] - top
        assert 0 < width <= size[1] - left
