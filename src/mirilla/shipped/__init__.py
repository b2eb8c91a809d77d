"""The face detector that ships in the package: what `mirilla detect` uses when no model is named, and what
`mirilla run` starts from.

    detector = Detector.load()                     # the shipped model
    start = default_weights()                      # train_config { fine_tune_checkpoint: "<this path>" }

The folder `face` beside this file is an export without what can be had from the rest: the frozen graph, which
holds the exact weights (`mirilla compile` makes the bonnet's model of it), its model.json, and MODEL_CARD.md, which
says what it was trained on and under which licences. `tools/pack_shipped.py` makes it. Beside it lies one real
photo, for the demo and the tests.
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
LARGEST_BYTES = 1_000_000  # of the whole folder
_REMEDY = "Install Mirilla again, or name a model of your own."


def default_model() -> Path:
    """The folder of the shipped model, for `Detector.load`.

    Raises:
        ModelError: this installation has none.
    """
    _graph()
    return FOLDER


def default_weights() -> Path:
    """The file of the shipped weights, for `train_config.fine_tune_checkpoint` (of the type "detection") and
    `mirilla.weights.load`: TensorFlow's variable names and layouts, batch norm not folded, to the bit.

    Raises:
        ModelError: this installation has none.
    """
    return _graph()


def _graph() -> Path:
    path = FOLDER / FROZEN_GRAPH
    if not path.is_file():
        raise ModelError(f"{path}: no model ships with this installation of Mirilla.", _REMEDY)
    return path
