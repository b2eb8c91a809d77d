"""The face detector in the package: the default of `mirilla detect`, and the initial weights of `mirilla run`.

    detector = Detector.load()                     # the shipped model
    start = default_weights()                      # train_config { fine_tune_checkpoint: "<this path>" }

The folder `face` is an export reduced to three files: the frozen graph, which contains the exact weights
(`mirilla compile` turns it into a model for the Bonnet), its model.json, and MODEL_CARD.md, which lists the training
data and the licences. `tools/pack_shipped.py` makes the folder. The photo beside it is for the demo and the tests.
"""

from __future__ import annotations

from pathlib import Path

from mirilla.errors import ModelError

FOLDER = Path(__file__).resolve().parent / "face"
FROZEN_GRAPH = "frozen_inference_graph.pb"
MODEL_CARD = "MODEL_CARD.md"
PHOTO = FOLDER.parent / "astronaut.jpg"
PHOTO_SOURCE = "Eileen Collins; NASA, public domain (flic.kr/p/r9qvLn), the 512 x 512 px of scikit-image's package"
PHOTO_FACE_YXYX = (0.109, 0.351, 0.348, 0.531)  # forehead to chin; set by hand
MAX_BYTES = 1_000_000  # of the whole folder
_REMEDY = "Install Mirilla again, or give a model of your own."


def default_model() -> Path:
    """The folder of the shipped model, for `Detector.load`.

    Raises:
        ModelError: this installation contains no model.
    """
    _graph()
    return FOLDER


def default_weights() -> Path:
    """The file with the shipped weights, under TensorFlow's names and in its layouts, exact and with batch norm.

    It is for `train_config.fine_tune_checkpoint` (of the type "detection") and `mirilla.weights.load.load_weights`.

    Raises:
        ModelError: this installation contains no model.
    """
    return _graph()


def _graph() -> Path:
    path = FOLDER / FROZEN_GRAPH
    if not path.is_file():
        raise ModelError(f"{path}: this installation of Mirilla contains no model.", _REMEDY)
    return path
