"""The emulator's arithmetic against TensorFlow, on the four graphs of which Google's compiled files are known."""

from __future__ import annotations

import numpy as np
import pytest

from mirilla.bonnet import compile as bonnet
from mirilla.bonnet.legalise import legalise
from mirilla.bonnet.run import CompiledModel
from mirilla.graph import read_graph_def, reader

SSD = ("concat", "concat_1")
# graph -> input, outputs, side, and the largest difference of each output: with the graph's weights, and in fp16
GRAPHS = {
    "PCK_frozen_inference_graph": ("Preprocessor/sub", SSD, 256, (1e-5, 1e-5), (0.012, 0.022)),
    "voc20_frozen_inference_graph": ("Preprocessor/sub", SSD, 256, (1e-5, 1e-5), (0.006, 0.008)),
    "google_person_cat_dog": ("Preprocessor/sub", SSD, 256, (5e-4, 1e-5), (0.06, 0.04)),
    "google_squeezenet_160": ("input", ("Prediction",), 160, (1e-6,), (2e-3,)),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", GRAPHS)
def test_the_emulator_computes_what_tensorflow_computes(shared, name):
    from test_graph_reference import tensorflow_run

    source, outputs, side, exact, rounded = GRAPHS[name]
    graph_def = read_graph_def(shared / f"data/bonnet/{name}.pb")
    images = np.random.RandomState(0).uniform(-1, 1, (1, side, side, 3)).astype(np.float32)
    wanted = tensorflow_run(graph_def, source, outputs, images)
    model, _ = bonnet.build(graph_def, source, outputs, side)
    legal = legalise(reader.read(graph_def, source, outputs, side))
    constants = {constant.name: constant.values for constant in legal.constants}
    for weights, limits in ((constants, exact), ({}, rounded)):
        found = CompiledModel(model, input_size=(side, side), constants=weights).run(images)
        for output, array, limit in zip(outputs, wanted, limits, strict=True):
            difference = float(np.abs(found[output].reshape(array.shape) - array).max())
            print(f"{name} {output} {'float32' if weights else 'fp16'} weights: {difference:.2e}")
            assert difference <= limit
