"""Dynamic assignment: an object is learnt by the anchors that predict it best at the moment.

Source: SimOTA of YOLOX (arXiv:2107.08430, section 2.1), with the class cost against the prediction's own IoU, as
quality focal loss (arXiv:2006.04388) wants it. An object smaller than any anchor still finds its teachers, and a
large one is not left to the few anchors that happen to have its shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mirilla.batches.batch import Batch
from mirilla.model.layers import Architecture
from mirilla.model.spec import BoxCoderSpec
from mirilla.training.matching import (
    BACKGROUND,
    IGNORED,
    Targets,
    box_area,
    decode,
    matched_intersection,
    matched_iou,
    targets_of_match,
)

IGNORED_SHARE = 0.5  # of an anchor, or of its predicted box, inside an ignored object: it is taught nothing
_NEVER = torch.inf


@dataclass(frozen=True)
class SimOtaSpec:
    """center_radius: in cells of an anchor's map. candidates, box_cost: see `DynamicAssigner` in pipeline.proto."""

    center_radius: float = 2.5
    candidates: int = 10
    box_cost: float = 3.0


@dataclass(frozen=True)
class _Rows:
    """Objects of a batch one below the other: picture (N,), column (N,) in its picture, boxes (N, 4), alive (N,)."""

    picture: Tensor
    column: Tensor
    boxes_yxyx: Tensor
    alive: Tensor


def cells_of(table: Architecture) -> Tensor:
    """(A, 2) height and width of each anchor's cell, as shares of the input."""
    parts = []
    for p in table.predictors:
        cell = torch.tensor([1 / p.height, 1 / p.width], dtype=torch.float32)
        parts.append(cell.expand(p.height * p.width * p.anchors, 2))
    return torch.cat(parts)


@torch.no_grad()
def assign_dynamically(
    codes: Tensor,
    logits: Tensor,
    batch: Batch,
    anchors_yxyx: Tensor,
    cells: Tensor,
    num_classes: int,
    spec: SimOtaSpec,
    coder: BoxCoderSpec,
    static: bool = False,
) -> Targets:
    """Targets of a batch from what the network says now.

    The target of a matched anchor's class is the IoU of its predicted box with the object, times the object's
    confidence, that of the background the rest to 1.

    Args:
        codes: (B, A, 4). logits: (B, A, num_classes + 1). cells: (A, 2), see `cells_of`.
        static: keep shapes independent of the data, as a captured graph needs it; the result is the same.
    """
    pictures, count = codes.shape[:2]
    predicted = decode(codes, anchors_yxyx, coder)
    match = torch.full((pictures * count + 1,), BACKGROUND, dtype=torch.int64, device=codes.device)
    quality = torch.zeros(pictures * count + 1, device=codes.device)
    rows = _rows(batch.boxes_yxyx, batch.valid, static)
    if len(rows.picture):
        anchor, cost, iou = _choices(rows, batch.classes, predicted, logits, anchors_yxyx, cells, spec)
        chosen = cost < _NEVER
        # what is not chosen goes to the place behind the last anchor
        place = torch.where(chosen, rows.picture[:, None] * count + anchor, pictures * count).flatten()
        cheapest = torch.full_like(quality, _NEVER).scatter_reduce_(0, place, cost.flatten(), "amin")
        wins = chosen.flatten() & (cost.flatten() <= cheapest[place])
        place = torch.where(wins, place, pictures * count)
        match.scatter_(0, place, rows.column[:, None].expand_as(anchor).flatten())
        quality.scatter_(0, place, iou.flatten())
    match, quality = match[:-1].view(pictures, count), quality[:-1].view(pictures, count)
    if batch.confidences is not None and batch.confidences.shape[1]:
        quality = quality * batch.confidences.gather(1, match.clamp(min=0))
    near = _near_ignored(_rows(batch.boxes_yxyx, batch.ignored, static), predicted, anchors_yxyx)
    match = torch.where((match == BACKGROUND) & near, IGNORED, match)
    return targets_of_match(
        match, batch.boxes_yxyx, batch.classes, batch.weights, anchors_yxyx, num_classes, coder, quality
    )


def _rows(boxes_yxyx: Tensor, mask: Tensor, static: bool) -> _Rows:
    """The objects of a mask (B, G); with static shapes all of them, alive or not."""
    if static:
        pictures, most = mask.shape
        picture = torch.arange(pictures, device=mask.device).repeat_interleave(most)
        column = torch.arange(most, device=mask.device).repeat(pictures)
        return _Rows(picture, column, boxes_yxyx.flatten(0, 1), mask.flatten())
    picture, column = mask.nonzero(as_tuple=True)
    return _Rows(picture, column, boxes_yxyx[picture, column], torch.ones_like(picture, dtype=torch.bool))


def _choices(
    rows: _Rows,
    classes: Tensor,
    predicted: Tensor,
    logits: Tensor,
    anchors_yxyx: Tensor,
    cells: Tensor,
    spec: SimOtaSpec,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each object's best anchors: (anchor (N, q), cost (N, q), infinite where not chosen, IoU (N, q))."""
    boxes = rows.boxes_yxyx[:, None]  # (N, 1, 4)
    iou = matched_iou(boxes, predicted[rows.picture])  # (N, A)
    column = classes[rows.picture, rows.column] + 1
    logit = logits[rows.picture, :, column]
    class_cost = F.binary_cross_entropy_with_logits(logit, iou, reduction="none") * (iou - logit.sigmoid()).square()
    cost = class_cost - spec.box_cost * torch.log(iou + 1e-7)
    anchor_centre = (anchors_yxyx[:, :2] + anchors_yxyx[:, 2:]) / 2
    centre = (rows.boxes_yxyx[:, None, :2] + rows.boxes_yxyx[:, None, 2:]) / 2
    near = ((anchor_centre - centre).abs() <= spec.center_radius * cells).all(-1) & rows.alive[:, None]
    most = min(spec.candidates, iou.shape[1])
    wanted = (iou * near).topk(most, 1).values.sum(1).to(torch.int64).clamp(min=1)
    cost, anchor = cost.masked_fill(~near, _NEVER).topk(most, 1, largest=False)
    rank = torch.arange(most, device=cost.device)
    return anchor, cost.masked_fill(rank >= wanted[:, None], _NEVER), iou.gather(1, anchor)


def _near_ignored(rows: _Rows, predicted: Tensor, anchors_yxyx: Tensor) -> Tensor:
    """(B, A): anchors, or predicted boxes, that an ignored object covers for the most part or equals."""
    near = torch.zeros(predicted.shape[:2], device=predicted.device)
    if not len(rows.picture):
        return near > 0
    boxes = rows.boxes_yxyx[:, None]
    hit = torch.zeros(len(rows.picture), predicted.shape[1], dtype=torch.bool, device=predicted.device)
    for other in (predicted[rows.picture], anchors_yxyx[None]):
        inside = matched_intersection(boxes, other) / box_area(other).clamp(min=1e-9)
        hit |= inside >= IGNORED_SHARE
    hit &= rows.alive[:, None]
    return near.index_add_(0, rows.picture, hit.to(near.dtype)) > 0
