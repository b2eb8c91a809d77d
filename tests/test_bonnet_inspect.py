"""What `mirilla inspect` tells and draws, and graphs that TensorFlow runs."""

from __future__ import annotations

import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers_graph import small_network
from mirilla.bonnet import arena_plot, describe
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.bonnet.to_graph import to_graph_def
from mirilla.cli.main import main
from mirilla.graph import read_graph_def, reader, write_graph_def
from mirilla.graph.reference import run


@pytest.fixture
def small(tmp_path):
    """(graph's path, model's path) of a small network."""
    graph = small_network()
    write_graph_def(tmp_path / "graph.pb", graph.graph_def)
    bf.write(tmp_path / "model.binaryproto", bonnet.build(graph.graph_def)[0])
    return tmp_path / "graph.pb", tmp_path / "model.binaryproto"


def test_table_of_a_known_file(shared, capsys):
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
def test_json_of_known_files(shared, capsys, name):
    assert main(["inspect", str(shared / f"data/bonnet/{name}.binaryproto"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "bonnet"
    assert facts["plan_differences"] == []
    assert facts["arena_bytes"] == 1441792
    assert facts["input"]["shape"] == ([256, 256, 3] if name == "card_detector" else [224, 224, 3])
    assert len(facts["ops"]) == (64 if name == "card_detector" else 38)
    assert facts["ops"][0]["address"] == (917504 if name == "card_detector" else 1040384)
    assert sum(one["bytes"] for one in facts["constants"]) < facts["bytes"]


def test_graphs_are_shown_too(small, capsys):
    graph, _ = small
    assert main(["inspect", str(graph)]) == 0
    assert "bonnet  compiles" in capsys.readouterr().out
    assert main(["inspect", str(graph), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["bonnet"] == []
    assert [layer["kind"] for layer in facts["layers"]].count("conv") == 7
    assert main(["inspect", str(graph), "--nodes", "--json"]) == 0
    assert {"index", "op", "name", "inputs"} == set(json.loads(capsys.readouterr().out)[0])


def test_to_graph_can_be_compiled_again(small, tmp_path):
    _, model = small
    assert main(["inspect", str(model), "--to-graph", str(tmp_path / "back.pb")]) == 0
    again, _ = bonnet.build(read_graph_def(tmp_path / "back.pb"))
    assert again.ops == bf.read(model).ops


def test_wrong_uses_are_refused(small, tmp_path, capsys):
    graph, model = small
    assert main(["inspect", str(graph), "--to-graph", str(tmp_path / "x.pb")]) == 2
    assert main(["inspect", str(model), "--to-graph", str(model)]) == 2
    assert main(["inspect", str(model), "--picture", str(tmp_path / "x.jpg")]) == 2
    assert main(["inspect", str(model), "--nodes"]) == 2
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert main(["inspect", str(tmp_path / "garbage")]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_pictures_show_every_block(small, tmp_path):
    from PIL import Image

    _, model = small
    assert main(["inspect", str(model), "--picture", str(tmp_path / "arena.svg")]) == 0
    root = ElementTree.fromstring((tmp_path / "arena.svg").read_text())
    titles = [one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}title")]
    read = bf.read(model)
    for op in read.ops:
        assert any(title.startswith(f"{op.output}: {op.plan.address} + ") for title in titles)
    assert main(["inspect", str(model), "--picture", str(tmp_path / "arena.png")]) == 0
    image = Image.open(tmp_path / "arena.png")
    assert image.size == (arena_plot.WIDTH, arena_plot.HEIGHT)
    assert len(image.convert("RGB").getcolors(1 << 20)) > 8
    assert arena_plot.to_png(arena_plot.draw(read)) == (tmp_path / "arena.png").read_bytes()


def test_blocks_are_drawn_inside_the_frame(shared):
    model = bf.read(shared / "data/bonnet/rps_160.binaryproto")
    for shape in arena_plot.draw(model):
        assert 0 <= shape.x <= arena_plot.WIDTH
        assert 0 <= shape.y <= arena_plot.HEIGHT
        if isinstance(shape, arena_plot.Box):
            assert shape.x + shape.width <= arena_plot.WIDTH
            assert shape.y + shape.height <= arena_plot.HEIGHT
    assert io.StringIO(arena_plot.to_svg(arena_plot.draw(model))).readline().startswith("<svg")


def test_short_names_stay_unique():
    names = ["FeatureExtractor/MobilenetV1/a", "MobilenetV1/a", "MobilenetV1/b", "concat"]
    assert describe.short_names(names) == {
        names[0]: names[0],
        names[1]: names[1],
        names[2]: "b",
        "concat": "concat",
    }


def test_graph_of_the_pair_stays_within_the_tolerances(shared):
    images = np.random.RandomState(0).uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32)
    original = run(reader.load(shared / "data/bonnet/PCK_frozen_inference_graph.pb"), images)
    back = run(reader.read(to_graph_def(bf.read(shared / "data/bonnet/pikachu2_detector.binaryproto"))), images)
    assert np.abs(original["concat"] - back["concat"]).max() < 0.0125
    assert np.abs(original["concat_1"] - back["concat_1"]).max() < 0.022
    assert np.abs(original["concat"] - back["concat"]).max() > 1e-4  # the weights are fp16


@pytest.mark.tensorflow
def test_tensorflow_runs_graphs_of_known_files(shared):
    from test_graph_reference import tensorflow_run

    images = np.random.RandomState(0).uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    pair = read_graph_def(shared / "data/bonnet/PCK_frozen_inference_graph.pb")
    outputs = ("concat", "concat_1")
    original = tensorflow_run(pair, "Preprocessor/sub", outputs, images)
    back = to_graph_def(bf.read(shared / "data/bonnet/pikachu2_detector.binaryproto"))
    found = tensorflow_run(back, "Preprocessor/sub", outputs, images)
    assert [one.shape for one in found] == [(1, 1278, 1, 4), (1, 1278, 2)]
    assert np.abs(original[0] - found[0]).max() < 0.0125
    assert np.abs(original[1] - found[1]).max() < 0.022
    for name, side in (("rps_160", 160), ("rover_224", 224)):
        graph_def = to_graph_def(bf.read(shared / f"data/bonnet/{name}.binaryproto"))
        images = np.random.RandomState(1).uniform(-1, 1, (1, side, side, 3)).astype(np.float32)
        (expected,) = tensorflow_run(graph_def, "input", ("final_result",), images)
        found = run(reader.read(graph_def, "input", "final_result"), images)["final_result"]
        assert expected.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
