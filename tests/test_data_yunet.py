"""YuNet itself, where it is there, and files that are none."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla import boxes, shipped
from mirilla.data.images import decode_rgb
from mirilla.data.yunet import YuNet
from mirilla.errors import MissingExtraError, ModelError


def test_files_that_are_no_yunet_are_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "x.onnx"
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a whole ONNX model"):
        YuNet.load(path)
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="no output 'bbox_16'"):
        YuNet.load(path)


def test_without_onnxruntime_the_extra_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match="onnxruntime"):
        YuNet.load(tmp_path / "x.onnx")


def test_yunet_finds_the_face_of_the_shipped_photo(yunet):
    judge = YuNet.load(yunet)
    found, scores = judge(decode_rgb(shipped.PHOTO))
    assert (scores >= 0.7).sum() == 1
    assert boxes.iou(found[:1], np.array([shipped.PHOTO_FACE_YXYX]))[0, 0] >= 0.7
    wide = np.zeros((512, 1024, 3), np.uint8)
    wide[:, 512:] = decode_rgb(shipped.PHOTO)
    moved, _ = judge(wide)
    np.testing.assert_allclose(moved[0], found[0] * [1, 0.5, 1, 0.5] + [0, 0.5, 0, 0.5], atol=0.02)


def test_less_certain_finds_are_kept_on_demand(yunet):
    photo = decode_rgb(shipped.PHOTO)
    some, scores = YuNet.load(yunet, (256,), 0.5, threads=1)(photo)
    more, _ = YuNet.load(yunet, (256,), 0.01, threads=1)(photo)
    assert (scores >= 0.5).all()
    assert len(more) > len(some) >= 1
