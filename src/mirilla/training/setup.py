"""Prepare a training run: the network, the records, and the checkpoint to resume from."""

from __future__ import annotations

import glob
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from mirilla import config, console
from mirilla.batches.dataset import TrainingSet, open_training_set
from mirilla.config.to_spec import model_spec
from mirilla.errors import ConfigError
from mirilla.files import explaining, write_text
from mirilla.labels import load_label_map
from mirilla.training import distillation
from mirilla.training.allocator import keep_freed_memory
from mirilla.training.distillation import SoftLabels
from mirilla.training.distributed import Group
from mirilla.training.learner import Learner
from mirilla.training.plan import Plan, training_plan
from mirilla.weights import checkpoint as checkpoints
from mirilla.weights.checkpoint import Checkpoint
from mirilla.weights.restore import DETAILS, restore, restore_options


@dataclass(frozen=True)
class Setup:
    """A training run that is ready for its first step.

    last: the last step; None trains until stopped.
    metadata: stored in its checkpoints.
    """

    learner: Learner
    data: TrainingSet
    teacher: SoftLabels | None
    model_dir: Path
    last: int | None
    metadata: dict[str, str]


def prepare(
    pipeline: config.Pipeline,
    model_dir: Path,
    num_steps: int | None,
    device: torch.device,
    group: Group,
    precision: str,
    config_path: Path | None,
) -> Setup:
    """Build, initialise or resume the network, and read the records; see `trainer.train` for arguments and errors."""
    with group.main_process_first():
        for finding in config.require(pipeline, ("model", "train"), config_path):
            if finding.severity == "warning":
                console.warn(f"{finding.where}: {finding.what} {finding.remedy}")
        spec = model_spec(pipeline)
        plan = training_plan(pipeline, spec)
        keep_freed_memory()
        with explaining(model_dir):
            model_dir.mkdir(parents=True, exist_ok=True)
        previous = checkpoints.newest(model_dir)
        _require_files(pipeline, is_resumed=previous is not None)
        learner = Learner(spec, plan, device, group, precision)
        # before the records, which may take minutes to read
        if previous is None and group.is_main:
            _fine_tune(learner, pipeline, model_dir)
        teacher = None
        if plan.distillation is not None:
            labels = load_label_map(pipeline.train_input_reader.label_map_path)
            teacher = distillation.load(plan.distillation, labels, spec)
        data = open_training_set(pipeline, spec, model_dir / "cache")
    metadata = {"seed": str(plan.seed), "config": config_hash(pipeline), "data": data.key}
    if group.is_main:
        if previous is not None:
            _resume(learner, previous, metadata)
        config.save(model_dir / "pipeline.config", pipeline)
    learner.broadcast_from_main()
    return Setup(learner, data, teacher, model_dir, _last_step(plan, len(data), num_steps), metadata)


def config_hash(pipeline: config.Pipeline) -> str:
    return hashlib.sha256(config.dump(pipeline).encode()).hexdigest()


def warn_of_changes(saved: Checkpoint, metadata: dict[str, str]) -> None:
    """Warn if the config or the records are not those that the checkpoint was trained with."""
    for key, what in (("config", "pipeline.config"), ("data", "the training records")):
        if key in metadata and key in saved.metadata and saved.metadata[key] != metadata[key]:
            console.warn(f"{what} changed since the checkpoint of step {saved.step} was written.")


def _require_files(pipeline: config.Pipeline, is_resumed: bool) -> None:
    """Name all missing files at once. A single one is left to its reader, whose message says more.

    Raises:
        ConfigError: at least two files that the pipeline names do not exist.
    """
    reader, start = pipeline.train_input_reader, pipeline.train_config.fine_tune_checkpoint
    paths = [("train_input_reader.label_map_path", reader.label_map_path)]
    paths += [("tf_record_input_reader.input_path", path) for path in reader.tf_record_input_reader.input_path]
    if start and not is_resumed:
        paths.append(("train_config.fine_tune_checkpoint", start))
    missing = [f"{field}: {path}" for field, path in paths if not _exists(path)]
    if len(missing) > 1:
        listed = "".join(f"\n  {one}" for one in missing)
        raise ConfigError(
            f"{len(missing)} files of the pipeline.config do not exist:{listed}",
            "Correct the paths; relative ones begin at the current folder.",
        )


def _exists(path: str) -> bool:
    """Whether a file exists, a pattern or set of shards has one, or a checkpoint's prefix has a file."""
    pattern = re.sub(r"@\d+$|\?{5}", "*", path)
    return Path(path).exists() or any(glob.iglob(pattern)) or any(glob.iglob(f"{glob.escape(path)}.*"))


def _fine_tune(learner: Learner, pipeline: config.Pipeline, model_dir: Path) -> None:
    """Start from train_config.fine_tune_checkpoint, if it is set."""
    options = restore_options(pipeline)
    if options is None:
        return
    restored = restore(learner.network.get_weights(), options)
    learner.restore(Checkpoint(0, restored.variables, {}))
    write_text(model_dir / DETAILS, restored.details())
    console.echo(f"{restored.summary()}. All names: {model_dir / DETAILS}")


def _resume(learner: Learner, path: Path, metadata: dict[str, str]) -> None:
    saved = checkpoints.load(path)
    warn_of_changes(saved, metadata)
    learner.restore(saved)
    console.echo(f"resuming from {path.name}")


def _last_step(plan: Plan, pictures: int, num_steps: int | None) -> int | None:
    """The last step: from the argument or the config, limited by num_epochs."""
    last = num_steps if num_steps is not None else plan.num_steps
    if plan.num_epochs is None:
        return last
    end = plan.num_epochs * pictures // plan.batch_size
    if not end:
        raise ConfigError(
            f"train_input_reader.num_epochs: {plan.num_epochs} epochs of {pictures} pictures do not fill "
            f"one batch of {plan.batch_size}.",
            "Remove num_epochs, or lower train_config.batch_size.",
        )
    return end if last is None else min(last, end)
