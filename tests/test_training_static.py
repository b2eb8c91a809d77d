"""What a captured step needs: matching and mining in fixed shapes, with the results of the ordinary ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from mirilla.model.spec import BoxCoderSpec  # noqa: E402
from mirilla.training.matching import MatcherSpec, argmax_match, assign  # noqa: E402
from mirilla.training.mining import MinerSpec, can_be_static, mine  # noqa: E402

SAMPLE = MinerSpec(3000, 0.99, "CLASSIFICATION", 3, 0)


def boxes_of(generator, batch, count):
    centre = torch.rand(batch, count, 2, generator=generator)
    side = 0.02 + 0.5 * torch.rand(batch, count, 2, generator=generator)
    return torch.cat([centre - side / 2, centre + side / 2], -1)


@pytest.mark.parametrize("seed", range(5))
def test_the_miner_in_fixed_shapes_chooses_the_same(seed):
    generator = torch.Generator().manual_seed(seed)
    batch, count = 4, 600
    boxes = boxes_of(generator, batch, count)
    # near copies, and copies of copies: what the NMS at 0.99 is about
    for depth in range(3):
        source = torch.randint(count, (batch, 60), generator=generator)[..., None].expand(-1, -1, 4)
        target = torch.randint(count, (batch, 60), generator=generator)[..., None].expand(-1, -1, 4)
        shaken = boxes.gather(1, source) + 0.0008 * (depth + 1) * torch.rand(batch, 60, 4, generator=generator)
        boxes = boxes.scatter(1, target, shaken)
    loss = torch.rand(batch, count, generator=generator)
    match = torch.where(torch.rand(batch, count, generator=generator) < 0.1, 0, -1)
    match[0] = -1
    chosen = mine(loss, boxes, match, SAMPLE)
    assert torch.equal(mine(loss, boxes, match, replace(SAMPLE, static=True)), chosen)
    everything = replace(SAMPLE, max_negatives_per_positive=0)
    alive = mine(loss, boxes, match, everything)
    assert int((~alive).sum()) > 20  # else the test compares nothing
    assert torch.equal(mine(loss, boxes, match, replace(everything, static=True)), alive)


def test_which_miners_have_fixed_shapes():
    assert can_be_static(SAMPLE, 1278)
    assert not can_be_static(MinerSpec(), 1278)
    assert not can_be_static(replace(SAMPLE, iou_threshold=0.7), 1278)


def test_a_shared_column_goes_to_the_first_real_row():
    similarity = torch.tensor([[[0.1, 0.4, 0.3], [0.0, 0.45, 0.2], [0.2, 0.1, 0.0]]])
    valid = torch.tensor([[True, True, True]])
    assert argmax_match(similarity, valid, MatcherSpec()).tolist() == [[2, 0, -1]]
    valid = torch.tensor([[False, True, True]])
    assert argmax_match(similarity, valid, MatcherSpec()).tolist() == [[2, 1, -1]]


def test_targets_are_the_same_without_asking_for_ignored_objects():
    generator = torch.Generator().manual_seed(0)
    anchors = boxes_of(generator, 1, 200)[0]
    boxes = boxes_of(generator, 3, 7)
    classes = torch.zeros(3, 7, dtype=torch.int64)
    for share in (0.0, 0.5):
        ignored = torch.rand(3, 7, generator=generator) < share
        given = (anchors, boxes, classes, torch.ones(3, 7), ~ignored, ignored, 1)
        plain = assign(*given, MatcherSpec(), BoxCoderSpec())
        static = assign(*given, MatcherSpec(static=True), BoxCoderSpec())
        assert torch.equal(plain.match, static.match)
        assert torch.equal(plain.class_weights, static.class_weights)
