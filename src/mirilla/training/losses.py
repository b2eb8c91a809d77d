"""The SSD losses of the Object Detection API: per anchor, and summed to `Loss/total_loss`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from mirilla.batches.batch import Batch
from mirilla.model.spec import BoxCoderSpec
from mirilla.training.matching import BACKGROUND, MatcherSpec, Targets, assign, decode, matched_giou, matched_iou
from mirilla.training.mining import MinerSpec, mine
from mirilla.training.simota import SimOtaSpec


@dataclass(frozen=True)
class ClassificationLoss:
    """A classification loss.

    kind: one of the API's 'sigmoid' (the sample's), 'focal' (arXiv:1708.02002), 'softmax' and 'bootstrapped'
    (arXiv:1412.6596: the target is mixed with the prediction, with weight `alpha`; `hard` rounds the prediction to 0 or
    1), or 'quality_focal' (arXiv:2006.04388), for targets between 0 and 1.
    """

    kind: str = "sigmoid"
    gamma: float = 2.0
    alpha: float | None = None
    logit_scale: float = 1.0
    hard: bool = False

    def __call__(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """(B, A, C + 1), (B, A, C + 1), (B, A) -> (B, A)."""
        if self.kind == "softmax":
            return -(targets * F.log_softmax(logits / self.logit_scale, -1)).sum(-1) * weights
        if self.kind == "bootstrapped" and self.alpha is not None:
            probability = torch.sigmoid(logits)
            predicted = (probability > 0.5).to(logits.dtype) if self.hard else probability
            targets = self.alpha * targets + (1 - self.alpha) * predicted
            # not F.binary_cross_entropy_with_logits, because the gradient also flows through the target
            return (F.softplus(logits) - logits * targets).sum(-1) * weights
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.kind == "quality_focal":
            return (loss * (targets - torch.sigmoid(logits)).abs() ** self.gamma).sum(-1) * weights
        if self.kind == "focal":
            probability = torch.sigmoid(logits)
            correct = targets * probability + (1 - targets) * (1 - probability)
            loss = loss * (1 - correct) ** self.gamma
            if self.alpha is not None:
                loss = loss * (targets * self.alpha + (1 - targets) * (1 - self.alpha))
        return loss.sum(-1) * weights


@dataclass(frozen=True)
class LocalizationLoss:
    """A localization loss.

    kind: 'smooth_l1' (Huber with `delta`, arXiv:1504.08083), 'l2', or 'iou' and 'giou' (arXiv:1902.09630), which
        compare boxes instead of codes.
    """

    kind: str = "smooth_l1"
    delta: float = 1.0

    @property
    def compares_boxes(self) -> bool:
        """Whether the loss compares boxes instead of codes."""
        return self.kind in ("iou", "giou")

    def __call__(self, codes: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """(B, A, 4), (B, A, 4), (B, A) -> (B, A)."""
        if self.compares_boxes:
            similarity = matched_giou if self.kind == "giou" else matched_iou
            return (1 - similarity(codes, targets)) * weights
        if self.kind == "l2":
            return 0.5 * ((codes - targets) * weights[..., None]).square().sum(-1)
        return F.huber_loss(codes, targets, reduction="none", delta=self.delta).sum(-1) * weights


@dataclass(frozen=True)
class ObjectiveSpec:
    """How the loss is computed from the network's outputs."""

    num_classes: int = 1
    matcher: MatcherSpec = field(default_factory=MatcherSpec)
    box_coder: BoxCoderSpec = field(default_factory=BoxCoderSpec)
    classification: ClassificationLoss = field(default_factory=ClassificationLoss)
    localization: LocalizationLoss = field(default_factory=LocalizationLoss)
    classification_weight: float = 1.0
    localization_weight: float = 1.0
    miner: MinerSpec | None = field(default_factory=MinerSpec)
    dynamic: SimOtaSpec | None = None  # replaces the matcher and the miner
    normalize_by_matches: bool = True
    normalize_localization_by_code_size: bool = False
    background_as_zeros: bool = False  # targets of unmatched anchors are all 0, without the background class
    negative_class_weight: float = 1.0  # classification weight of unmatched anchors
    sampled_positive_share: float | None = None  # share of positives among sampled anchors; None keeps all anchors


@dataclass(frozen=True)
class Losses:
    """Scalars, weighted and normalised, without L2 regularisation; only `total` has a gradient."""

    total: Tensor
    localization: Tensor
    classification: Tensor
    positives: Tensor  # number of matched anchors in the whole batch


@dataclass(frozen=True)
class AnchorwiseLosses:
    """Losses before mining, (B, A) each."""

    localization: Tensor
    classification: Tensor
    selected: Tensor  # (B, A) bool, the anchors that the miner selects


def match_targets(batch: Batch, anchors_yxyx: Tensor, spec: ObjectiveSpec) -> Targets:
    """Training targets of a batch from the argmax matcher."""
    targets = assign(
        anchors_yxyx,
        batch.boxes_yxyx,
        batch.classes,
        batch.weights,
        batch.valid,
        batch.ignored,
        spec.num_classes,
        spec.matcher,
        spec.box_coder,
    )
    if spec.negative_class_weight != 1:
        weights = torch.where(targets.match == BACKGROUND, spec.negative_class_weight, targets.class_weights)
        targets = replace(targets, class_weights=weights)
    if spec.background_as_zeros:
        columns = torch.cat([torch.zeros_like(targets.classes[..., :1]), targets.classes[..., 1:]], -1)
        targets = replace(targets, classes=columns)
    return targets


def sample(targets: Targets, positive_share: float) -> Tensor:
    """`random_example_sampler`: all positives of an image and random negatives, in the given ratio: (B, A) bool.

    Uses torch's global random generator.
    """
    weighted = targets.class_weights > 0
    positive = (targets.match >= 0) & weighted
    negative = (targets.match < 0) & weighted
    max_negatives = (positive.sum(1, keepdim=True) * ((1 - positive_share) / positive_share)).to(torch.int64)
    order = torch.rand(weighted.shape, device=weighted.device).masked_fill(~negative, 2.0).argsort(1)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return positive | (negative & (rank < max_negatives))


def objective(
    codes: Tensor,
    logits: Tensor,
    targets: Targets,
    anchors_yxyx: Tensor,
    spec: ObjectiveSpec,
    all_reduce: Callable[[Tensor], Tensor] = lambda part: part,
) -> tuple[Losses, AnchorwiseLosses]:
    """Losses of a batch.

    Args:
        codes: (B, A, 4). logits: (B, A, num_classes + 1).
        all_reduce: sums a tensor over the processes that share the batch.
    """
    if spec.localization.compares_boxes:
        predicted = decode(codes, anchors_yxyx, spec.box_coder)
        localization = spec.localization(
            predicted, decode(targets.codes, anchors_yxyx, spec.box_coder), targets.box_weights
        )
    else:
        localization = spec.localization(codes, targets.codes, targets.box_weights)
    classification = spec.classification(logits, targets.classes, targets.class_weights)
    selected = torch.ones_like(targets.match, dtype=torch.bool)
    if spec.miner is not None and spec.dynamic is None:
        with torch.no_grad():
            ranking = {
                "CLASSIFICATION": classification,
                "LOCALIZATION": localization,
                "BOTH": classification + localization,
            }[spec.miner.loss_type]
            boxes = decode(codes, anchors_yxyx, spec.box_coder)
            selected = mine(ranking.detach(), boxes, targets.match, spec.miner)
    kept = selected.to(codes.dtype)
    if spec.sampled_positive_share is not None:
        selected = selected & sample(targets, spec.sampled_positive_share)
    normaliser = codes.new_ones(())
    if spec.normalize_by_matches:
        normaliser = all_reduce(targets.box_weights.sum()).clamp(min=1.0)
    box_normaliser = normaliser * 4 if spec.normalize_localization_by_code_size else normaliser
    box_loss = (localization * kept).sum() * (spec.localization_weight / box_normaliser)
    class_loss = (classification * kept).sum() * (spec.classification_weight / normaliser)
    losses = Losses(box_loss + class_loss, box_loss.detach(), class_loss.detach(), (targets.match >= 0).sum())
    return losses, AnchorwiseLosses(localization, classification, selected)
