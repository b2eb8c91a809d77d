"""Files for ncnn, in ncnn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_graph import other_layers, small_network
from helpers_targets import NO_PICTURES, PHOTO, shipped_source
from mirilla.detect.detector import Detector
from mirilla.errors import ModelError
from mirilla.graph import deploy, reader
from mirilla.graph.reference import Runner
from mirilla.targets import ncnn_file

ncnn = pytest.importorskip("ncnn")
GRAPHS = {
    "small": lambda: reader.read(small_network("FusedBatchNorm").graph_def),
    "other layers": lambda: reader.read(other_layers().graph_def, "input", ("softmax", "sigmoid")),
}


def written(folder, files):
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / ncnn_file.FILE


def float_net(path):
    net = ncnn.Net()
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    assert net.load_param(str(path)) == 0
    assert net.load_model(str(path.with_name(ncnn_file.WEIGHTS_FILE))) == 0
    return net


@pytest.mark.parametrize("kind", GRAPHS)
def test_every_layer_equals_the_reference(kind, tmp_path):
    graph = GRAPHS[kind]()
    writer = ncnn_file.NcnnWriter(graph)
    blobs = [writer.matrix(name) for name in graph.outputs]
    path = written(tmp_path, {ncnn_file.FILE: writer.text().encode(), ncnn_file.WEIGHTS_FILE: bytes(writer.weights)})
    net = float_net(path)
    picture = np.random.default_rng(3).uniform(-1, 1, graph.input_shape).astype(np.float32)
    planar = np.ascontiguousarray(picture.transpose(2, 0, 1))
    wanted = Runner(graph)(picture[None])
    for name, blob in zip(graph.outputs, blobs, strict=True):
        extractor = net.create_extractor()
        extractor.input(ncnn_file.IMAGE, ncnn.Mat(planar))
        found = np.array(extractor.extract(blob)[1])
        np.testing.assert_allclose(found.reshape(wanted[name][0].shape), wanted[name][0], atol=1e-5, err_msg=name)


def test_ncnn_gives_the_models_detections(tmp_path):
    source = shipped_source()
    path = written(tmp_path, ncnn_file.build(source, NO_PICTURES))
    wanted = Detector.load()(PHOTO, 0.1)
    found = Detector(source.card, ncnn_file.run(path, source.card))(PHOTO, 0.1)
    assert len(wanted) == len(found) > 0
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes_yxyx, wanted.boxes_yxyx, atol=1e-5)


def test_scores_by_softmax(tmp_path):
    source = shipped_source()
    card = source.card
    post_processing = replace(card.spec.post_processing, score_converter="SOFTMAX")
    source = replace(source, card=replace(card, spec=replace(card.spec, post_processing=post_processing)))
    path = written(tmp_path, ncnn_file.build(source, NO_PICTURES))
    size = source.graph.input_shape[0]
    picture = PHOTO[None, :size, :size].astype(np.float32) / 127.5 - 1
    found = ncnn_file.run(path, source.card)(picture)
    logits = Runner(source.graph)(picture)[source.graph.outputs[1]].reshape(-1, 2)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(found.scores[0, :, 0], (powers / powers.sum(1, keepdims=True))[:, 1], atol=1e-5)


def test_a_layer_that_ncnn_lacks_is_named():
    source = shipped_source()
    layer = source.graph.layers[0]
    unfolded = deploy.Affine(
        name="scale", inputs=(layer.name,), shape=layer.shape, position=0, scale=np.ones(16), offset=None
    )
    broken = replace(source, graph=replace(source.graph, layers=(layer, unfolded)))
    (finding,) = ncnn_file.check(broken)
    assert "'scale' (affine)" in finding.what
    with pytest.raises(ModelError, match="'scale'"):
        ncnn_file.build(broken, NO_PICTURES)


def test_a_broken_file_is_refused(tmp_path):
    source = shipped_source()
    path = written(tmp_path, ncnn_file.build(source, NO_PICTURES))
    path.write_text("not ncnn\n")
    with pytest.raises(ModelError, match="ncnn refuses"):
        ncnn_file.run(path, source.card)
