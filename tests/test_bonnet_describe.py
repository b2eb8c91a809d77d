"""Rows and facts about compiled models, and short names."""

from __future__ import annotations

from dataclasses import replace

from mirilla.bonnet import describe
from mirilla.bonnet import format as bf
from mirilla.bonnet.describe import plan_differences


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
