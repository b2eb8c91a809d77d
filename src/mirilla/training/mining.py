"""Hard example mining (SSD, arXiv:1512.02325 §2.2), as the API does it: NMS over the predicted boxes by their loss.

Every picture keeps all its positives that survive the NMS and the hardest few negatives per positive. At the usual
threshold of 0.99 the NMS drops next to nothing, so instead of comparing all pairs only the chosen anchors are looked
at, and the better ones that overlap them: the result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirilla import boxes as geometry
from mirilla.training.matching import BACKGROUND


@dataclass(frozen=True)
class MinerSpec:
    """The API's `hard_example_miner`; 0 negatives per positive means no bound."""

    num_hard_examples: int = 64
    iou_threshold: float = 0.7
    loss_type: str = "BOTH"  # or CLASSIFICATION, LOCALIZATION
    max_negatives_per_positive: float = 0.0
    min_negatives_per_image: int = 0


def mine(ranking_loss: Tensor, boxes_yxyx: Tensor, match: Tensor, spec: MinerSpec) -> Tensor:
    """Choose the anchors whose losses count.

    Args:
        ranking_loss: (B, A), per anchor, without gradient.
        boxes_yxyx: (B, A, 4) predicted boxes.
        match: (B, A) from the matcher.

    Returns:
        (B, A) bool.
    """
    order = ranking_loss.sort(dim=1, descending=True, stable=True).indices  # (B, A)
    if spec.num_hard_examples < match.shape[1] or spec.iou_threshold < 0.9:
        alive = _full_nms(ranking_loss, boxes_yxyx, spec)
        return _choose(order, match, alive, spec)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    overlaps = _Overlaps(boxes_yxyx, rank, spec.iou_threshold)
    alive = torch.ones_like(match, dtype=torch.bool)
    while True:
        chosen = _choose(order, match, alive, spec)
        dropped = overlaps.suppressed(chosen)
        if dropped is None:
            return chosen
        alive.view(-1)[dropped] = False


def _choose(order: Tensor, match: Tensor, alive: Tensor, spec: MinerSpec) -> Tensor:
    """All living positives and the first living negatives, in the order given: (B, A) bool."""
    ranked = torch.where(alive, match, BACKGROUND - 2).gather(1, order)
    positive = ranked >= 0
    if spec.max_negatives_per_positive > 0 or spec.min_negatives_per_image > 0:
        most = (positive.sum(1, keepdim=True) * spec.max_negatives_per_positive).floor().to(torch.int64)
        negative = ranked == BACKGROUND
        keep = positive | (negative & (negative.cumsum(1) <= most.clamp(min=spec.min_negatives_per_image)))
    else:
        keep = ranked > BACKGROUND - 2
    return torch.zeros_like(alive).scatter(1, order, keep)


class _Overlaps:
    """Which anchors the NMS drops, worked out only as far as the chosen ones ask for it.

    Anchors of the batch are numbered flat, b * A + a.
    """

    def __init__(self, boxes_yxyx: Tensor, rank: Tensor, threshold: float):
        self.boxes, self.rank, self.threshold = boxes_yxyx, rank, threshold
        self.examined = torch.zeros(rank.numel(), dtype=torch.bool, device=rank.device)
        self.better: dict[int, list[int]] = {}  # anchor -> better ones that overlap it too much
        self.dropped: dict[int, bool] = {}

    def suppressed(self, chosen: Tensor) -> Tensor | None:
        """Flat indices of chosen anchors that the NMS drops; None where there are none."""
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
            # a better anchor without an entry overlaps none that is better still, so it lives
            self.dropped[anchor] = any(not self.dropped.get(b, False) for b in self.better[anchor])
        gone = [a for a, dropped in self.dropped.items() if dropped and bool(chosen.view(-1)[a])]
        return torch.tensor(gone, device=chosen.device) if gone else None

    def _pairs(self, rows: Tensor) -> Tensor:
        """(P, 2) flat (anchor, better anchor of the same picture with an IoU above the threshold)."""
        count = self.rank.shape[1]
        picture = rows // count
        top, bottom = self.boxes[..., 0], self.boxes[..., 2]
        # boxes with an IoU above t share t of either's height, so their tops differ by at most (1/t - 1) of it
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
    """(B, A) bool: the anchors that survive the NMS, at most `num_hard_examples` a picture."""
    alive = torch.zeros_like(loss, dtype=torch.bool)
    for i in range(len(loss)):
        kept = geometry.nms(
            boxes_yxyx[i].cpu().numpy(), loss[i].cpu().numpy(), spec.iou_threshold, spec.num_hard_examples
        )
        alive[i, torch.from_numpy(kept).to(loss.device)] = True
    return alive
