"""Dynamic assignment: each object is assigned to the anchors that currently predict it best.

Source: SimOTA of YOLOX (arXiv:2107.08430, section 2.1), with the IoU of the prediction as class target, as in quality
focal loss (arXiv:2006.04388). An object that is smaller than every anchor still gets anchors, and a large one is not
limited to the few anchors of its shape.
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

IGNORED_SHARE = 0.5  # an anchor is ignored if this share of it, or of its predicted box, is in an ignored object
_NEVER = torch.inf  # cost of anchors that are not selected


@dataclass(frozen=True)
class SimOtaSpec:
    """center_radius: in cells of the anchor's feature map. Other fields: see `DynamicAssigner` in pipeline.proto."""

    center_radius: float = 2.5
    candidates: int = 10
    box_cost: float = 3.0


@dataclass(frozen=True)
class _Rows:
    """Objects of all images in one list: image (N,), index in the image (N,), boxes (N, 4), whether real (N,)."""

    image: Tensor
    column: Tensor
    boxes_yxyx: Tensor
    real: Tensor


def anchor_cells(table: Architecture) -> Tensor:
    """(A, 2) height and width of each anchor's cell, relative to the input."""
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
    """Training targets of a batch from the network's current predictions.

    The class target of a matched anchor is the IoU of its predicted box with the object, times the object's confidence.
    The background's target is 1 minus that value.

    Args:
        codes: (B, A, 4). logits: (B, A, num_classes + 1). cells: (A, 2), see `anchor_cells`.
        static: use shapes that do not depend on the data, as a captured graph requires; the result is the same.
    """
    images, count = codes.shape[:2]
    predicted = decode(codes, anchors_yxyx, coder)
    match = torch.full((images * count + 1,), BACKGROUND, dtype=torch.int64, device=codes.device)
    quality = torch.zeros(images * count + 1, device=codes.device)
    rows = _rows(batch.boxes_yxyx, batch.valid, static)
    if len(rows.image):
        anchor, cost, iou = _choices(rows, batch.classes, predicted, logits, anchors_yxyx, cells, spec)
        chosen = cost < _NEVER
        # anchors that are not selected are written past the end, to a last dummy element
        place = torch.where(chosen, rows.image[:, None] * count + anchor, images * count).flatten()
        cheapest = torch.full_like(quality, _NEVER).scatter_reduce_(0, place, cost.flatten(), "amin")
        wins = chosen.flatten() & (cost.flatten() <= cheapest[place])
        place = torch.where(wins, place, images * count)
        match.scatter_(0, place, rows.column[:, None].expand_as(anchor).flatten())
        quality.scatter_(0, place, iou.flatten())
    match, quality = match[:-1].view(images, count), quality[:-1].view(images, count)
    if batch.confidences is not None and batch.confidences.shape[1]:
        quality = quality * batch.confidences.gather(1, match.clamp(min=0))
    near = _near_ignored(_rows(batch.boxes_yxyx, batch.ignored, static), predicted, anchors_yxyx)
    match = torch.where((match == BACKGROUND) & near, IGNORED, match)
    return targets_of_match(
        match, batch.boxes_yxyx, batch.classes, batch.weights, anchors_yxyx, num_classes, coder, quality
    )


def _rows(boxes_yxyx: Tensor, mask: Tensor, static: bool) -> _Rows:
    """The objects selected by a mask (B, G); with static shapes all objects, padding included."""
    if static:
        images, objects = mask.shape
        image = torch.arange(images, device=mask.device).repeat_interleave(objects)
        column = torch.arange(objects, device=mask.device).repeat(images)
        return _Rows(image, column, boxes_yxyx.flatten(0, 1), mask.flatten())
    image, column = mask.nonzero(as_tuple=True)
    return _Rows(image, column, boxes_yxyx[image, column], torch.ones_like(image, dtype=torch.bool))


def _choices(
    rows: _Rows,
    classes: Tensor,
    predicted: Tensor,
    logits: Tensor,
    anchors_yxyx: Tensor,
    cells: Tensor,
    spec: SimOtaSpec,
) -> tuple[Tensor, Tensor, Tensor]:
    """Each object's best anchors: anchor (N, q), cost (N, q) (infinite if not selected), IoU (N, q)."""
    boxes = rows.boxes_yxyx[:, None]  # (N, 1, 4)
    iou = matched_iou(boxes, predicted[rows.image])  # (N, A)
    column = classes[rows.image, rows.column] + 1
    logit = logits[rows.image, :, column]
    class_cost = F.binary_cross_entropy_with_logits(logit, iou, reduction="none") * (iou - logit.sigmoid()).square()
    cost = class_cost - spec.box_cost * torch.log(iou + 1e-7)
    anchor_centre = (anchors_yxyx[:, :2] + anchors_yxyx[:, 2:]) / 2
    centre = (rows.boxes_yxyx[:, None, :2] + rows.boxes_yxyx[:, None, 2:]) / 2
    near = ((anchor_centre - centre).abs() <= spec.center_radius * cells).all(-1) & rows.real[:, None]
    most = min(spec.candidates, iou.shape[1])
    counts = (iou * near).topk(most, 1).values.sum(1).to(torch.int64).clamp(min=1)
    cost, anchor = cost.masked_fill(~near, _NEVER).topk(most, 1, largest=False)
    rank = torch.arange(most, device=cost.device)
    return anchor, cost.masked_fill(rank >= counts[:, None], _NEVER), iou.gather(1, anchor)


def _near_ignored(rows: _Rows, predicted: Tensor, anchors_yxyx: Tensor) -> Tensor:
    """(B, A) bool: whether an ignored object covers most of the anchor or of its predicted box."""
    near = torch.zeros(predicted.shape[:2], device=predicted.device)
    if not len(rows.image):
        return near > 0
    boxes = rows.boxes_yxyx[:, None]
    hit = torch.zeros(len(rows.image), predicted.shape[1], dtype=torch.bool, device=predicted.device)
    for other in (predicted[rows.image], anchors_yxyx[None]):
        inside = matched_intersection(boxes, other) / box_area(other).clamp(min=1e-9)
        hit |= inside >= IGNORED_SHARE
    hit &= rows.real[:, None]
    return near.index_add_(0, rows.image, hit.to(near.dtype)) > 0
