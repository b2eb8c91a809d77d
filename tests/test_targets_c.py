"""C source for microcontrollers: the interpreter that measures it, and a C compiler."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from helpers_targets import PHOTO, calibration_pictures, shipped_source
from mirilla import postprocess
from mirilla.detect.detector import Detector
from mirilla.errors import MissingExtraError, ModelError
from mirilla.labels import Label, LabelMap
from mirilla.model.box_coder import decode
from mirilla.targets.micro import c_source, interpreter
from mirilla.targets.tflite import integers

litert = pytest.importorskip("ai_edge_litert.interpreter")


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return calibration_pictures()


@pytest.fixture(scope="module")
def int8_file(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / integers.FILE
    path.write_bytes(integers.build(shipped_source(), pictures)[integers.FILE])
    return path


# tflite-micro


def test_tflite_micro_detects_the_face(int8_file):
    pytest.importorskip("tflite_micro")
    card = shipped_source().card
    found = Detector(card, interpreter.run(int8_file, card))(PHOTO, 0.5)
    wanted = Detector.load()(PHOTO, 0.5)
    assert len(found) >= 1
    np.testing.assert_allclose(found.boxes_yxyx[0], wanted.boxes_yxyx[0], atol=0.03)


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
