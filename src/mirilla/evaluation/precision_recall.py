"""Precision-recall curves and average precision, from scores and hits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def precision_recall(scores: NDArray, hits: NDArray[np.bool_], positives: int) -> tuple[NDArray, NDArray]:
    """Recall and precision (K,) after each detection, highest score first; equal scores keep their order.

    Args:
        scores: (K,).
        hits: (K,) bool: True for a right detection, False for a wrong one; leave out detections that are neither.
        positives: number of boxes that count; recall is NaN if it is 0.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    right = np.cumsum(np.asarray(hits, np.float64)[order])
    precision = right / np.arange(1, len(order) + 1)
    recall = right / positives if positives else np.full(len(order), np.nan)
    return recall, precision


def envelope(precision: NDArray) -> NDArray:
    """The maximum precision at this recall or any higher one, (K,)."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def average_precision(recall: NDArray, precision: NDArray) -> float:
    """Area under the interpolated curve over all points (Pascal VOC since 2010); NaN if recall is NaN."""
    if np.isnan(recall).any():
        return float("nan")
    steps = np.diff(recall, prepend=0.0)
    return float(np.sum(steps * envelope(precision)))


def average_precision_11(recall: NDArray, precision: NDArray) -> float:
    """Mean of the interpolated precision at recall 0, 0.1, ... 1 (Pascal VOC 2007); NaN if recall is NaN."""
    if np.isnan(recall).any():
        return float("nan")
    top = np.append(envelope(precision), 0.0)
    # a recall computed as 3/10 must reach the point 0.3 despite rounding
    at = np.searchsorted(recall, np.arange(11) / 10 - 1e-12, side="left")
    return float(top[at].mean())
