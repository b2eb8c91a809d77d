"""Hard example mining (SSD, arXiv:1512.02325 §2.2) as in the API: NMS over the predicted boxes, ranked by loss.

Every image keeps the positives that survive the NMS, and the hardest few negatives per positive. At the usual
threshold of 0.99 the NMS suppresses almost nothing. So instead of all pairs, only the selected anchors are compared
with the higher-ranked ones that overlap them; the result is the same.

In a captured CUDA graph no shape may depend on the selection. There, every anchor is compared with a fixed number of
nearest neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirilla import boxes as geometry
from mirilla.training.matching import BACKGROUND


@dataclass(frozen=True)
class MinerSpec:
    """The API's `hard_example_miner`; 0 negatives per positive means no limit.

    static: use fixed shapes and never wait for the device; see `can_be_static`.
    """

    num_hard_examples: int = 64
    iou_threshold: float = 0.7
    loss_type: str = "BOTH"  # or CLASSIFICATION, LOCALIZATION
    max_negatives_per_positive: float = 0.0
    min_negatives_per_image: int = 0
    static: bool = False


NEIGHBOURS = 16  # on either side of an anchor, to compare it with if shapes are fixed
MIXTURE = (
    1.0,
    0.6180,
    0.7321,
    0.4142,
)  # weights of a box's four edges; not in simple ratios, so that few boxes get the same sum by chance
ROUNDS = 8  # maximum length of a suppression chain


def can_be_static(spec: MinerSpec, anchors: int) -> bool:
    """Whether `static` is possible: the NMS must have a high threshold and no limit on the number of boxes."""
    return spec.num_hard_examples >= anchors and spec.iou_threshold >= 0.9


def mine(ranking_loss: Tensor, boxes_yxyx: Tensor, match: Tensor, spec: MinerSpec) -> Tensor:
    """Select the anchors whose losses count.

    Args:
        ranking_loss: (B, A), without gradient.
        boxes_yxyx: (B, A, 4) predicted boxes.
        match: (B, A) from the matcher.

    Returns:
        (B, A) bool.
    """
    order = ranking_loss.sort(dim=1, descending=True, stable=True).indices  # (B, A)
    if not can_be_static(spec, match.shape[1]):
        alive = _full_nms(ranking_loss, boxes_yxyx, spec)
        return _choose(order, match, alive, spec)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    if spec.static:
        return _choose(order, match, _survivors(boxes_yxyx, rank, spec.iou_threshold), spec)
    overlaps = _Overlaps(boxes_yxyx, rank, spec.iou_threshold)
    alive = torch.ones_like(match, dtype=torch.bool)
    while True:
        chosen = _choose(order, match, alive, spec)
        dropped = overlaps.suppressed(chosen)
        if dropped is None:
            return chosen
        alive.view(-1)[dropped] = False


def _choose(order: Tensor, match: Tensor, alive: Tensor, spec: MinerSpec) -> Tensor:
    """All surviving positives and the first surviving negatives in the given order: (B, A) bool."""
    ranked = torch.where(alive, match, BACKGROUND - 2).gather(1, order)
    positive = ranked >= 0
    if spec.max_negatives_per_positive > 0 or spec.min_negatives_per_image > 0:
        most = (positive.sum(1, keepdim=True) * spec.max_negatives_per_positive).floor().to(torch.int64)
        negative = ranked == BACKGROUND
        keep = positive | (negative & (negative.cumsum(1) <= most.clamp(min=spec.min_negatives_per_image)))
    else:
        keep = ranked > BACKGROUND - 2
    return torch.zeros_like(alive).scatter(1, order, keep)


def _survivors(boxes_yxyx: Tensor, rank: Tensor, threshold: float) -> Tensor:
    """(B, A) bool: the anchors that survive the NMS, in fixed shapes.

    Boxes that overlap this much have nearly the same edges, so they are close to each other when all boxes are sorted
    by a weighted sum of the edges. The result is exact unless more than NEIGHBOURS boxes lie between two such boxes, or
    a suppression chain is longer than ROUNDS; then additional boxes may survive.
    """
    batch, count = rank.shape
    size = 2 * NEIGHBOURS + 1
    mixture = sum(share * edge for share, edge in zip(MIXTURE, boxes_yxyx.unbind(-1), strict=True))
    place = torch.as_tensor(mixture).argsort(1)  # (B, A)
    boxes = boxes_yxyx.gather(1, place[..., None].expand(-1, -1, 4))
    rank = rank.gather(1, place)
    beside = torch.nn.functional.pad(boxes, (0, 0, NEIGHBOURS, NEIGHBOURS)).unfold(1, size, 1)  # (B, A, 4, size)
    y0, x0, y1, x1 = (t[..., None] for t in boxes.unbind(-1))
    side_y = (torch.minimum(y1, beside[:, :, 2]) - torch.maximum(y0, beside[:, :, 0])).clamp_(min=0)
    side_x = (torch.minimum(x1, beside[:, :, 3]) - torch.maximum(x0, beside[:, :, 1])).clamp_(min=0)
    shared = side_y * side_x
    area = (y1 - y0) * (x1 - x0)
    areas = (beside[:, :, 2] - beside[:, :, 0]) * (beside[:, :, 3] - beside[:, :, 1])
    better = torch.nn.functional.pad(rank, (NEIGHBOURS, NEIGHBOURS), value=count).unfold(1, size, 1) < rank[..., None]
    hit = (shared > threshold * (area + areas - shared)) & better
    alive = torch.ones(batch, count, dtype=torch.bool, device=rank.device)
    for _ in range(ROUNDS):
        alive = ~(hit & torch.nn.functional.pad(alive, (NEIGHBOURS, NEIGHBOURS)).unfold(1, size, 1)).any(-1)
    return torch.zeros_like(alive).scatter(1, place, alive)


class _Overlaps:
    """Computes which anchors the NMS suppresses, for the selected anchors only.

    Anchors have flat indices over the batch, b * A + a.
    """

    def __init__(self, boxes_yxyx: Tensor, rank: Tensor, threshold: float):
        self.boxes, self.rank, self.threshold = boxes_yxyx, rank, threshold
        self.examined = torch.zeros(rank.numel(), dtype=torch.bool, device=rank.device)
        self.better: dict[int, list[int]] = {}  # anchor -> higher-ranked anchors that overlap it too much
        self.dropped: dict[int, bool] = {}

    def suppressed(self, chosen: Tensor) -> Tensor | None:
        """Flat indices of selected anchors that the NMS suppresses; None if there are none."""
        new = chosen.view(-1) & ~self.examined
        while bool(new.any()):
            self.examined |= new
            pairs = self._pairs(new.nonzero().squeeze(1))
            for anchor, better in pairs.tolist():
                self.better.setdefault(anchor, []).append(better)
            reached = torch.zeros_like(self.examined)
            reached[pairs[:, 1]] = True
            new = reached & ~self.examined
        if not self.better:
            return None
        flat_rank = self.rank.view(-1)
        for anchor in sorted(self.better, key=lambda a: int(flat_rank[a])):
            # a higher-ranked anchor without an entry overlaps no anchor ranked above it, so it survives
            self.dropped[anchor] = any(not self.dropped.get(b, False) for b in self.better[anchor])
        gone = [a for a, dropped in self.dropped.items() if dropped and bool(chosen.view(-1)[a])]
        return torch.tensor(gone, device=chosen.device) if gone else None

    def _pairs(self, rows: Tensor) -> Tensor:
        """(P, 2) flat indices: an anchor, and a higher-ranked one of its image with an IoU above the threshold."""
        count = self.rank.shape[1]
        picture = rows // count
        top, bottom = self.boxes[..., 0], self.boxes[..., 2]
        # boxes with an IoU above t overlap by t of their heights, so their tops differ by at most (1/t - 1) of a height
        reach = (bottom - top).reshape(-1)[rows] * (1 / self.threshold - 1) + 1e-6
        near = (top[picture] - top.reshape(-1)[rows, None]).abs() <= reach[:, None]  # (R, A)
        near &= self.rank[picture] < self.rank.view(-1)[rows, None]
        row, column = near.nonzero().unbind(1)
        a, b = self.boxes.reshape(-1, 4)[rows[row]], self.boxes[picture[row], column]
        side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
        shared = side.prod(1)
        union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - shared
        hit = shared > self.threshold * union
        return torch.stack([rows[row[hit]], picture[row[hit]] * count + column[hit]], 1)


def _full_nms(loss: Tensor, boxes_yxyx: Tensor, spec: MinerSpec) -> Tensor:
    """(B, A) bool: the anchors that survive the NMS, at most `num_hard_examples` per image."""
    alive = torch.zeros_like(loss, dtype=torch.bool)
    for i in range(len(loss)):
        kept = geometry.nms(
            boxes_yxyx[i].cpu().numpy(), loss[i].cpu().numpy(), spec.iou_threshold, spec.num_hard_examples
        )
        alive[i, torch.from_numpy(kept).to(loss.device)] = True
    return alive
