"""Matching anchors to objects: the API's argmax matcher and target assigner, in torch, for a batch.

The objects of each image are padded to the same number G; `valid` marks the real ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirilla.model.box_coder import EPSILON
from mirilla.model.spec import BoxCoderSpec

BACKGROUND, IGNORED = -1, -2


@dataclass(frozen=True)
class MatcherSpec:
    """The API's `argmax_matcher`. `static` does not change the result."""

    matched_threshold: float = 0.5
    unmatched_threshold: float = 0.5
    negatives_lower_than_unmatched: bool = True
    force_match_for_each_row: bool = True
    ignore_thresholds: bool = False  # matches every anchor to its best object
    static: bool = False  # reads no value back from the device, as graph capture requires


@dataclass(frozen=True)
class Targets:
    """Training targets of a batch: B images, A anchors, C classes and the background.

    match: (B, A) index of the object, BACKGROUND or IGNORED.
    classes: (B, A, C + 1), column 0 the background. class_weights: (B, A).
    codes: (B, A, 4). box_weights: (B, A), 0 if unmatched.
    """

    match: Tensor
    classes: Tensor
    class_weights: Tensor
    codes: Tensor
    box_weights: Tensor


def pairwise_iou(a_yxyx: Tensor, b_yxyx: Tensor) -> Tensor:
    """IoU of all pairs: (B, N, 4), (B or 1, M, 4) -> (B, N, M); 0 if the boxes do not overlap."""
    shared = pairwise_intersection(a_yxyx, b_yxyx)
    union = box_area(a_yxyx)[:, :, None] + box_area(b_yxyx)[:, None, :] - shared
    return torch.where(shared > 0, shared / union, 0.0)


def matched_iou(a_yxyx: Tensor, b_yxyx: Tensor) -> Tensor:
    """IoU of pairs of boxes: (..., 4), (..., 4) -> (...); 0 if they do not overlap."""
    shared = matched_intersection(a_yxyx, b_yxyx)
    union = box_area(a_yxyx) + box_area(b_yxyx) - shared
    return torch.where(shared > 0, shared / torch.where(shared > 0, union, 1.0), 0.0)


def matched_giou(a_yxyx: Tensor, b_yxyx: Tensor) -> Tensor:
    """Generalised IoU (arXiv:1902.09630) of pairs of boxes: (..., 4), (..., 4) -> (...), from -1 to 1."""
    hull = torch.maximum(a_yxyx[..., 2:], b_yxyx[..., 2:]) - torch.minimum(a_yxyx[..., :2], b_yxyx[..., :2])
    shared = matched_intersection(a_yxyx, b_yxyx)
    union = (box_area(a_yxyx) + box_area(b_yxyx) - shared).clamp(min=1e-9)
    area = hull.prod(-1).clamp(min=1e-9)
    return shared / union - (area - union) / area


def matched_intersection(a_yxyx: Tensor, b_yxyx: Tensor) -> Tensor:
    """Intersections of pairs of boxes: (..., 4), (..., 4) -> (...)."""
    low, high = torch.maximum(a_yxyx[..., :2], b_yxyx[..., :2]), torch.minimum(a_yxyx[..., 2:], b_yxyx[..., 2:])
    return (high - low).clamp(min=0).prod(-1)


def pairwise_intersection(a_yxyx: Tensor, b_yxyx: Tensor) -> Tensor:
    """Intersections of all pairs: (B, N, 4), (B or 1, M, 4) -> (B, N, M)."""
    ay0, ax0, ay1, ax1 = (t[:, :, None] for t in a_yxyx.unbind(-1))
    by0, bx0, by1, bx1 = (t[:, None, :] for t in b_yxyx.unbind(-1))
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp_(min=0)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp_(min=0)
    return height * width


def box_area(boxes_yxyx: Tensor) -> Tensor:
    """Areas of boxes: (..., 4) -> (...)."""
    return (boxes_yxyx[..., 2] - boxes_yxyx[..., 0]) * (boxes_yxyx[..., 3] - boxes_yxyx[..., 1])


def argmax_match(similarity: Tensor, valid: Tensor, spec: MatcherSpec) -> Tensor:
    """Match columns (anchors) to rows (objects) by their highest similarity.

    Args:
        similarity: (B, G, A).
        valid: (B, G) bool; padding rows match nothing.

    Returns:
        (B, A) int64: the row; BACKGROUND below the lower threshold; IGNORED between the two.
        If several rows have the same best column, the first one gets it, as in the original.
    """
    batch, rows, columns = similarity.shape
    if rows == 0:
        return torch.full((batch, columns), BACKGROUND, dtype=torch.int64, device=similarity.device)
    masked = similarity.masked_fill(~valid[:, :, None], -torch.inf)
    best, match = masked.max(1)  # (B, A)
    if spec.ignore_thresholds:
        match = torch.where(best == -torch.inf, BACKGROUND, match)
    else:
        lower, upper = spec.unmatched_threshold, spec.matched_threshold
        below, between = best < lower, (best >= lower) & (best < upper)
        if not spec.negatives_lower_than_unmatched:
            below, between = (best >= lower) & (best < upper), (best < lower) & (best > -torch.inf)
            below = below | (best == -torch.inf)
        match = torch.where(between, IGNORED, torch.where(below, BACKGROUND, match))
    if spec.force_match_for_each_row:
        column = masked.argmax(2)  # (B, G)
        # the first of the rows that claim a column gets it; no loop, and no dependence on the number of real rows
        claims = torch.where(valid, torch.arange(rows, device=valid.device), rows)
        first = torch.full_like(match, rows).scatter_reduce(1, column, claims, "amin")
        match = torch.where(first < rows, first, match)
    return match


def assign(
    anchors_yxyx: Tensor,
    boxes_yxyx: Tensor,
    classes: Tensor,
    weights: Tensor,
    valid: Tensor,
    ignored: Tensor,
    num_classes: int,
    matcher: MatcherSpec,
    coder: BoxCoderSpec,
) -> Targets:
    """Training targets of a batch.

    Args:
        anchors_yxyx: (A, 4).
        boxes_yxyx: (B, G, 4). classes: (B, G) int64 from 0. weights: (B, G) loss weights.
        valid: (B, G) bool, the objects to learn.
        ignored: (B, G) bool, regions that count neither as objects nor as background.
    """
    similarity = pairwise_iou(boxes_yxyx, anchors_yxyx[None])  # (B, G, A)
    match = argmax_match(similarity, valid, matcher)
    if matcher.static or bool(ignored.any()):
        inside = pairwise_intersection(boxes_yxyx, anchors_yxyx[None]) / box_area(anchors_yxyx)
        near = ((inside >= 0.5) | (similarity >= matcher.unmatched_threshold)) & ignored[:, :, None]
        match = torch.where((match == BACKGROUND) & near.any(1), IGNORED, match)
    return targets_of_match(match, boxes_yxyx, classes, weights, anchors_yxyx, num_classes, coder)


def targets_of_match(
    match: Tensor,
    boxes_yxyx: Tensor,
    classes: Tensor,
    weights: Tensor,
    anchors_yxyx: Tensor,
    num_classes: int,
    coder: BoxCoderSpec,
    quality: Tensor | None = None,
) -> Targets:
    """Training targets from a match of anchors to objects.

    Args:
        match: (B, A) index of the object, BACKGROUND or IGNORED. boxes_yxyx, classes, weights: as in `assign`.
        quality: (B, A) class target of matched anchors; the background's is 1 - quality. None: 1.
    """
    matched = match >= 0
    batch, anchors = match.shape
    if boxes_yxyx.shape[1] == 0:
        columns = torch.zeros(batch, anchors, num_classes + 1, device=anchors_yxyx.device)
        columns[..., 0] = 1
        zeros = torch.zeros(batch, anchors, device=anchors_yxyx.device)
        return Targets(match, columns, torch.ones_like(zeros), zeros[..., None].expand(-1, -1, 4), zeros)
    index = match.clamp(min=0)
    column = torch.where(matched, classes.gather(1, index) + 1, 0)
    weight = weights.gather(1, index)
    box_weights = torch.where(matched, weight, 0.0)
    class_weights = torch.where(matched, weight, torch.where(match == IGNORED, 0.0, 1.0))
    taken = boxes_yxyx.gather(1, index[..., None].expand(-1, -1, 4))
    codes = torch.where(matched[..., None], encode(taken, anchors_yxyx, coder), 0.0)
    # not one_hot: it reads the largest class back to the CPU, which graph capture does not allow
    columns = (column[..., None] == torch.arange(num_classes + 1, device=column.device)).to(boxes_yxyx.dtype)
    if quality is not None:
        share = torch.where(matched, quality.clamp(0, 1), 1.0)
        columns = columns * share[..., None]
        columns[..., 0] = torch.where(matched, 1 - share, 1.0)
    return Targets(match, columns, class_weights, codes, box_weights)


def encode(boxes_yxyx: Tensor, anchors_yxyx: Tensor, coder: BoxCoderSpec) -> Tensor:
    """Box codes; both (..., 4). The torch version of `mirilla.model.box_coder.encode`."""
    anchor_y, anchor_x, anchor_h, anchor_w = _centre_size(anchors_yxyx)
    y, x, h, w = _centre_size(boxes_yxyx)
    anchor_h, anchor_w, h, w = anchor_h + EPSILON, anchor_w + EPSILON, h + EPSILON, w + EPSILON
    return torch.stack(
        [
            (y - anchor_y) / anchor_h * coder.y_scale,
            (x - anchor_x) / anchor_w * coder.x_scale,
            torch.log(h / anchor_h) * coder.height_scale,
            torch.log(w / anchor_w) * coder.width_scale,
        ],
        -1,
    )


def decode(codes: Tensor, anchors_yxyx: Tensor, coder: BoxCoderSpec) -> Tensor:
    """Boxes (..., 4) of codes. The torch version of `mirilla.model.box_coder.decode`."""
    anchor_y, anchor_x, anchor_h, anchor_w = _centre_size(anchors_yxyx)
    ty, tx, th, tw = codes.unbind(-1)
    y = ty / coder.y_scale * anchor_h + anchor_y
    x = tx / coder.x_scale * anchor_w + anchor_x
    half_h = torch.exp(th / coder.height_scale) * anchor_h / 2
    half_w = torch.exp(tw / coder.width_scale) * anchor_w / 2
    return torch.stack([y - half_h, x - half_w, y + half_h, x + half_w], -1)


def _centre_size(boxes_yxyx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    y0, x0, y1, x1 = boxes_yxyx.unbind(-1)
    h, w = y1 - y0, x1 - x0
    return y0 + h / 2, x0 + w / 2, h, w
