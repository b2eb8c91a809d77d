"""C source for microcontrollers: the interpreter that measures it, and a C compiler."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

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


def library_in(folder):
    """The decoder, compiled."""
    compiled(
        "cc", folder, "-std=c99", "-pedantic", "-O2", "-shared", "-fPIC",
        "mirilla_decode.c", "mirilla_anchors.c", "-lm", "-o", "decode.so",
    )  # fmt: skip
    return ctypes.CDLL(str(folder / "decode.so"))


def same_boxes(library, card, scales, codes, scores, threshold, room=100):
    """Compare the decoder in C with ours on int8 codes (A, 4) and scores (A, C); returns how many boxes there are."""
    found = (Box * room)()
    count = library.mirilla_decode(codes.tobytes(), scores.tobytes(), ctypes.c_float(threshold), found, room)
    (code_scale, code_zero), (score_scale, score_zero) = scales
    boxes = decode(
        (codes.astype(np.float32) - code_zero) * np.float32(code_scale), card.anchors_yxyx, card.spec.box_coder
    )
    real_scores = (scores.astype(np.float32) - score_zero) * np.float32(score_scale)
    post = replace(card.spec.post_processing, max_total_detections=room)
    wanted = postprocess.multiclass_nms(boxes, real_scores, post, float(np.nextafter(np.float32(threshold), -1)))
    assert count == len(wanted)
    assert [box.label + 1 for box in found[:count]] == list(wanted.classes)
    np.testing.assert_allclose([box.score for box in found[:count]], wanted.scores, atol=1e-6)
    ours = np.array([[box.ymin, box.xmin, box.ymax, box.xmax] for box in found[:count]]).reshape(-1, 4)
    np.testing.assert_allclose(ours, wanted.boxes_yxyx, atol=1e-5)
    return count


def scales_of(model):
    found = [model.tensors[model.outputs[name]].quantization for name in ("codes", "scores")]
    return [(float(one.scales[0]), int(one.zero_points[0])) for one in found]


def test_the_decoder_in_c_gives_our_boxes(c_folder, int8_file, pictures):
    library, card = library_in(c_folder), shipped_source().card
    assert ctypes.c_char_p.in_dll(library, "mirilla_labels").value == b"face"
    scales = scales_of(integers.network_model(shipped_source(), pictures))
    runner = litert.Interpreter(str(int8_file)).get_signature_runner()
    counts = []
    for picture in pictures:
        raw = runner(image=(picture ^ np.uint8(128)).view(np.int8)[None])
        for threshold, room in ((0.0, 100), (0.1, 100), (0.5, 100), (0.1, 1)):
            counts.append(same_boxes(library, card, scales, raw["codes"][0], raw["scores"][0], threshold, room))
    assert max(counts) == 100
    assert min(counts) == 1


def test_the_decoder_with_three_classes_and_small_limits(pictures, tmp_path):
    """Random outputs: equal scores, boxes that reach beyond the picture, more boxes than there is room for."""
    source = shipped_source()
    anchors = source.card.anchors_yxyx
    middle = (anchors[:, :2] > 0.3).all(1) & (anchors[:, 2:] < 0.7).all(1)  # no box lies wholly beyond the picture
    post = replace(source.card.spec.post_processing, max_detections_per_class=4, iou_threshold=0.3)
    card = replace(
        source.card,
        spec=replace(source.card.spec, num_classes=3, post_processing=post),
        labels=LabelMap([Label(i, f"label {i}") for i in (1, 2, 3)]),
        anchors_yxyx=anchors[middle][:200],
    )
    model = integers.network_model(source, pictures)
    (tmp_path / c_source.HEADER).write_text(c_source.header_text(model, card, 1, None))
    (tmp_path / c_source.ANCHORS).write_text(c_source.anchors_text(card))
    for name in ("mirilla_decode.h", "mirilla_decode.c"):
        shutil.copy(Path(c_source.__file__).parent / "c" / name, tmp_path)
    library, rng, counts = library_in(tmp_path), np.random.default_rng(0), []
    for i in range(20):
        codes = rng.integers(-128, 128, (len(card.anchors_yxyx), 4), np.int8) // np.array([4, 4, 1, 1], np.int8)
        scores = rng.choice(np.arange(-128, -128 + 40 * (1 + i % 5), dtype=np.int8), (len(codes), 3))
        counts.append(same_boxes(library, card, scales_of(model), codes, scores, (0, 0.1, 0.3)[i % 3], 9))
    assert max(counts) == 9
    assert min(counts) < 9


# TFLM's classes as mirilla_detect.cc uses them, declared by ourselves: no package has its sources. The network copies
# its input to the file 'seen' and takes its outputs from the files 'codes' and 'scores'.
_TFLM = """\
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
struct TfLiteTensor { union { int8_t *int8; } data; };
namespace tflite {
struct Model {};
inline const Model *GetModel(const void *bytes) { return static_cast<const Model *>(bytes); }
struct MicroOpResolver { std::set<std::string> names; unsigned room; };
template <unsigned kCount> struct MicroMutableOpResolver : MicroOpResolver {
  MicroMutableOpResolver() { room = kCount; }
  TfLiteStatus Add(const char *name) { return names.insert(name).second ? kTfLiteOk : kTfLiteError; }
ADDERS
};
class MicroInterpreter {
 public:
  MicroInterpreter(const Model *model, const MicroOpResolver &ops, uint8_t *arena, size_t size)
      : good_(reinterpret_cast<uintptr_t>(model) % 16 == 0 && reinterpret_cast<uintptr_t>(arena) % 16 == 0 &&
              ops.names.size() == ops.room && size == 1234) {}
  TfLiteStatus AllocateTensors() { return good_ ? kTfLiteOk : kTfLiteError; }
  TfLiteTensor *input(size_t) { return tensor(0, input_); }
  TfLiteTensor *output(size_t i) { return tensor(1 + i, outputs_[i]); }
  TfLiteStatus Invoke() {
    std::FILE *file = std::fopen("seen", "wb");
    std::fwrite(input_, 1, sizeof(input_), file);
    std::fclose(file);
    for (int i = 0; i < 2; ++i) {
      file = std::fopen(i == 0 ? "codes" : "scores", "rb");
      if (std::fread(outputs_[i], 1, sizeof(outputs_[i]), file) == 0) return kTfLiteError;
      std::fclose(file);
    }
    return kTfLiteOk;
  }

 private:
  TfLiteTensor *tensor(size_t i, int8_t *values) {
    tensors_[i].data.int8 = values;
    return &tensors_[i];
  }
  bool good_;
  TfLiteTensor tensors_[3];
  int8_t input_[256 * 256 * 3], outputs_[2][1278 * 4];
};
}  // namespace tflite
"""


def test_the_example_in_c_finds_the_face(c_folder, int8_file, pictures, tmp_path):
    folder = shutil.copytree(c_folder, tmp_path / "build")
    adders = "".join(f'  TfLiteStatus {name}() {{ return Add("{name}"); }}\n' for name in c_source._ADD.values())
    for name in ("micro/micro_interpreter.h", "micro/micro_mutable_op_resolver.h", "schema/schema_generated.h"):
        path = folder / "tflm/tensorflow/lite" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#include "tensorflow/lite/all.h"\n')
    (folder / "tflm/tensorflow/lite/all.h").write_text(_TFLM.replace("ADDERS", adders))
    sources = ["main.cc", "mirilla_detect.cc", "mirilla_model.cc"]
    compiled("cc", folder, "-std=c99", "-c", "mirilla_decode.c", "mirilla_anchors.c")
    command = ["-std=c++17", "-I", "tflm", *sources, "mirilla_decode.o", "mirilla_anchors.o", "-lm", "-o", "detect"]
    compiled("c++", folder, "-DMIRILLA_ARENA_BYTES=1234", *command)
    raw = litert.Interpreter(str(int8_file)).get_signature_runner()(image=(pictures[:1] ^ np.uint8(128)).view(np.int8))
    for name, values in raw.items():
        (folder / name).write_bytes(values.tobytes())
    run = [str(folder / "detect")]
    done = subprocess.run(run, cwd=folder, input=pictures[0].tobytes(), capture_output=True, timeout=60)
    assert done.returncode == 0
    assert (folder / "seen").read_bytes() == (pictures[0] ^ np.uint8(128)).tobytes()
    assert done.stdout.startswith(b"face %.3f  y " % ((int(raw["scores"].max()) + 128) / 256))
    assert subprocess.run(run, cwd=folder, input=b"short", timeout=60).returncode == 2
    header = (folder / c_source.HEADER).read_text()
    (folder / c_source.HEADER).write_text(re.sub(r"#define MIRILLA_ARENA_BYTES.*", "", header))
    failed = subprocess.run(["c++", *command], cwd=folder, capture_output=True, text=True)
    assert "The arena was not measured" in failed.stderr


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
    arena = int(re.findall(r"#define MIRILLA_ARENA_BYTES (\d+)", header)[0])
    page = (Path(__file__).parents[1] / "docs/boards.md").read_text("utf-8")
    assert f"{arena:,} bytes of memory" in page
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
