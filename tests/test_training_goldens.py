"""Targets, mining and losses against arrays that the original API made."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mirilla.model.anchors import anchors_yxyx  # noqa: E402
from mirilla.model.layers import architecture  # noqa: E402
from mirilla.model.spec import ModelSpec  # noqa: E402
from mirilla.training import losses, matching, mining  # noqa: E402

SAMPLE = losses.ObjectiveSpec(
    miner=mining.MinerSpec(
        num_hard_examples=3000,
        iou_threshold=0.99,
        loss_type="CLASSIFICATION",
        max_negatives_per_positive=3.0,
        min_negatives_per_image=0,
    )
)


@pytest.fixture(scope="module")
def odapi(shared):
    return shared / "data" / "odapi"


@pytest.fixture(scope="module")
def anchors():
    spec = ModelSpec()
    return torch.from_numpy(anchors_yxyx(spec.anchors, architecture(spec).feature_map_shapes, 256, 256))


def batch_of(boxes):
    """A Batch of one class from a list of (G, 4) arrays."""
    most = max([len(b) for b in boxes] + [0])
    padded = np.zeros((len(boxes), most, 4), np.float32)
    valid = np.zeros((len(boxes), most), bool)
    for i, b in enumerate(boxes):
        padded[i, : len(b)], valid[i, : len(b)] = b, True
    valid = torch.from_numpy(valid)
    return losses.Batch(
        torch.from_numpy(padded),
        torch.zeros(valid.shape, dtype=torch.int64),
        torch.ones(valid.shape),
        valid,
        torch.zeros_like(valid),
    )


def ground_truths(golden):
    return [golden[f"gt{i}"].reshape(-1, 4) for i in range(sum(k.startswith("gt") for k in golden.files))]


def test_target_assigner(odapi, anchors):
    golden = np.load(odapi / "target_assigner.npz")
    batch = batch_of(ground_truths(golden))
    targets = losses.match_targets(batch, anchors, SAMPLE)
    assert np.array_equal(targets.match.numpy(), golden["match"])
    assert np.array_equal(targets.classes.numpy(), golden["cls_targets"].reshape(targets.classes.shape))
    weights = golden["cls_weights"].reshape(8, 1278, -1)[..., 0]
    assert np.array_equal(targets.class_weights.numpy(), weights)
    assert np.array_equal(targets.box_weights.numpy(), golden["reg_weights"].reshape(8, 1278))
    np.testing.assert_allclose(targets.codes.numpy(), golden["reg_targets"], atol=2e-5)
    similarity = matching.pairwise_iou(batch.boxes_yxyx, anchors[None])
    for i in range(8):
        expected = golden[f"iou{i}"]
        np.testing.assert_allclose(similarity[i, : len(expected)].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("case", ["random", "allempty", "one_image"])
def test_losses_and_hard_examples(odapi, anchors, case):
    golden = np.load(odapi / f"loss_{case}.npz")
    codes = torch.from_numpy(golden["box_encodings"]).reshape(-1, 1278, 4).requires_grad_()
    logits = torch.from_numpy(golden["class_predictions"]).reshape(-1, 1278, 2).requires_grad_()
    source = golden if any(k.startswith("gt") for k in golden.files) else np.load(odapi / "target_assigner.npz")
    batch = batch_of(ground_truths(source)[: len(codes)])
    result, anchorwise = losses.objective(codes, logits, losses.match_targets(batch, anchors, SAMPLE), anchors, SAMPLE)
    assert float(result.localization) == pytest.approx(float(golden["Loss.localization_loss"]), abs=2e-6)
    assert float(result.classification) == pytest.approx(float(golden["Loss.classification_loss"]), abs=4e-6)
    np.testing.assert_allclose(anchorwise.localization.detach(), golden["anchorwise_loc_loss"], atol=2e-5)
    np.testing.assert_allclose(anchorwise.classification.detach(), golden["anchorwise_cls_loss"], atol=2e-6)
    for i in range(len(codes)):
        assert set(np.flatnonzero(anchorwise.selected[i])) == set(golden[f"selected{i}"].tolist()), i
    result.total.backward()
    np.testing.assert_allclose(codes.grad.numpy(), golden["grad_box_encodings"].reshape(codes.shape), atol=1e-6)
    np.testing.assert_allclose(logits.grad.numpy(), golden["grad_class_predictions"].reshape(logits.shape), atol=1e-6)


def test_zero_logits_cost_two_ln_two_per_example(odapi, anchors):
    golden = np.load(odapi / "loss_zeros.npz")
    shape = golden["box_encodings"].reshape(-1, 1278, 4).shape
    batch = batch_of(ground_truths(np.load(odapi / "target_assigner.npz")))
    targets = losses.match_targets(batch, anchors, SAMPLE)
    result, _ = losses.objective(torch.zeros(shape), torch.zeros(8, 1278, 2), targets, anchors, SAMPLE)
    assert float(result.classification) == pytest.approx((1 + 3) * 2 * np.log(2), abs=1e-5)
    assert float(result.localization) == pytest.approx(2.970950, abs=1e-5)


SIMILARITY = [[1, 1, 1, 3, 1], [2, -1, 2, 0, 4], [3, 0, -1, 0, 0]]


@pytest.mark.parametrize(
    ("similarity", "spec", "expected"),
    [
        (SIMILARITY, dict(ignore_thresholds=True), [2, 0, 1, 0, 1]),
        (SIMILARITY, dict(matched_threshold=3, unmatched_threshold=3), [2, -1, -1, 0, 1]),
        (SIMILARITY, dict(matched_threshold=3, unmatched_threshold=2), [2, -1, -2, 0, 1]),
        (
            SIMILARITY,
            dict(matched_threshold=3, unmatched_threshold=2, negatives_lower_than_unmatched=False),
            [2, -2, -1, 0, 1],
        ),
        (
            [[1, 1, 1, 3, 1], [-1, 0, -2, -2, -1], [3, 0, -1, 2, 0]],
            dict(matched_threshold=3, unmatched_threshold=2, force_match_for_each_row=True),
            [2, 1, -1, 0, -1],
        ),
    ],
)
def test_argmax_matcher(similarity, spec, expected):
    options = dict(force_match_for_each_row=False) | spec
    table = torch.tensor([similarity], dtype=torch.float32)
    valid = torch.ones(1, 3, dtype=torch.bool)
    match = matching.argmax_match(table, valid, matching.MatcherSpec(**options))
    assert match[0].tolist() == expected


def test_no_rows_match_nothing():
    match = matching.argmax_match(torch.zeros(1, 0, 5), torch.zeros(1, 0, dtype=torch.bool), matching.MatcherSpec())
    assert match[0].tolist() == [-1] * 5


def test_ignored_boxes_are_not_background(anchors):
    face = torch.tensor([[[0.3, 0.3, 0.5, 0.5]]])
    yes, no = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    args = (anchors, face, torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1))
    ignored = matching.assign(*args, no, yes, 1, matching.MatcherSpec(), SAMPLE.box_coder)
    taught = matching.assign(*args, yes, no, 1, matching.MatcherSpec(), SAMPLE.box_coder)
    assert not (ignored.match >= 0).any()
    assert (ignored.class_weights[taught.match >= 0] == 0).all()
    assert float(ignored.class_weights.sum()) < 1278
    assert float(ignored.box_weights.sum()) == 0


def mine_losses(loc, cls, match, **spec):
    loc, cls = torch.tensor(loc, dtype=torch.float32), torch.tensor(cls, dtype=torch.float32)
    boxes = torch.tensor([[0.1, 0.1, 0.9, 0.9]]).repeat(loc.numel(), 1).reshape(*loc.shape, 4)
    if "boxes" in spec:
        boxes = torch.tensor(spec.pop("boxes"), dtype=torch.float32).reshape(*loc.shape, 4)
    ranking = {"LOCALIZATION": loc, "CLASSIFICATION": cls, "BOTH": loc + cls}[spec["loss_type"]]
    kept = mining.mine(ranking, boxes, torch.tensor(match), mining.MinerSpec(**spec))
    return float(loc[kept].sum()), float(cls[kept].sum())


@pytest.mark.parametrize(("loss_type", "expected"), [("LOCALIZATION", (103, 0)), ("BOTH", (80, 59))])
def test_miner_keeps_the_hardest(loss_type, expected):
    loc, cls = [[100, 90, 80, 0], [0, 1, 2, 3]], [[0, 10, 50, 110], [9, 6, 3, 0]]
    assert (
        mine_losses(loc, cls, [[-1] * 4] * 2, num_hard_examples=1, iou_threshold=0.0, loss_type=loss_type) == expected
    )


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.5, (196, 320)), (1, (316, 350)), (1.5, (406, 350)), (10, (429, 350))],  # worked out by hand
)
def test_miner_negatives_per_positive(ratio, expected):
    loc = [[100, 90, 80, 0, 1, 2, 3, 10, 20, 100, 20, 3]]
    cls = [[0, 0, 100, 0, 90, 70, 0, 60, 0, 17, 13, 0]]
    match = [[2, -1, 0, -1, -1, 1, -1, -1, -1, -1, -1, 3]]
    boxes = [[0.01 * i, 0.1, 0.4 + 0.01 * i, 0.9] for i in range(12)]
    assert (
        mine_losses(
            loc,
            cls,
            match,
            num_hard_examples=12,
            iou_threshold=0.9999,
            loss_type="CLASSIFICATION",
            max_negatives_per_positive=ratio,
            boxes=boxes,
        )
        == expected
    )


@pytest.mark.parametrize(("least", "expected"), [(1, (80, 100)), (2, (81, 190)), (4, (93, 320)), (6, (213, 350))])
def test_miner_minimum_of_negatives(least, expected):
    loc = [[100, 90, 80, 0, 1, 2, 3, 10, 20, 100, 20, 3]]
    cls = [[0, 0, 100, 0, 90, 70, 0, 60, 0, 17, 13, 0]]
    boxes = [[0.01 * i, 0.1, 0.4 + 0.01 * i, 0.9] for i in range(12)]
    assert (
        mine_losses(
            loc,
            cls,
            [[-1] * 12],
            num_hard_examples=12,
            iou_threshold=0.9999,
            loss_type="CLASSIFICATION",
            min_negatives_per_image=least,
            boxes=boxes,
        )
        == expected
    )


@pytest.mark.parametrize("seed", range(8))
def test_lazy_mining_equals_the_full_nms(seed):
    """Clusters of nearly equal boxes: the way that looks only where it must gives what comparing all pairs gives."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0.2, 0.8, (12, 4)).astype(np.float32)
    base = np.stack([centres[:, 0], centres[:, 1], centres[:, 0] + 0.3, centres[:, 1] + 0.3], 1)
    boxes = base[rng.integers(0, 12, (3, 200))] + rng.normal(0, 5e-4, (3, 200, 4)).astype(np.float32)
    loss = torch.from_numpy(rng.permutation(600).reshape(3, 200).astype(np.float32))
    match = torch.from_numpy(np.where(rng.random((3, 200)) < 0.05, 0, -1))
    spec = mining.MinerSpec(
        num_hard_examples=3000, iou_threshold=0.99, loss_type="CLASSIFICATION", max_negatives_per_positive=3
    )
    alive = mining._full_nms(loss, torch.from_numpy(boxes), spec)
    order = loss.sort(dim=1, descending=True, stable=True).indices
    expected = mining._choose(order, match, alive, spec)
    assert int((~alive).sum()) > 20  # the case has something to drop
    assert torch.equal(mining.mine(loss, torch.from_numpy(boxes), match, spec), expected)
