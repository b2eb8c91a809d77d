"""The windows of tiles: their distribution is that of framing one picture after the other."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_batches import draws_of, objects
from mirilla.batches.examples import whole_pictures
from mirilla.batches.framing import AspectMix, Framing, ObjectZoom, ZoomOut
from reference_framing import window_of

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("boxes", [[[0.3, 0.35, 0.5, 0.5]], [[0.0, 0.1, 0.03, 0.12], [0.2, 0.3, 0.9, 0.95]], []])
@pytest.mark.parametrize(("tile_px", "is_part"), [((128, 128), False), ((50, 70), True)])
@pytest.mark.parametrize("mixed", [True, False])
def test_windows_are_distributed_as_one_by_one(boxes, tile_px, is_part, mixed):
    count, size_px = 3000, (180, 260)
    settings = Framing((128, 128), not mixed, ObjectZoom(0.5), ZoomOut(0.5), AspectMix(0.5) if mixed else None)
    rng = np.random.default_rng(1)
    theirs = np.array(
        [window_of(settings, rng, np.array(boxes), size_px, tile_px, is_part) for _ in range(count)], float
    )
    examples = whole_pictures(np.array([size_px]), objects(boxes), np.zeros(count, np.int64))
    windows, _ = settings(draws_of(0, count), examples, np.tile(tile_px, (count, 1)), np.full(count, is_part))
    for i, name in enumerate(("top", "left", "height", "width")):
        assert scipy_stats.ks_2samp(windows[:, i], theirs[:, i]).pvalue > 1e-3, name
