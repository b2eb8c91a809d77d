"""Rows and facts about compiled models, and short names."""

from __future__ import annotations

from dataclasses import replace

from helpers_graph import small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import describe
from mirilla.bonnet import format as bf
from mirilla.bonnet.describe import model_facts, plan_differences
from mirilla.cli.bonnet_tables import shape_text


def test_plan_differences(shared):
    model = bf.read(shared / "data/bonnet/pikachu2_detector.binaryproto")
    assert plan_differences(model) == []
    op = model.ops[5]
    wrong = replace(op, plan=replace(op.plan, address=8))
    differences = plan_differences(replace(model, ops=(*model.ops[:5], wrong, *model.ops[6:])))
    assert differences == [f"op 5 '{op.output}': address is 8, computed 1310720"]


def test_short_names_stay_unique():
    names = ["FeatureExtractor/MobilenetV1/a", "MobilenetV1/a", "MobilenetV1/b", "concat"]
    assert describe.short_names(names) == {
        names[0]: names[0],
        names[1]: names[1],
        names[2]: "b",
        "concat": "concat",
    }


def test_an_op_of_an_unknown_type_is_shown_without_shapes():
    graph = small_network()
    model, _ = bonnet.build(graph.graph_def)
    index = next(i for i, op in enumerate(model.ops) if op.kind == "Relu6")
    ops = [replace(op, kind="Rotate") if i == index else op for i, op in enumerate(model.ops)]
    facts = model_facts(replace(model, ops=tuple(ops)))
    assert facts.ops[index].kind == "Rotate"
    assert facts.ops[index].shape is None
    assert facts.ops[index - 1].shape is not None
    assert facts.ops[index].output_bytes == model.ops[index].plan.output_bytes
    assert "'Rotate'" in facts.plan_differences[0] or "(Rotate)" in facts.plan_differences[0]
    assert shape_text(None) == "?"
