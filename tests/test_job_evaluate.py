"""The score threshold and the example pictures of a measured detector."""

from __future__ import annotations

import numpy as np

from mirilla.data import read_dataset
from mirilla.detections import Detections
from mirilla.evaluation.threshold import best_threshold
from mirilla.job.export import choose_examples
from mirilla.toy import dataset as toy


def test_best_threshold_separates_right_from_wrong(tmp_path):
    toy_set = toy.write(tmp_path / "toy", train=6, val=6, seed=5)
    samples = [s for s in read_dataset(toy_set).samples if (~s.ignore).any()][:6]
    found = []
    for sample in samples:
        box = sample.boxes_yxyx[~sample.ignore][:1]
        far = np.array([[0.0, 0.0, 0.01, 0.01]])
        found.append(
            Detections(
                np.concatenate([box, far]).astype(np.float32),
                np.array([0.8, 0.4], np.float32),
                np.array([1, 1]),
            )
        )
    assert best_threshold(samples, found, {1: "face"}) == 0.8
    assert best_threshold(samples, [Detections.none()] * len(samples), {1: "face"}) == 0.5
    assert len(choose_examples(samples, 4)) == 4
