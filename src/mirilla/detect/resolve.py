"""One word for a model in every verb: a file, an export folder, a training folder, the folder of a run, or 'shipped'.

Verbs that need a frozen graph or a compiled model get one: it is made in a temporary folder if the word names a
training folder, or a graph where a compiled model is needed.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mirilla.bonnet import format as binary
from mirilla.bonnet.compile import compile_file
from mirilla.detect.models import SHIPPED, find_model
from mirilla.errors import UsageError
from mirilla.model import card as cards
from mirilla.weights.export import FROZEN_GRAPH, export_model
from mirilla.weights.training_folder import load_training_folder

GRAPH_SUFFIX = ".pb"


@contextlib.contextmanager
def model_file(word: str) -> Iterator[Path]:
    """The file of a model; a training folder's newest checkpoint is exported for the time of the block.

    Raises:
        ModelError: there is no such model.
        MirillaError: it cannot be read.
    """
    path = find_model(Path(word))
    if not path.is_dir():
        yield path
        return
    spec, labels, weights = load_training_folder(path)
    with tempfile.TemporaryDirectory(prefix="mirilla-") as folder:
        training = {"checkpoint": weights.path.name, "steps": weights.step, "averaged": weights.averaged}
        name = path.resolve().name
        exported = export_model(
            spec, weights.variables, labels, folder, step=weights.step, name=name, training=training
        )
        yield exported.frozen_graph


@contextlib.contextmanager
def compiled_model(word: str) -> Iterator[Path]:
    """A compiled model; a frozen graph is compiled for the time of the block.

    Raises:
        ModelError: there is no such model, or it cannot be compiled.
        MirillaError: it cannot be read.
    """
    folder = Path(word)
    found = sorted(folder.glob(f"*{binary.SUFFIX}")) if folder.is_dir() else []
    if len(found) == 1:
        yield found[0]
        return
    with model_file(word) as path:
        if path.suffix != GRAPH_SUFFIX:
            yield path
            return
        with tempfile.TemporaryDirectory(prefix="mirilla-") as made:
            out = Path(made) / f"{name_of(word)}{binary.SUFFIX}"
            compile_file(path, out)
            yield out


def name_of(word: str) -> str:
    """A file's name without suffix for what is made of a model: that of its folder if the file has the usual name."""
    if word == SHIPPED:
        return "face"
    path = Path(word)
    if path.name == FROZEN_GRAPH:
        path = path.resolve().parent
    if path.is_dir() and path.resolve().name in ("export", "train"):  # in the folder of a run
        path = path.resolve().parent
    return path.resolve().name if path.is_dir() else path.stem


def default_output(word: str) -> Path:
    """Where `mirilla compile` writes without --out: beside the model; for 'shipped', in the current folder."""
    path = Path(word)
    folder = Path() if word == SHIPPED and not path.exists() else path if path.is_dir() else path.parent
    return folder / f"{name_of(word)}{binary.SUFFIX}"


def require_own_output(out: Path) -> None:
    """Refuse to replace a file that is no compiled model with its model.json.

    Raises:
        UsageError: it is another file.
    """
    if not out.exists():
        return
    if out.is_file() and out.suffix == binary.SUFFIX and cards.find(out) is not None:
        return
    raise UsageError(
        f"{out}: there is another file of this name, which 'mirilla compile' did not write.", "Give --out another name."
    )
