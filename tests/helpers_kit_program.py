"""What the tests of the kit's program share: a folder as `mirilla deploy` fills it."""

from __future__ import annotations

import shutil
from pathlib import Path

from mirilla.board.payload import PROGRAM, program
from mirilla.bonnet.run import CompiledModel
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.spec import ModelSpec


def kit_folder(folder: Path, model: Path, threshold: float = 0.3) -> Path:
    """A folder with a compiled model, its model.json and the program."""
    folder.mkdir(parents=True, exist_ok=True)
    copied = Path(shutil.copy(model, folder))
    compiled = CompiledModel.load(copied)
    assert compiled.input_size is not None
    shapes = compiled.program(*compiled.input_size).shapes
    classes = shapes["concat_1"][-1] - 1
    spec = ModelSpec(height_px=compiled.input_size[0], width_px=compiled.input_size[1], num_classes=classes)
    labels = LabelMap.from_names([f"thing{i}" for i in range(1, classes + 1)])
    cards.save(cards.ModelCard(spec, labels, name=copied.stem, target="bonnet", threshold=threshold), copied)
    (folder / PROGRAM).write_bytes(program())
    return folder


def plain_folder(folder: Path) -> Path:
    """A model's folder whose compiled model is not valid; the tests that use it never load it."""
    (folder / "face.binaryproto").write_bytes(b"not a model")
    card = cards.ModelCard(ModelSpec(), LabelMap.from_names(["face"]), name="face", target="bonnet")
    cards.save(card, folder / "face.binaryproto")
    return folder
