"""The memory planner: every number of the known files, its rules, and properties of any plan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirilla.bonnet import format as bf
from mirilla.bonnet import shapes
from mirilla.bonnet.memory_plan import ArenaOverflow, Block, gaps, live_ranges, place, plan_ops, replan, rounded
from mirilla.findings import RuleError

FILES = {
    "card_detector": 256,
    "darthvader": 256,
    "google_mobilenet_v1_160_imagenet": 160,
    "google_person_cat_dog": 256,
    "google_person_cat_dog_2017": 256,
    "google_squeezenet_160": 160,
    "pikachu2_detector": 256,
    "pikachu_detector": 256,
    "rover_224": 224,
    "rps_160": 160,
    "voc20_object_detection": 256,
}


@pytest.mark.parametrize(("name", "side"), FILES.items())
def test_plans_of_known_files_are_reproduced(shared, name, side):
    model = bf.read(shared / f"data/bonnet/{name}.binaryproto")
    # Keep nothing of the old plan except which ops have a fused Relu6 or pad.
    bare = replace(model, ops=tuple(replace(op, plan=bf.Plan(post=op.plan.post)) for op in model.ops))
    again = replan(bare, (side, side))
    for old, new in zip(model.ops, again.ops, strict=True):
        assert new == old
    assert bf.serialise(again) == bf.serialise(model)
    assert shapes.input_map(model) == shapes.FeatureMap(side, side, 3, planar=True)


def test_place_prefers_bottom_then_top_then_the_smallest_gap():
    arena = 1000
    assert place(100, [], arena) == 0
    assert place(100, [Block("a", 0, 96)], arena) == 1000 - 104  # rounded up to a multiple of eight
    blocks = [Block("a", 0, 96), Block("b", 300, 100), Block("c", 504, 400), Block("d", 960, 40)]
    assert gaps(blocks, arena) == [(96, 300), (404, 504), (904, 960)]
    assert place(50, blocks, arena) == 904
    assert place(60, blocks, arena) == 404
    assert place(200, blocks, arena) == 96
    assert place(208, blocks, arena) is None
    assert place(1001, [], arena) is None


def _chain(*ops: tuple[str, str, tuple[int, int, int, int] | None, bf.Kernel | None], side: int = 32):
    """A chain of ops, each given as (kind, output, weights' dims, kernel)."""
    dims, made, source = {}, [], "input"
    for kind, output, weights, kernel in ops:
        inputs = [source]
        if weights is not None:
            dims[f"{output}/w"] = weights
            channels = weights[3] if kind == "DepthwiseConv" else weights[0]
            dims[f"{output}/b"] = (1, 1, 1, channels)
            inputs += [f"{output}/w", f"{output}/b"]
        made.append(bf.Op(kind, tuple(inputs), output, kernel=kernel))
        source = output
    return made, dims, shapes.FeatureMap(side, side, 3, planar=True), source


def test_overflow_names_the_op_and_the_live_blocks():
    made, dims, source, last = _chain(("Conv", "wide", (32, 3, 3, 3), bf.Kernel(2, 2, 3, 3)), side=256)
    with pytest.raises(ArenaOverflow) as caught:
        plan_ops(made, dims, "input", source, [last])
    error = caught.value
    # 393216 (input) + 1048576 (output) fill the arena, so the scratch of 262144 does not fit
    assert (error.index, error.needed, error.gap) == (0, 262144, 0)
    assert [(block.name, block.bytes) for block in error.alive] == [("input", 393216), ("wide", 1048576)]
    assert error.findings[0].code == "arena-overflow"
    assert "1703936 in all" in error.findings[0].what


def test_scratch_of_a_larger_kernel_has_weights_and_columns():
    made, dims, source, last = _chain(
        ("Conv", "a", (16, 3, 3, 3), bf.Kernel(2, 2, 3, 3)),
        ("PadMyriad", "a_pad", None, None),
        ("ReorderBdrcToBrcdMyriad", "a_brcd", None, bf.Kernel(1)),
        ("Conv", "b", (24, 3, 3, 16), bf.Kernel(2, 2, 3, 3)),
    )
    done = plan_ops(made, dims, "input", source, [last])
    assert done[0].plan == bf.Plan(1441792 - 8192, 6144, 4096, 8192, 1, 1, 0, None, 0, 6144 + 8192 + 4096)
    assert done[3].plan.scratch_bytes == 2 * 9 * 16 * 24 + 2 * 8 * 9 * 16


@pytest.mark.parametrize(
    ("ops", "word"),
    [
        ((("Tile", "a", None, None),), "Tile"),
        ((("Conv", "a", (4, 3, 3, 5), bf.Kernel(1, 2, 3, 3)),), "does not fit"),
        ((("Conv", "a", (4, 3, 3, 3), bf.Kernel(1, 1, 5, 3)),), "does not fit"),
        ((("Conv", "a", (4, 3, 3, 3), bf.Kernel(0, 1, 3, 3)),), "does not fit"),
        ((("Conv", "a", (4, 40, 40, 3), bf.Kernel(1, 1, 40, 40)),), "larger than the map"),
        ((("Reshape", "a", None, None),), "does not fit"),
    ],
)
def test_ops_that_do_not_fit_are_refused(ops, word):
    made, dims, source, last = _chain(*ops)
    with pytest.raises(RuleError, match=word):
        plan_ops(made, dims, "input", source, [last])


@st.composite
def networks(draw):
    """Random graphs of 1x1 and 3x3 convolutions with branches."""
    made = [
        bf.Op("Conv", ("input", "w", "b"), "t0", kernel=bf.Kernel(2, 2, 3, 3)),
        bf.Op("PadMyriad", ("t0",), "t0_pad"),
        bf.Op("ReorderBdrcToBrcdMyriad", ("t0_pad",), "t1", kernel=bf.Kernel(1)),
    ]
    channels = {"t1": draw(st.sampled_from([8, 16]))}
    dims = {"w": (channels["t1"], 3, 3, 3), "b": (1, 1, 1, channels["t1"])}
    sides = {"t1": 16}
    for index in range(draw(st.integers(1, 14))):
        source, name = draw(st.sampled_from(sorted(channels))), f"n{index}"
        kernel, stride = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 1, 2]))
        out = draw(st.integers(1, 40))
        dims[f"{name}w"], dims[f"{name}b"] = (out, kernel, kernel, channels[source]), (1, 1, 1, out)
        made.append(bf.Op("Conv", (source, f"{name}w", f"{name}b"), name, kernel=bf.Kernel(stride, 2, kernel, kernel)))
        channels[name], sides[name] = out, -(-sides[source] // stride)
    read = {name for op in made for name in op.inputs}
    outputs = [op.output for op in made if op.output not in read]
    return made, dims, outputs


@settings(max_examples=80, deadline=None)
@given(networks(), st.sampled_from([1 << 15, 1 << 17, bf.ARENA_BYTES]))
def test_blocks_do_not_overlap_and_stay_inside_the_arena(network, arena):
    made, dims, outputs = network
    source = shapes.FeatureMap(32, 32, 3, planar=True)
    try:
        done = plan_ops(made, dims, "input", source, outputs, arena)
    except ArenaOverflow:
        with pytest.raises(ArenaOverflow) as caught:
            plan_ops(made, dims, "input", source, outputs, arena)
        assert caught.value.gap < rounded(caught.value.needed)
        return
    model = bf.Model(
        "input",
        outputs=tuple(outputs),
        ops=done,
        arena=bf.Arena(arena),
        constants=tuple(bf.Constant(*sides, name=name) for name, sides in dims.items()),
    )
    ranges = live_ranges(model, (32, 32))
    for index, op in enumerate(done):
        alive = sorted((r.block for r in ranges if r.first <= index <= r.last), key=lambda block: block.address)
        assert all(block.address % 8 == 0 and block.end <= arena for block in alive)
        assert all(a.end <= b.address for a, b in itertools.pairwise(alive))
        assert sum(block.bytes for block in alive) == op.plan.in_use
