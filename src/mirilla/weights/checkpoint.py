"""Training checkpoints: safetensors files with the original's variable names and TensorFlow's layouts.

A file contains every variable (`VAR`), its moving average (`VAR/ExponentialMovingAverage`), the optimiser's slots
(`VAR/RMSProp`, `VAR/RMSProp_1`, ...), `global_step`, and the seed as metadata. Batches depend on seed and step only,
so this is the whole random state. Files are written to a temporary name and then renamed, so a killed run leaves no
partial checkpoint.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.files import explaining
from mirilla.weights.arrays import load_safetensors, save_safetensors

AVERAGE = "ExponentialMovingAverage"
SLOTS = (AVERAGE, "RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")  # suffixes of a variable's name
NAME = re.compile(r"model\.ckpt-(\d+)\.safetensors")
KEEP = 5


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    variables: name -> array, including averages and slots, without `global_step`.
    metadata: what the run records: seed, hashes of the config and the records.
    """

    step: int
    variables: dict[str, NDArray]
    metadata: dict[str, str]

    def weights(self, averages: bool = True) -> dict[str, NDArray]:
        """The network's own variables; with `averages`, moving averages instead of the variables that have one."""
        plain = {name: value for name, value in self.variables.items() if not is_slot(name)}
        if averages:
            plain = {name: self.variables.get(f"{name}/{AVERAGE}", value) for name, value in plain.items()}
        return plain


def is_slot(name: str) -> bool:
    """Whether a variable is a moving average or a slot of another one."""
    return name.rpartition("/")[2] in SLOTS


def path_of(model_dir: Path, step: int) -> Path:
    return model_dir / f"model.ckpt-{step}.safetensors"


def all_checkpoints(model_dir: Path) -> list[Path]:
    """Checkpoints in a folder, oldest first."""
    if not model_dir.is_dir():
        return []
    steps = [(int(match[1]), path) for path in model_dir.iterdir() if (match := NAME.fullmatch(path.name))]
    return [path for _, path in sorted(steps)]


def newest(model_dir: Path) -> Path | None:
    """The checkpoint of the highest step, or None."""
    paths = all_checkpoints(model_dir)
    return paths[-1] if paths else None


class Keeper:
    """Saves a run's checkpoints and deletes older ones, except one every few hours, as TensorFlow 1 does.

    The hours count from when the Keeper is made. Checkpoints that are older than the newest few then are never deleted.
    """

    def __init__(self, model_dir: Path, every_hours: float, clock: Callable[[], float] = time.time):
        self.model_dir, self.every_s, self.clock = model_dir, every_hours * 3600.0, clock
        self.next_s = clock() + self.every_s
        self.permanent = set(all_checkpoints(model_dir)[:-KEEP])
        self.written_s: dict[Path, float] = {}

    def save(self, checkpoint: Checkpoint) -> Path:
        """As `save` below."""
        path = path_of(self.model_dir, checkpoint.step)
        self.written_s[path] = self.clock()
        for old in [p for p in all_checkpoints(self.model_dir) if p not in self.permanent][: 1 - KEEP]:
            if self.written_s.get(old, 0.0) > self.next_s:
                self.permanent.add(old)
                self.next_s += self.every_s
        return save(self.model_dir, checkpoint, permanent=self.permanent)


def save(model_dir: Path, checkpoint: Checkpoint, keep: int = KEEP, permanent: Collection[Path] = ()) -> Path:
    """Write a checkpoint; then delete all but the newest `keep` and those in `permanent`.

    Raises:
        MirillaError: the disk is full or the folder cannot be written to. The older checkpoints are still there.
    """
    path = path_of(model_dir, checkpoint.step)
    step = np.array(checkpoint.step, np.int64)
    save_safetensors(path, checkpoint.variables | {"global_step": step}, checkpoint.metadata)
    for old in [p for p in all_checkpoints(model_dir) if p not in permanent][:-keep]:
        with explaining(old):
            old.unlink(missing_ok=True)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, or any safetensors file of variables (its step is then 0).

    Raises:
        ModelError: the file is missing or damaged.
    """
    variables, metadata = load_safetensors(path)
    step = int(np.ravel(variables.pop("global_step", np.array(0)))[0])
    return Checkpoint(step, variables, metadata)
