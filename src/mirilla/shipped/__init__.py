"""The shipped face detector: the default model of `mirilla detect`, and the initial weights of `mirilla run`.

    detector = Detector.load()                     # the shipped model
    start = default_weights()                      # train_config { fine_tune_checkpoint: "<this path>" }

The folder `face` beside this file is an export without the files that follow from the others: the frozen graph, which
holds the exact weights (`mirilla compile` makes the bonnet's model from it), its model.json, and MODEL_CARD.md, which
lists the training data and their licences. `tools/pack_shipped.py` makes it. astronaut.jpg is a real photo, for the
demo and the tests.
"""

from __future__ import annotations

from pathlib import Path

from mirilla.errors import ModelError

FOLDER = Path(__file__).resolve().parent / "face"
FROZEN_GRAPH = "frozen_inference_graph.pb"
MODEL_CARD = "MODEL_CARD.md"
PHOTO = FOLDER.parent / "astronaut.jpg"
PHOTO_SOURCE = "Eileen Collins; NASA, public domain (flic.kr/p/r9qvLn), cropped to 512 x 512 px by scikit-image"
PHOTO_FACE_YXYX = (0.109, 0.351, 0.348, 0.531)  # forehead to chin, labelled by hand
MAX_BYTES = 1_000_000  # of the folder
_REMEDY = "Install Mirilla again, or give a model of your own."


def default_model() -> Path:
    """The folder of the shipped model, for `Detector.load`.

    Raises:
        ModelError: this installation has no model.
    """
    _graph()
    return FOLDER


def default_weights() -> Path:
    """The file of the shipped weights, for `train_config.fine_tune_checkpoint` (type "detection") and
    `mirilla.weights.load`: TensorFlow's variable names and layouts, with batch norm not folded.

    Raises:
        ModelError: this installation has no model.
    """
    return _graph()


def _graph() -> Path:
    path = FOLDER / FROZEN_GRAPH
    if not path.is_file():
        raise ModelError(f"{path}: no such file; this installation of Mirilla has no model.", _REMEDY)
    return path
