"""What the tests of the kit's program share: the program as a module, and a folder as `mirilla deploy` fills it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType

from mirilla.board import kit_program
from mirilla.bonnet.run import CompiledModel
from mirilla.labels import LabelMap
from mirilla.model import card as cards
from mirilla.model.spec import ModelSpec

SCRIPT = Path(kit_program.__file__)
program: ModuleType = kit_program


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
    shutil.copy(SCRIPT, folder / "mirilla_kit.py")
    return folder
