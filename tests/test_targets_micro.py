"""Targets for microcontrollers and accelerators: in tflite-micro, Vela and a C compiler."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from helpers_targets import PHOTO, shipped_source
from mirilla import postprocess
from mirilla.cli.main import main
from mirilla.detect.detector import Detector
from mirilla.errors import MissingExtraError, ModelError
from mirilla.findings import ERROR, NOTE, WARNING
from mirilla.labels import Label, LabelMap
from mirilla.model.box_coder import decode
from mirilla.targets import table
from mirilla.targets.micro import c_source, edge_tpu, ethos_u, interpreter
from mirilla.targets.tflite import integers
from mirilla.targets.tflite.schema import Model, Op

litert = pytest.importorskip("ai_edge_litert.interpreter")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """The shipped photo in eight crops and lights: (8, 256, 256, 3)."""
    crops = [PHOTO[y : y + 512 : 2, x : x + 512 : 2] for y in (0, 1) for x in (0, 1)]
    return np.stack([*crops, *(crop[:, ::-1] // 2 for crop in crops)])


@pytest.fixture(scope="module")
def int8_file(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / integers.FILE
    path.write_bytes(integers.build(shipped_source(), pictures)[integers.FILE])
    return path


# tflite-micro


def test_tflite_micro_gives_the_values_of_litert(int8_file, pictures):
    """Of LiteRT's reference kernels, to the last bit."""
    pytest.importorskip("tflite_micro")
    reference = litert.Interpreter(
        str(int8_file), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF
    ).get_signature_runner()
    micro = interpreter.Interpreters(int8_file)
    for picture in pictures[[0, 3, 6]]:
        image = (picture ^ np.uint8(128)).view(np.int8)[None]
        codes, scores = micro.outputs(image)
        wanted = reference(image=image)
        np.testing.assert_array_equal(codes, wanted["codes"])
        np.testing.assert_array_equal(scores, wanted["scores"])
        assert len(np.unique(scores)) > 10


def test_tflite_micro_detects_the_face(int8_file):
    pytest.importorskip("tflite_micro")
    card = shipped_source().card
    found = Detector(card, interpreter.run(int8_file, card))(PHOTO, 0.5)
    wanted = Detector.load()(PHOTO, 0.5)
    assert len(found) >= 1
    np.testing.assert_allclose(found.boxes_yxyx[0], wanted.boxes_yxyx[0], atol=0.03)


def test_tflite_micro_runs_the_file_with_detections(pictures, tmp_path):
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    files = table.target("tflite-detect").build(shipped_source(), pictures)
    micro = runtime.Interpreter.from_bytes(files["model_detect.tflite"], arena_size=8_000_000)
    micro.set_input(pictures[:1], 0)
    micro.invoke()
    boxes, _, scores, count = (micro.get_output(i) for i in range(4))
    assert count[0] > 0
    path = tmp_path / "model_detect.tflite"
    path.write_bytes(files[path.name])
    wanted = litert.Interpreter(str(path), experimental_op_resolver_type=litert.OpResolverType.BUILTIN_REF)
    wanted.allocate_tensors()
    wanted.set_tensor(wanted.get_input_details()[0]["index"], pictures[:1])
    wanted.invoke()
    details = wanted.get_output_details()
    np.testing.assert_allclose(boxes, wanted.get_tensor(details[0]["index"]), atol=1e-6)
    np.testing.assert_allclose(scores, wanted.get_tensor(details[2]["index"]), atol=1e-6)


def test_a_broken_file_is_refused_by_tflite_micro(tmp_path):
    pytest.importorskip("tflite_micro")
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    with pytest.raises(ModelError, match="tflite-micro cannot run the model"):
        interpreter.arena_bytes(path.read_bytes())


def test_without_tflite_micro_the_arena_is_not_invented(monkeypatch, pictures):
    monkeypatch.setattr(interpreter, "_MODULE", "no_such_module")
    header = c_source.build(shipped_source(), pictures[:1])[c_source.HEADER].decode()
    assert "ARENA" not in header
    with pytest.raises(MissingExtraError, match=r"tflite-micro.*not installed"):
        interpreter.run(pictures, shipped_source().card)


# c


@pytest.fixture(scope="module")
def c_folder(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    for name, content in c_source.build(shipped_source(), pictures).items():
        (folder / name).write_bytes(content)
    return folder


def compiled(compiler, folder, *options):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, "-Wall", "-Wextra", "-Werror", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Box(ctypes.Structure):
    """mirilla_box."""

    _fields_ = (
        *((name, ctypes.c_float) for name in ("ymin", "xmin", "ymax", "xmax", "score")),
        ("label", ctypes.c_int),
    )


def test_the_decoder_in_c_gives_our_boxes(c_folder, int8_file, pictures):
    compiled(
        "cc", c_folder, "-std=c99", "-pedantic", "-O2", "-DMIRILLA_CANDIDATES=1278", "-shared", "-fPIC",
        "mirilla_decode.c", "mirilla_anchors.c", "-lm", "-o", "decode.so",
    )  # fmt: skip
    library = ctypes.CDLL(str(c_folder / "decode.so"))
    library.mirilla_decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_float, ctypes.c_void_p, ctypes.c_int]
    assert ctypes.c_char_p.in_dll(library, "mirilla_labels").value == b"face"
    card = shipped_source().card
    runner = litert.Interpreter(str(int8_file)).get_signature_runner()
    details = runner.get_output_details()
    for picture in pictures:
        raw = runner(image=(picture ^ np.uint8(128)).view(np.int8)[None])
        real = {}
        for name, values in raw.items():
            scale, zero_point = details[name]["quantization"]
            real[name] = (values.astype(np.float32) - zero_point) * np.float32(scale)
        boxes = decode(real["codes"][0], card.anchors_yxyx, card.spec.box_coder)
        wanted = postprocess.multiclass_nms(boxes, real["scores"][0], card.spec.post_processing, 0.0999)
        found = (Box * 100)()
        count = library.mirilla_decode(
            raw["codes"].ctypes.data, raw["scores"].ctypes.data, 0.1, ctypes.addressof(found), 100
        )
        assert count == len(wanted) > 0
        ours = np.array([[box.ymin, box.xmin, box.ymax, box.xmax] for box in found[:count]])
        np.testing.assert_allclose([box.score for box in found[:count]], wanted.scores, atol=1e-6)
        np.testing.assert_allclose(ours, wanted.boxes_yxyx, atol=1e-5)
        assert (
            library.mirilla_decode(raw["codes"].ctypes.data, raw["scores"].ctypes.data, 0.1, ctypes.addressof(found), 1)
            == 1
        )


def test_the_model_in_c_is_the_file(c_folder):
    (c_folder / "print.cc").write_text(
        '#include <cstdio>\n#include "mirilla_model.h"\n'
        "int main() { return fwrite(mirilla_model, 1, MIRILLA_MODEL_BYTES, stdout) != MIRILLA_MODEL_BYTES; }\n"
    )
    compiled("c++", c_folder, "-std=c++11", "mirilla_model.cc", "print.cc", "-o", "print")
    printed = subprocess.run([str(c_folder / "print")], capture_output=True).stdout
    assert printed == (c_folder / c_source.FILE).read_bytes()


def test_the_header_has_the_measured_arena_and_the_operators(c_folder):
    pytest.importorskip("tflite_micro")
    header = (c_folder / c_source.HEADER).read_text()
    assert 400_000 < int(re.findall(r"#define MIRILLA_ARENA_BYTES (\d+)", header)[0]) < 700_000
    adds = re.findall(r"resolver\.(\w+)\(\);", header)
    assert adds == ["AddConv2D", "AddDepthwiseConv2D", "AddReshape", "AddConcatenation", "AddLogistic"]
    assert f"#define MIRILLA_OPS {len(adds)}\n" in header


def test_names_of_labels_stay_text_in_c(c_folder, tmp_path):
    """A name with quotes, a newline, a trigraph and a letter beyond ASCII."""
    name = 'a"; int x; //\n??/ß\\'
    card = replace(shipped_source().card, labels=LabelMap([Label(1, name)]))
    shutil.copy(c_folder / c_source.HEADER, tmp_path)
    (tmp_path / c_source.ANCHORS).write_text(c_source.anchors_text(card))
    compiled("cc", tmp_path, "-std=c99", "-shared", "-fPIC", "mirilla_anchors.c", "-o", "anchors.so")
    library = ctypes.CDLL(str(tmp_path / "anchors.so"))
    assert ctypes.c_char_p.in_dll(library, "mirilla_labels").value == name.encode()


# Ethos-U


def test_vela_puts_every_operator_on_the_npu(pictures):
    pytest.importorskip("ethosu")
    files = ethos_u.build(shipped_source(), pictures)
    reports = json.loads(files[ethos_u.REPORT])
    assert [one["accelerator"] for one in reports] == [board.accelerator for board in ethos_u.BOARDS]
    for one in reports:
        assert (one["cpu_operators"], one["npu_operators"] > 40) == (0, True)
        assert 300_000 < one["sram_bytes"] < 600_000
        assert files[one["file"]][4:8] == b"TFL3"
        assert b"ethos-u" in files[one["file"]]


def test_what_vela_leaves_to_the_cpu_is_an_error():
    board = ethos_u.BOARDS[0]
    report = ethos_u.Compiled(board.file, board.accelerator, "", "", 50, 0, 500_000, 0, 100_000, 4.0)
    (fine,) = ethos_u.findings(report, board)
    assert fine.severity == NOTE
    (cpu,) = ethos_u.findings(replace(report, cpu_operators=2), board)
    assert (cpu.severity, cpu.code) == (ERROR, "cpu-operators")
    (sram,) = ethos_u.findings(replace(report, sram_bytes=3_000_000), board)
    assert (sram.severity, sram.code) == (ERROR, "sram")


def test_vela_refuses_a_file_that_is_no_model():
    pytest.importorskip("ethosu")
    with pytest.raises(ModelError, match="Vela cannot compile the model for ethos-u55-64"):
        ethos_u.compiled(b"nothing", ethos_u.BOARDS[0])


def test_without_vela_the_target_is_named_or_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("mirilla.targets.target.importlib.util.find_spec", lambda name: None)
    assert main(["export", "shipped", "--to", "ethos-u", "--out", str(tmp_path / "out")]) != 0
    error = capsys.readouterr().err
    assert "ethos-u-vela" in error
    assert "mirilla[ethos-u]" in error
    assert not (tmp_path / "out").exists()
    lines: list[str] = []
    targets = table.chosen("all", lines.append)
    assert "ethos-u" not in {target.name for target in targets}
    assert lines == [
        "ethos-u: left out. The target ethos-u needs the package 'ethos-u-vela', which is not installed. "
        "pip install 'mirilla[ethos-u]'"
    ]


# Edge TPU


def test_the_shipped_model_maps_to_the_edge_tpu():
    (finding,) = edge_tpu.check(shipped_source())
    assert finding.severity == NOTE
    assert finding.what.startswith("All ")


def broken(change):
    """A model of one operator that `change` adds, after one that maps and before another."""
    model = Model()
    image = model.tensor("image", (1, 4, 4, 8), "i1")
    first = model.tensor("first", (1, 4, 4, 8), "i1")
    model.add(Op.RELU6, [image], [first])
    change(model, first)
    model.add(Op.RELU6, [len(model.tensors) - 1], [model.tensor("last", (1, 4, 4, 8), "i1")])
    return model


def added(op, shape, dtype="i1", options=()):
    return lambda model, first: model.add(op, [first], [model.tensor("bad", shape, dtype)], options)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (added(Op.EXP, (1, 4, 4, 8)), "does not have it"),
        (added(Op.ADD, (1, 4, 4, 8), "f4"), "floating-point"),
        (added(Op.RESHAPE, (2, 2, 4, 8)), "more than three dimensions"),
        (added(Op.SOFTMAX, (1, 16, 8)), "a softmax maps on one dimension"),
        (added(Op.SOFTMAX, (1, 16_001)), "a softmax maps on one dimension"),
        (added(Op.FULLY_CONNECTED, (4, 8)), "must have one dimension"),
        (
            added(Op.CONCATENATION, (1, 4, 4, 8), options=[(0, "int32", 3), (1, "int8", 1)]),
            "fused into a concatenation",
        ),
    ],
)
def test_what_breaks_a_rule_of_the_edge_tpu_is_named(change, reason):
    (finding,) = edge_tpu.findings(broken(change))
    assert finding.severity == WARNING
    assert finding.what.startswith("'bad'")
    assert "the 1 operators after it" in finding.what
    assert reason in finding.what


@pytest.mark.parametrize(
    "change",
    [
        added(Op.ADD, (1, 4, 4, 8)),
        added(Op.RESHAPE, (1, 2, 8, 8)),
        added(Op.SOFTMAX, (1, 128)),
        added(Op.FULLY_CONNECTED, (1, 8)),
        added(Op.CONCATENATION, (1, 4, 4, 8), options=[(0, "int32", 3)]),
    ],
)
def test_what_keeps_the_rules_of_the_edge_tpu_maps(change):
    (finding,) = edge_tpu.findings(broken(change))
    assert finding.severity == NOTE


def test_weights_that_exceed_the_edge_tpu_are_named():
    model = Model()
    model.constant("weights", np.zeros(edge_tpu.SRAM_BYTES + 1, np.int8))
    (finding,) = edge_tpu.findings(model)
    assert (finding.severity, finding.code) == (WARNING, "edgetpu-weights")
