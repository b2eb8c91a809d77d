"""The ranges of a network's tensors on calibration pictures, from which the scales of 8-bit integers follow.

Three ways to choose a range are tried: the smallest and largest value, the values between which 99.99 % lie, and the
range with the smallest mean square error. The one whose rounded network's detections differ least from those of the
network itself is taken (`mirilla.targets.tflite.simulate`).

Tensors that an operator requires to share a scale (inputs and output of a concatenation, a reshape or a pool) form a
group with one range. Box codes only count where an anchor's score is at least COUNTED_SCORE: all others are dropped
anyway, and their codes would widen the range. Of several ranges for them, the one that moves boxes least is taken.
Logits are cut where their sigmoid reaches a score's last level.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mirilla.graph import deploy
from mirilla.graph.deploy import DeployGraph
from mirilla.graph.reference import Runner
from mirilla.model.spec import INPUT_SCALE
from mirilla.targets.tflite.head import COUNTED_SCORE, Head, paired_iou

LEVELS = 255
LOGIT_LIMIT = 7.0  # sigmoid(7) is 0.9991: beyond the last level of a score, 255 / 256
_BINS = 2048
_CODE_SCORES = (COUNTED_SCORE, 0.2, 0.3)  # box codes of anchors with at least these scores ...
_CODE_SHARES = (1.0, 0.9998, 0.999, 0.998, 0.995, 0.99, 0.98)  # ... of which these shares are inside the range
_DEAD_SCALE = 1e-7
_SHARED = (deploy.Reshape, deploy.Concat, deploy.Pool, deploy.Pad)

Range = tuple[float, float]
Counted = tuple[np.ndarray, np.ndarray, np.ndarray]  # codes (K, 4), scores (K,), numbers of anchors (K,)


@dataclass(frozen=True)
class Scale:
    """real = scale * (q - zero_point), for q from -128 to 127."""

    scale: float
    zero_point: int

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The nearest values that integers can stand for, float32."""
        q = np.clip(np.rint(values / np.float32(self.scale)) + self.zero_point, -128, 127)
        return ((q - self.zero_point) * np.float32(self.scale)).astype(np.float32)


# of photos' bytes minus 128, normalised; the half level that is missing goes into the first layers' bias
INPUT = Scale(INPUT_SCALE, 0)
INPUT_SHIFT = INPUT_SCALE / 2
SCORE = Scale(1 / 256, -128)  # the scale that TensorFlow Lite prescribes for sigmoid and softmax


def scale_of(low: float, high: float) -> Scale:
    """The scale of a range, widened to contain zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / LEVELS
    if scale < _DEAD_SCALE:  # the layer is dead; the reciprocal of its scale would overflow a runtime's integers
        scale = 1 / LEVELS
    return Scale(float(np.float32(scale)), int(np.clip(round(-128 - low / scale), -128, 127)))


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often the values of a group of tensors lie in each of equal bins between `low` and `high`."""

    low: float
    high: float
    counts: np.ndarray  # (bins,)

    @property
    def centres(self) -> np.ndarray:
        edges = np.linspace(self.low, self.high, len(self.counts) + 1)
        return (edges[1:] + edges[:-1]) / 2


def extremes(histogram: Histogram) -> Range:
    """The smallest and largest value."""
    return histogram.low, histogram.high


def percentile(histogram: Histogram, share: float = 0.9999) -> Range:
    """The values that cut off (1 - share) / 2 at each side; zeros, of which ReLU makes many, are not counted."""
    centres = histogram.centres
    counts = np.where(np.abs(centres) > (histogram.high - histogram.low) / len(centres), histogram.counts, 0)
    total = np.cumsum(counts) / max(counts.sum(), 1)
    cut = (1 - share) / 2
    low = centres[min(int(np.searchsorted(total, cut)), len(centres) - 1)]
    high = centres[min(int(np.searchsorted(total, 1 - cut)), len(centres) - 1)]
    return (float(low) if histogram.low < 0 else 0.0), float(high)


def least_squares(histogram: Histogram) -> Range:
    """The range, shrunk in steps of 2 % to half, with the smallest mean square error of rounding and clipping."""
    best, chosen = np.inf, extremes(histogram)
    centres = histogram.centres.astype(np.float32)
    for shrink in np.arange(1.0, 0.49, -0.02):
        low, high = histogram.low * shrink, histogram.high * shrink
        error = float((histogram.counts * (scale_of(low, high).rounded(centres) - centres) ** 2).sum())
        if error < best:
            best, chosen = error, (low, high)
    return chosen


METHODS: Mapping[str, Callable[[Histogram], Range]] = {
    "extremes": extremes,
    "percentile": percentile,
    "least squares": least_squares,
}


@dataclass(frozen=True, eq=False)
class Observed:
    """What calibration pictures show of a graph.

    groups: tensor -> the group that shares its scale, named by one of its tensors.
    histograms: group -> its values; without the groups of codes and logits.
    means: tensor -> mean of each channel, for the correction of biases.
    codes, logits: ranges of the two outputs.
    """

    groups: Mapping[str, str]
    histograms: Mapping[str, Histogram]
    means: Mapping[str, np.ndarray]
    codes: Range
    logits: Range


def observe(graph: DeployGraph, pictures: np.ndarray, head: Head) -> Observed:
    """Run pictures (N, height, width, 3) float32, normalised, through a graph whose outputs are codes and logits."""
    groups = shared_scales(graph)
    runner = Runner(graph)
    codes_name, logits_name = graph.outputs
    limits: dict[str, list[float]] = {}
    sums: dict[str, np.ndarray] = {}
    counted: list[Counted] = []
    logits: list[float] = []
    for picture in pictures:
        tensors = runner.activations(picture)
        for name, values in tensors.items():
            group = limits.setdefault(groups[name], [0.0, 0.0])
            group[0], group[1] = min(group[0], float(values.min())), max(group[1], float(values.max()))
            mean = values.reshape(-1, values.shape[-1]).mean(0)
            sums[name] = sums.get(name, np.zeros_like(mean)) + mean / len(pictures)
        scores = head.scores(tensors[logits_name])
        anchors = np.flatnonzero(scores >= COUNTED_SCORE)
        counted.append((tensors[codes_name][anchors], scores[anchors], anchors))
        logits += [float(tensors[logits_name].min()), float(tensors[logits_name].max())]
    counts = {group: np.zeros(_BINS, np.int64) for group in limits}
    for picture in pictures:
        for name, values in runner.activations(picture).items():
            low, high = limits[groups[name]]
            counts[groups[name]] += np.histogram(values, _BINS, (low, high if high - low > _DEAD_SCALE else low + 1))[0]
    histograms = {group: Histogram(low, high, counts[group]) for group, (low, high) in limits.items()}
    codes, scores, anchors = (np.concatenate(parts) for parts in zip(*counted, strict=True))
    seen = code_range((codes, scores, anchors), head) if len(codes) else extremes(histograms[groups[codes_name]])
    return Observed(groups, histograms, sums, seen, (max(min(logits), -LOGIT_LIMIT), min(max(logits), LOGIT_LIMIT)))


def code_range(counted: Counted, head: Head) -> Range:
    """The range of box codes that moves the boxes of the anchors that count least, weighted by their scores."""
    codes, scores, anchors = counted
    exact = head.boxes(codes, anchors)
    best, chosen = -1.0, (float(codes.min()), float(codes.max()))
    for least in _CODE_SCORES:
        certain = codes[scores >= least]
        for share in _CODE_SHARES if len(certain) else ():
            low, high = (float(np.quantile(certain, cut)) for cut in ((1 - share) / 2, (1 + share) / 2))
            moved = head.boxes(scale_of(low, high).rounded(codes), anchors)
            agreement = float((scores * paired_iou(exact, moved)).sum())
            if agreement > best:
                best, chosen = agreement, (low, high)
    return chosen


def shared_scales(graph: DeployGraph) -> dict[str, str]:
    """tensor -> the name of its group: tensors that an operator requires to have the same scale."""
    parents = {name: name for name in (graph.input, *(layer.name for layer in graph.layers))}

    def root(name: str) -> str:
        while parents[name] != name:
            name = parents[name]
        return name

    for layer in graph.layers:
        if isinstance(layer, _SHARED):
            for name in layer.inputs:
                parents[root(name)] = root(layer.name)
    return {name: root(name) for name in parents}


def scales(graph: DeployGraph, observed: Observed, method: str) -> dict[str, Scale]:
    """tensor -> its scale, by one of METHODS."""
    codes, logits = (observed.groups[name] for name in graph.outputs)
    ranges = {group: METHODS[method](histogram) for group, histogram in observed.histograms.items()}
    ranges |= {codes: observed.codes, logits: observed.logits}
    by_group = {group: scale_of(*limits) for group, limits in ranges.items()} | {observed.groups[graph.input]: INPUT}
    found = {name: by_group[group] for name, group in observed.groups.items()}
    fixed = [layer.name for layer in graph.layers if _is_score(layer)]
    return found | dict.fromkeys(fixed, SCORE)


def _is_score(layer: deploy.Layer) -> bool:
    return isinstance(layer, deploy.Softmax) or (isinstance(layer, deploy.Activation) and layer.kind == deploy.SIGMOID)
