"""Training checkpoints: safetensors files with the original's variable names and TensorFlow's layouts.

A file contains every variable (`VAR`), its moving average (`VAR/ExponentialMovingAverage`), the optimiser's slots
(`VAR/RMSProp`, `VAR/RMSProp_1`, ...), `global_step`, and the seed as metadata. Batches depend on seed and step only,
so this is the whole random state. Files are written to a temporary name and then renamed, so a killed run leaves no
partial checkpoint.

On request the same is written as a TensorFlow checkpoint too: model.ckpt-STEP.index and .data-00000-of-00001, and the
file `checkpoint`, from which TensorFlow reads the newest.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirilla.files import explaining
from mirilla.weights.arrays import load_safetensors, read_metadata, save_safetensors
from mirilla.weights.tensorflow_write import save_checkpoint, save_state

AVERAGE = "ExponentialMovingAverage"
SLOTS = (AVERAGE, "RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")  # suffixes of a variable's name
NAME = re.compile(r"model\.ckpt-(\d+)\.safetensors")
KEEP = 5
HAS_TENSORFLOW = "tensorflow_checkpoint"  # metadata of a file beside which we have written a TensorFlow checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    variables: name -> array, including averages and slots, without `global_step`.
    metadata: what the run records: seed, hashes of the config and the records.
    scalars: variables of the optimiser that only TensorFlow's checkpoints have, because they follow from the step.
    """

    step: int
    variables: dict[str, NDArray]
    metadata: dict[str, str]
    scalars: dict[str, float] = field(default_factory=dict)

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

    Args:
        tensorflow: write TensorFlow checkpoints too.
    """

    def __init__(
        self, model_dir: Path, every_hours: float, clock: Callable[[], float] = time.time, tensorflow: bool = False
    ):
        self.model_dir, self.every_s, self.clock = model_dir, every_hours * 3600.0, clock
        self.tensorflow = tensorflow
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
        return save(self.model_dir, checkpoint, permanent=self.permanent, tensorflow=self.tensorflow)


def save(
    model_dir: Path,
    checkpoint: Checkpoint,
    keep: int = KEEP,
    permanent: Collection[Path] = (),
    tensorflow: bool = False,
) -> Path:
    """Write a checkpoint; then delete all but the newest `keep` and those in `permanent`.

    Args:
        tensorflow: write a TensorFlow checkpoint too; it is deleted together with Mirilla's.

    Raises:
        MirillaError: the disk is full or the folder cannot be written to. The older checkpoints are still there.
    """
    path = path_of(model_dir, checkpoint.step)
    step = np.array(checkpoint.step, np.int64)
    variables = checkpoint.variables | {"global_step": step}
    if tensorflow:
        scalars = {name: np.array(value, np.float32) for name, value in checkpoint.scalars.items()}
        save_checkpoint(path.with_suffix(""), variables | scalars)
    metadata = checkpoint.metadata | ({HAS_TENSORFLOW: "true"} if tensorflow else {})
    save_safetensors(path, variables, metadata)
    paths = all_checkpoints(model_dir)
    outdated = [p for p in paths if p not in permanent][:-keep]
    if tensorflow:
        kept = [p.with_suffix("") for p in paths if p not in outdated]
        save_state(model_dir, [prefix.name for prefix in kept if _index(prefix).is_file()])
    for old in outdated:
        _delete(old)
    return path


def _delete(path: Path) -> None:
    """Delete a checkpoint, and the TensorFlow checkpoint that we have written beside it."""
    prefix = path.with_suffix("")
    files = [path]
    if HAS_TENSORFLOW in read_metadata(path):
        files = [_index(prefix), *prefix.parent.glob(f"{prefix.name}.data-*"), path]
    with explaining(path):
        for file in files:
            file.unlink(missing_ok=True)


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint, or any safetensors file of variables (its step is then 0).

    Raises:
        ModelError: the file is missing or damaged.
    """
    variables, metadata = load_safetensors(path)
    step = int(np.ravel(variables.pop("global_step", np.array(0)))[0])
    return Checkpoint(step, variables, metadata)
