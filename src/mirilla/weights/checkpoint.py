"""Checkpoints: one safetensors file each, under the original's variable names and in TensorFlow's layouts.

A file holds every variable (`VAR`), its moving average (`VAR/ExponentialMovingAverage`), the optimiser's slots
(`VAR/RMSProp`, `VAR/RMSProp_1`, ...), `global_step`, and as metadata the seed: batches depend on seed and step alone,
so these are the whole random state. Files are written beside and moved into place: a killed run leaves whole ones.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirilla.errors import MissingExtraError, ModelError
from mirilla.files import explaining, write_bytes

AVERAGE = "ExponentialMovingAverage"
SLOTS = (AVERAGE, "RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")  # what follows a variable's name
NAME = re.compile(r"model\.ckpt-(\d+)\.safetensors")
KEEP = 5


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    variables: name -> array, averages and slots included, without `global_step`.
    metadata: what the run noted down: seed, config's hash.
    """

    step: int
    variables: dict[str, np.ndarray]
    metadata: dict[str, str]

    def weights(self, averages: bool = True) -> dict[str, np.ndarray]:
        """The network's own variables; trained ones as their moving averages where these exist and are wanted."""
        plain = {n: a for n, a in self.variables.items() if not _is_slot(n)}
        if averages:
            plain = {n: self.variables.get(f"{n}/{AVERAGE}", a) for n, a in plain.items()}
        return plain


def _is_slot(name: str) -> bool:
    return name.rpartition("/")[2] in SLOTS


def path_of(model_dir: Path, step: int) -> Path:
    return model_dir / f"model.ckpt-{step}.safetensors"


def all_checkpoints(model_dir: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    if not model_dir.is_dir():
        return []
    found = [(int(m[1]), p) for p in model_dir.iterdir() if (m := NAME.fullmatch(p.name))]
    return [path for _, path in sorted(found)]


def newest(model_dir: Path) -> Path | None:
    """The checkpoint of the highest step, or None."""
    found = all_checkpoints(model_dir)
    return found[-1] if found else None


class Keeper:
    """Writes the checkpoints of a run; every so many hours one of them stays when older ones go, as in TensorFlow 1.

    hours counts from when the Keeper is made; older files beyond the newest few are left alone.
    """

    def __init__(self, model_dir: Path, every_hours: float, clock: Callable[[], float] = time.time):
        self.model_dir, self.every_s, self.clock = model_dir, every_hours * 3600.0, clock
        self.next_s = clock() + self.every_s
        self.staying = set(all_checkpoints(model_dir)[:-KEEP])
        self.written_s: dict[Path, float] = {}

    def save(self, checkpoint: Checkpoint) -> Path:
        """As `save` below."""
        path = path_of(self.model_dir, checkpoint.step)
        self.written_s[path] = self.clock()
        for old in [p for p in all_checkpoints(self.model_dir) if p not in self.staying][: 1 - KEEP]:
            if self.written_s.get(old, 0.0) > self.next_s:
                self.staying.add(old)
                self.next_s += self.every_s
        return save(self.model_dir, checkpoint, staying=self.staying)


def save(model_dir: Path, checkpoint: Checkpoint, keep: int = KEEP, staying: Collection[Path] = ()) -> Path:
    """Write a checkpoint and remove all but the newest `keep` and those in `staying`.

    Raises:
        MirillaError: the disk is full or the folder cannot be written; the older checkpoints are still there.
    """
    path = path_of(model_dir, checkpoint.step)
    write_weights(
        path, checkpoint.variables | {"global_step": np.array(checkpoint.step, np.int64)}, checkpoint.metadata
    )
    for old in [p for p in all_checkpoints(model_dir) if p not in staying][:-keep]:
        with explaining(old):
            old.unlink(missing_ok=True)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, or any safetensors file of variables (its step is then 0).

    Raises:
        ModelError: the file is missing, cut short or no safetensors file.
    """
    variables, metadata = read_weights(path)
    step = int(np.ravel(variables.pop("global_step", np.array(0)))[0])
    return Checkpoint(step, variables, metadata)


def write_weights(path: Path, variables: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Arrays by name as a safetensors file, atomically."""
    try:
        from safetensors.numpy import save as to_bytes
    except ImportError as error:
        raise MissingExtraError("safetensors", "train", "Writing a checkpoint") from error
    arrays = {name: np.ascontiguousarray(array) for name, array in variables.items()}
    write_bytes(path, to_bytes(arrays, metadata={"format": "mirilla", **(metadata or {})}))


def read_weights(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise MissingExtraError("safetensors", "train", "Reading a checkpoint") from error
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint.", "Give a file 'model.ckpt-STEP.safetensors'.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            names = list(file.keys())  # no mapping: it has no iterator of its own
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise ModelError(
            f"{path}: not a whole safetensors file ({error}).",
            "Delete it and use an older checkpoint; it was probably cut short when it was copied.",
        ) from error
