"""Bootstrap over photos: how much a metric would change with other photos of the same kind.

A resample draws as many photos as there are, with replacement, and its AP is computed from their stored matches.
Drawing a photo w times is the same as counting each of its detections and faces w times, so a resample is a row of
weights, and all resamples are computed with two matrix products. Two models measured on the same photos with the same
weights give the interval of their difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirilla.evaluation.faces import Matched

Floats = NDArray[np.float64]
SHARE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and the range of 95 % of the resamples."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def weights(photos: int, count: int = 1000, seed: int = 0) -> NDArray[np.int64]:
    """How often each photo is drawn, (count, photos)."""
    return np.random.default_rng(seed).multinomial(photos, np.full(photos, 1 / photos), size=count)


def average_precisions(matches: Sequence[Matched], drawn: NDArray) -> Floats:
    """All-point AP of each resample (R,).

    Args:
        matches: one entry per photo, at one bound.
        drawn: (R, photos), weights of the photos; a row of ones gives the AP itself.
    """
    photo = np.concatenate([np.full(int(m.counts.sum()), i) for i, m in enumerate(matches)])
    scores = np.concatenate([m.scores[m.counts] for m in matches])
    right = np.concatenate([m.right[m.counts] for m in matches])
    order = np.argsort(-scores, kind="stable")
    photo, right = photo[order], right[order]
    hits = np.flatnonzero(right)  # recall and the envelope change at true positives only
    # before[p, k]: detections of photo p that score at least as high as the k-th hit
    before = np.stack([np.searchsorted(np.flatnonzero(photo == p), hits, "right") for p in range(len(matches))])
    drawn = np.asarray(drawn, np.float64)
    share = drawn[:, photo[hits]]  # (R, H): weight of each hit
    seen = drawn @ before.astype(np.float64)
    precision = np.cumsum(share, 1) / np.maximum(seen, 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    positives = drawn @ np.array([m.positives for m in matches], np.float64)
    with np.errstate(invalid="ignore"):
        return (share * envelope).sum(1) / positives


def interval(value: float, resampled: Floats) -> Interval:
    """The value and the central 95 % interval of the resamples."""
    low, high = np.nanquantile(resampled, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float(value), float(low), float(high))
