"""The doctor on compiled models and pipelines, and its command line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers_bonnet_run import constant
from helpers_graph import Graph, small_network
from mirilla import config
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf
from mirilla.bonnet.run import CompiledModel
from mirilla.cli.main import main
from mirilla.config.to_spec import model_spec
from mirilla.doctor import examine as doctor
from mirilla.doctor import model as doctor_model
from mirilla.doctor.config import random_weights
from mirilla.doctor.rules import VERDICTS
from mirilla.findings import ERROR, WARNING, Finding
from mirilla.graph import read_graph_def, reader, write_graph_def
from mirilla.graph.reference import run
from mirilla.labels import LabelMap, save_label_map
from mirilla.model import card as cards
from mirilla.model.spec import ModelSpec
from mirilla.protos.graphdef import constant_array
from mirilla.targets import frozen_graph

MODELS = ("card_detector", "darthvader", "pikachu2_detector", "pikachu_detector", "rover_224", "rps_160")


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


def only(findings, code: str) -> Finding:
    (finding,) = [finding for finding in findings if finding.code == code]
    return finding


@pytest.fixture(scope="module")
def model() -> bf.Model:
    return bonnet.build(small_network().graph_def)[0]


def changed(model: bf.Model, index: int, **plan) -> bf.Model:
    """The model with other numbers in the plan of an op."""
    ops = list(model.ops)
    old = ops[index].plan
    assert old is not None
    ops[index] = replace(ops[index], plan=replace(old, **plan))
    return replace(model, ops=tuple(ops))


# ---- compiled models


@pytest.mark.parametrize("name", MODELS)
def test_files_of_googles_compiler_have_no_findings(shared, name):
    found = doctor.examine(shared / f"data/bonnet/{name}.binaryproto")
    assert found.verdict == doctor.RUNS
    assert set(codes(found.findings)) <= {"google-decoder"}
    assert found.facts["arena_bytes"] == 1441792


def test_the_three_class_detector_suits_googles_decoder(shared):
    found = doctor.examine(shared / "data/bonnet/card_detector.binaryproto", doctor.Options(classes=3))
    assert found.findings == ()
    other = doctor.examine(shared / "data/bonnet/card_detector.binaryproto", doctor.Options(classes=1))
    assert "'concat_1' has 3" in only(other.findings, "classes").what


@pytest.mark.parametrize(("classes", "verdict"), [(1001, VERDICTS[ERROR]), (3, doctor.RUNS)])
def test_classifiers_have_classes_too(shared, classes, verdict):
    path = shared / "data/bonnet/rps_160.binaryproto"
    count = bf.read(path).constant("final_training_ops/Wx_plus_b/add/matmul_bias").d4
    found = doctor.examine(path, doctor.Options(classes=count if verdict == doctor.RUNS else classes))
    assert found.verdict == verdict


def test_compiled_small_network_has_no_findings(model):
    assert doctor_model.examine(model).findings == ()


def test_tensor_beyond_the_arena(model):
    found = doctor_model.examine(changed(model, 4, address=bf.ARENA_BYTES - 8)).findings
    finding = only(found, "plan-overflow")
    assert finding.severity == ERROR
    assert finding.where == model.ops[4].output
    assert (finding.where, 32 * 32 * 16 * 2) in finding.alive
    assert only(found, "plan-differs").severity == WARNING


def test_tensors_that_share_memory(model):
    plan = model.ops[3].plan
    assert plan is not None
    found = doctor_model.examine(changed(model, 4, address=plan.address)).findings
    finding = only(found, "plan-overlap")
    assert model.ops[3].output in finding.what
    assert model.ops[4].output in finding.what


def test_ops_without_plan(model):
    ops = (*model.ops[:-1], replace(model.ops[-1], plan=None))
    found = doctor_model.examine(replace(model, ops=ops)).findings
    assert only(found, "plan-missing").where == model.ops[-1].output


def test_another_arena_size(model):
    found = doctor_model.examine(replace(model, arena=bf.Arena(1 << 22, 1 << 23))).findings
    assert only(found, "arena-size").severity == WARNING


def test_constants_that_are_not_finite(model):
    broken = constant("x", np.array([1, np.inf, 2]))
    constants = tuple(
        replace(old, data=(old.data or b"")[:-6] + (broken.data or b"")) if old.name == "extra/weights" else old
        for old in model.constants
    )
    finding = only(doctor_model.examine(replace(model, constants=constants)).findings, "fp16-overflow")
    assert finding.where == "extra/weights"
    assert "1 of 3456" in finding.what  # 3 x 3 x 16 x 24


def test_op_of_unknown_type(model):
    ops = (*model.ops[:-1], replace(model.ops[-1], kind="Tile"))
    found = doctor_model.examine(replace(model, ops=ops)).findings
    assert only(found, "unknown-op").where == model.ops[-1].output


def test_kernel_larger_than_its_map_in_a_compiled_model():
    model, _ = bonnet.build(small_network().graph_def)
    found = doctor_model.examine(model, (8, 8)).findings  # the extra layer's map is 2 x 2 then
    assert any(finding.code == "malformed" for finding in found)  # its reshapes are for 64 x 64
    head = replace(model, ops=model.ops[:7], outputs=(model.ops[6].output or "",))
    finding = only(doctor_model.examine(head, (8, 8)).findings, "kernel-too-large")
    assert "3x3" in finding.what
    assert "2x2" in finding.what


# ---- pipelines


def pipeline(tmp_path, **options) -> str:
    path = tmp_path / "pipeline.config"
    save_label_map(tmp_path / "labels.pbtxt", LabelMap.from_names(["face"]))
    config.save(path, config.sample(1, "train.record", "eval.record", tmp_path / "labels.pbtxt", **options))
    return str(path)


def test_the_sample_runs(tmp_path):
    found = doctor.examine(pipeline(tmp_path))
    assert found.verdict == doctor.RUNS
    assert codes(found.findings) == ["google-decoder"]


def test_too_wide_a_network_overflows_and_the_remedy_lists_what_fits(tmp_path):
    finding = only(doctor.examine(pipeline(tmp_path, depth_multiplier=0.5)).findings, "arena-overflow")
    # 128 x 128 x 32 x 2 bytes beside 128 x 128 x 16 x 2
    assert sorted(size for _, size in finding.alive) == [524288, 1048576]
    assert "224x224" in finding.remedy
    assert "depth_multiplier 0.25" in finding.remedy


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"height": 192, "width": 192}, ["planar-threshold"]),
        ({"height": 250, "width": 256}, ["input-side", "input-not-square"]),
        ({"depth_multiplier": 0.15}, ["depth"]),  # 512 x 0.15 = 76
        ({"height": 224, "width": 224, "keep_aspect_ratio": True}, ["letterbox"]),
    ],
)
def test_sizes_and_widths_are_checked_before_training(tmp_path, options, expected):
    found = doctor.examine(pipeline(tmp_path, **options))
    assert [code for code in dict.fromkeys(codes(found.findings)) if code != "google-decoder"] == expected
    assert found.verdict == (doctor.RUNS if expected == ["letterbox"] else VERDICTS[WARNING])


def edited(tmp_path, field: str, value) -> doctor.Diagnosis:
    path = pipeline(tmp_path)
    config.save(path, config.override(config.load(path), field, value))
    return doctor.examine(path)


def test_quantised_training_is_refused(tmp_path):
    found = edited(tmp_path, "graph_rewriter.quantization.delay", 2000)
    finding = only(found.findings, "quantised")
    assert finding.where.startswith("graph_rewriter")
    assert found.verdict == VERDICTS[ERROR]


def test_a_kernel_that_outgrows_its_map_is_found_before_training_and_fixed_after(tmp_path):
    # google/aiyprojects-raspbian, issue 314: ssd_mobilenet_v1 at 256 px
    path = pipeline(tmp_path)
    changed = config.override(config.load(path), "model.ssd.feature_extractor.type", "ssd_mobilenet_v1")
    changed = config.override(changed, "model.ssd.anchor_generator.ssd_anchor_generator.num_layers", 6)
    config.save(path, changed)
    found = [finding for finding in doctor.examine(path).findings if finding.code == "kernel-too-large"]
    assert ["3x3 is larger than its map 2x2" in finding.what for finding in found] == [True, False]
    assert "1x1" in found[1].what
    assert all("--fix" in finding.remedy and not finding.fixable for finding in found)
    spec = model_spec(changed)
    write_graph_def(tmp_path / "exported.pb", frozen_graph.build(spec, random_weights(spec)))
    assert main(["doctor", str(tmp_path / "exported.pb")]) == 1
    assert main(["doctor", str(tmp_path / "exported.pb"), "--fix", str(tmp_path / "fixed.pb")]) == 0
    assert main(["compile", str(tmp_path / "fixed.pb"), "--out", str(tmp_path / "m.binaryproto")]) == 0
    compiled = CompiledModel.load(tmp_path / "m.binaryproto")
    pictures = np.random.default_rng(0).uniform(-1, 1, (1, 256, 256, 3)).astype(np.float32)
    expected = run(reader.load(tmp_path / "exported.pb"), pictures)
    for name, value in compiled.run(pictures).items():
        np.testing.assert_allclose(value.reshape(expected[name].shape), expected[name], rtol=0, atol=0.02)
        assert expected[name].std() > 0


def test_networks_that_cannot_be_built_are_reported(tmp_path):
    found = edited(tmp_path, "model.ssd.feature_extractor.type", "ssd_inception_v2")
    finding = next(finding for finding in found.findings if finding.code == "config")
    assert finding.where == "model.ssd.feature_extractor.type"
    assert found.verdict == VERDICTS[ERROR]


@pytest.mark.parametrize(("classes", "severity"), [(3, WARNING), (2, WARNING)])
def test_label_map_of_another_number_of_classes(tmp_path, classes, severity):
    finding = only(edited(tmp_path, "model.ssd.num_classes", classes).findings, "classes")
    assert (finding.where, finding.severity) == ("model.ssd.num_classes", severity)
    assert f"num_classes is {classes}" in finding.what


# ---- the command line


def graph_file(tmp_path, graph: Graph, name: str = "graph.pb") -> str:
    write_graph_def(tmp_path / name, graph.graph_def)
    return str(tmp_path / name)


def broken() -> Graph:
    """A kernel larger than its map, which --fix fixes; smaller maps than known ones hide behind it."""
    return small_network("FusedBatchNormV3", side=8)  # the extra layer's map is 2 x 2


def test_exit_code(tmp_path, capsys):
    assert main(["doctor", graph_file(tmp_path, small_network())]) == 0
    assert "runs" in capsys.readouterr().out
    assert main(["doctor", graph_file(tmp_path, small_network()), "--name", "FaceDetection"]) == 1
    assert "WILL NOT RUN  name-taken" in capsys.readouterr().out


def test_findings_are_printed_with_rule_evidence_and_remedy(tmp_path, capsys):
    assert main(["doctor", graph_file(tmp_path, small_network("FusedBatchNorm", side=48))]) == 1
    said = capsys.readouterr().out
    for text in ("MAY NOT RUN  planar-threshold", "(inferred)", "Rule:", "Inferred:", "Remedy:", "side 24"):
        assert text in said


def test_tensors_alive_at_the_same_time_are_printed(tmp_path, capsys):
    assert main(["doctor", pipeline(tmp_path, depth_multiplier=0.5)]) == 1
    said = capsys.readouterr().out
    assert "alive at the same time" in said
    assert "1572864" in said  # 524288 + 1048576


def test_fix_writes_the_graph_and_prints_what_is_left(tmp_path, capsys):
    path, out = graph_file(tmp_path, broken()), str(tmp_path / "fixed.pb")
    assert main(["doctor", path, "--fix", out]) == 0
    said = capsys.readouterr().out
    assert "cropped the kernel of 'extra/Relu6' from 3x3 to 2x2" in said
    assert "FusedBatchNormV3 by FusedBatchNorm" in said
    fixed = {node.name: node for node in read_graph_def(out).node}
    assert constant_array(fixed["extra/weights"]).shape[:2] == (2, 2)
    assert "kernel-too-large" not in codes(doctor.examine(out).findings)
    assert main(["doctor", out]) == 0


def test_fix_exits_with_0_if_no_problems_remain(tmp_path, capsys):
    graph = Graph(3)
    x = graph.block("first", graph.placeholder("input", (-1, 64, 64, 1)), (3, 3, 1, 16), 2)
    x = graph.depthwise_block("second", x, 16)
    graph.bias("head", graph.conv("head", x, (1, 1, 16, 8)), 8)
    path, out = graph_file(tmp_path, graph), str(tmp_path / "fixed.pb")
    assert main(["doctor", path]) == 1
    assert "--fix fixes it" in capsys.readouterr().out
    assert main(["doctor", path, "--fix", out]) == 0
    assert "no problems remain" in capsys.readouterr().out
    assert main(["doctor", out]) == 0


def test_fix_of_an_original_graph_compiles(shared, tmp_path, capsys):
    out = tmp_path / "fixed.pb"
    given = shared / "data/odapi/frozen_inference_graph_b24.pb"
    assert main(["doctor", str(given), "--input-tensor", "image_tensor"]) == 1
    assert main(["doctor", str(given), "--input-tensor", "image_tensor", "--fix", str(out)]) == 0
    assert "on random images in numpy: 0.0e+00" in capsys.readouterr().out
    assert main(["compile", str(out), "--out", str(tmp_path / "m.binaryproto")]) == 0
    assert main(["compile", str(given), "--out", str(tmp_path / "n.binaryproto")]) == 0
    assert (tmp_path / "m.binaryproto").stat().st_size == pytest.approx(
        (tmp_path / "n.binaryproto").stat().st_size, abs=100
    )  # names of biases differ by 'V3'
    assert main(["doctor", str(tmp_path / "m.binaryproto")]) == 0


def test_fix_writes_a_card_that_the_compiler_accepts(tmp_path, capsys):
    path = graph_file(tmp_path, small_network("FusedBatchNormV3", side=256))
    cards.save(cards.ModelCard(ModelSpec(), LabelMap.from_names(["face"]), name="faces"), path)
    assert main(["doctor", path, "--fix", str(tmp_path / "fixed.pb")]) == 1  # 10240 anchors, not 1278
    assert "anchors" in capsys.readouterr().out
    card = cards.load(tmp_path / "fixed.model.json", tmp_path / "fixed.pb")
    assert (card.name, card.file) == ("faces", "fixed.pb")
    assert cards.load(tmp_path / "model.json", path).file == "graph.pb"
    assert main(["compile", str(tmp_path / "fixed.pb"), "--out", str(tmp_path / "kit/m.binaryproto")]) == 0
    assert cards.load(tmp_path / "kit/model.json").target == "bonnet"


def test_json_holds_everything(tmp_path, capsys):
    path = graph_file(tmp_path, broken())
    code = main(["doctor", path, "--json", "--fix", str(tmp_path / "out.pb")])
    content = json.loads(capsys.readouterr().out)
    assert content["kind"] == "graph"
    assert content["verdict"] == "will not run"
    assert content["fixed"] == str(tmp_path / "out.pb")
    assert content["mending"]["difference"] < 1e-5
    large = next(finding for finding in content["findings"] if finding["code"] == "kernel-too-large")
    assert large["fixable"]
    assert {"severity", "layer", "what", "rule", "remedy", "certainty", "evidence", "alive"} <= set(large)
    assert sum(content["counts"].values()) == len(content["findings"])
    assert code in (0, 1)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["pipeline.config", "--fix", "out.pb"], 2),
        (["model.binaryproto", "--fix", "out.pb"], 2),
        (["graph.pb", "--fix", "graph.pb"], 2),
        (["pipeline.config", "--input-size", "256"], 2),
        (["missing.pb"], 1),
        (["garbage.pb"], 1),
        (["garbage"], 1),
        (["graph.pb", "--classes", "0"], 2),
    ],
)
def test_errors_have_no_traceback(tmp_path, capsys, monkeypatch, arguments, code):
    monkeypatch.chdir(tmp_path)
    pipeline(tmp_path)
    graph_file(tmp_path, small_network())
    bf.write(tmp_path / "model.binaryproto", bonnet.build(small_network().graph_def)[0])
    for name in ("garbage", "garbage.pb"):
        (tmp_path / name).write_bytes(b"\x00\xff\x13 nothing of the kind")
    try:
        found = main(["doctor", *arguments])
    except SystemExit as error:
        found = error.code
    assert found == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert not (tmp_path / "out.pb").exists()


def test_files_without_suffix_are_recognised(tmp_path):
    graph_file(tmp_path, small_network(), "a")
    bf.write(tmp_path / "b", bonnet.build(small_network().graph_def)[0])
    (tmp_path / "c").write_bytes(Path(pipeline(tmp_path)).read_bytes())
    kinds = [doctor.examine(tmp_path / name).kind for name in "abc"]
    assert kinds == [doctor.GRAPH, doctor.BONNET, doctor.CONFIG]


def test_severities_in_json(tmp_path):
    found = doctor.examine(graph_file(tmp_path, small_network()))
    content = found.to_json()
    assert {item["severity"] for item in content["findings"]} <= set(VERDICTS.values())
    assert set(content["counts"]) == {"will not run", "may not run", "note"}
