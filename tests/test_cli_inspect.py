"""mirilla inspect."""

from __future__ import annotations

import json

import pytest

from helpers_graph import small_network
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.cli.main import main
from mirilla.graph import read_graph_def, write_graph_def


@pytest.fixture
def small(tmp_path):
    """(graph's path, model's path) of a small network."""
    graph = small_network()
    write_graph_def(tmp_path / "graph.pb", graph.graph_def)
    bf.write(tmp_path / "model.binaryproto", bonnet.build(graph.graph_def)[0])
    return tmp_path / "graph.pb", tmp_path / "model.binaryproto"


def test_table_of_ops(shared, capsys):
    assert main(["inspect", str(shared / "data/bonnet/pikachu2_detector.binaryproto")]) == 0
    out = capsys.readouterr().out
    row = next(line.split() for line in out.splitlines() if line.startswith("34"))
    assert row == [
        "34",
        "Conv",
        "Conv2d_13_pointwise_2_Conv2d_2_3x3_s2_64/BatchNorm/FusedBatchNorm",
        "4x4x64",
        "3x3",
        "s2",
        "SAME",
        "brcd",
        "49152",
        "2048",
        "51200",
        "39168",
        "94464",
    ]
    assert "0 differences" in out
    assert "1179648 of 1441792" in out


@pytest.mark.parametrize("name", ["card_detector", "rover_224"])
def test_json(shared, capsys, name):
    assert main(["inspect", str(shared / f"data/bonnet/{name}.binaryproto"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "bonnet"
    assert facts["plan_differences"] == []
    assert facts["arena_bytes"] == 1441792
    assert facts["input"]["shape"] == ([256, 256, 3] if name == "card_detector" else [224, 224, 3])
    assert len(facts["ops"]) == (64 if name == "card_detector" else 38)
    assert facts["ops"][0]["address"] == (917504 if name == "card_detector" else 1040384)
    assert sum(constant["bytes"] for constant in facts["constants"]) < facts["bytes"]


def test_graphs(small, capsys):
    graph, _ = small
    assert main(["inspect", str(graph)]) == 0
    assert "bonnet  compiles" in capsys.readouterr().out
    assert main(["inspect", str(graph), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bonnet"] == []
    assert [layer["kind"] for layer in facts["layers"]].count("conv") == 7
    assert main(["inspect", str(graph), "--nodes", "--json"]) == 0
    assert {"index", "op", "name", "inputs"} == set(json.loads(capsys.readouterr().out)[0])


def test_plot_of_the_arena(small, tmp_path):
    _, model = small
    assert main(["inspect", str(model), "--picture", str(tmp_path / "arena.svg")]) == 0
    assert (tmp_path / "arena.svg").read_text().startswith("<svg")


def test_exported_graph_compiles_to_the_same_ops(small, tmp_path):
    _, model = small
    assert main(["inspect", str(model), "--to-graph", str(tmp_path / "back.pb")]) == 0
    again, _ = bonnet.build(read_graph_def(tmp_path / "back.pb"))
    assert again.ops == bf.read(model).ops


def test_wrong_usage_is_refused(small, tmp_path, capsys):
    graph, model = small
    assert main(["inspect", str(graph), "--to-graph", str(tmp_path / "x.pb")]) == 2
    assert main(["inspect", str(model), "--to-graph", str(model)]) == 2
    assert main(["inspect", str(model), "--picture", str(tmp_path / "x.jpg")]) == 2
    assert main(["inspect", str(model), "--nodes"]) == 2
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert main(["inspect", str(tmp_path / "garbage")]) == 1
    assert "Traceback" not in capsys.readouterr().err
