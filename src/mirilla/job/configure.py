"""The job's pipeline.config: the network, the recipe, anchors fitted to the data, first weights, and its length."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mirilla import config, console
from mirilla.config import anchor_fit, zoo
from mirilla.config.to_spec import model_spec, write_anchors
from mirilla.data.sample import Sample
from mirilla.errors import TrainingError, UsageError
from mirilla.job import recipe
from mirilla.job import steps as parts
from mirilla.job.inputs import Inputs
from mirilla.job.options import DEFAULT_STEPS, JobOptions
from mirilla.job.workspace import Done, Workspace, fingerprint
from mirilla.report.page import read_log

_SPEED_STEPS = 40
# Mosaics and zooming out show objects at about half their size, too.
_SHOWN_AT = (1.0, 0.5)


def lasting_options(options: JobOptions) -> dict[str, Any]:
    """What a trained model's training can not go on with when it changes."""
    lasting = {
        "size": options.size_px,
        "model": options.model,
        "depth multiplier": options.depth_multiplier,
        "resize": options.resize,
        "recipe": options.recipe,
        "start": options.start,
        "seed": options.seed,
    }
    return lasting | ({"teacher's share": options.teacher_share} if _distils(options) else {})


def _distils(options: JobOptions) -> bool:
    """Whether a teacher softens the labels; the original's losses have no use for that."""
    return options.teacher is not None and options.teacher_share > 0 and options.recipe != "tf1"


def require(options: JobOptions) -> None:
    """Complain of what is not there before anything is read.

    Raises:
        UsageError, ModelError: the zoo has no such model, or --start and --teacher name no file.
    """
    zoo.find(options.model)
    if options.start not in ("shipped", "scratch"):
        parts.is_detector(Path(options.start))
    if options.teacher is not None and not options.teacher.is_file():
        raise UsageError(f"--teacher {options.teacher}: no such file.", "Give a YuNet's ONNX file.")


def pipeline_of(
    workspace: Workspace, options: JobOptions, found: Inputs, converted: Mapping[str, Any], steps: int
) -> config.Pipeline:
    """The pipeline.config of a training of so many steps on the converted records.

    Raises:
        ConfigError, UsageError: the options ask for something that there is not.
    """
    out = workspace.out.resolve()
    records = {part: [out / "data" / name for name in converted[part]] for part in ("train", "eval")}
    pipeline = config.sample(
        len(found.labels),
        records["train"],
        records["eval"],
        out / "label_map.pbtxt",
        steps=steps,
        batch_size=options.batch_size,
        height=options.size_px,
        width=options.size_px,
        num_eval_examples=len(found.evaluation),
        keep_aspect_ratio=options.resize == "letterbox",
    )
    zoo.apply(options.model, pipeline)
    if options.depth_multiplier is not None:
        pipeline.model.ssd.feature_extractor.depth_multiplier = options.depth_multiplier
    recipe.apply(recipe.for_steps(steps, options.batch_size, options.recipe), pipeline)
    if options.recipe != "tf1":
        fit_anchors(pipeline, found.train.samples)
    if options.teacher is not None and _distils(options):
        distillation = pipeline.mirilla.distillation
        distillation.teacher, distillation.share = str(options.teacher.resolve()), options.teacher_share
    _start(options, pipeline)
    pipeline.mirilla.seed = options.seed
    config.require(pipeline)
    return pipeline


def fit_anchors(pipeline: config.Pipeline, samples: Iterable[Sample]) -> None:
    """Write anchors that fit the training objects, as training shows them, into a pipeline."""
    sizes = anchor_fit.training_sizes(samples, pipeline)
    shown = np.concatenate([sizes * share for share in _SHOWN_AT])
    write_anchors(pipeline, anchor_fit.fit_spec(model_spec(pipeline), shown))


def anchor_lines(pipeline: config.Pipeline, found: Inputs) -> list[str]:
    """How well a pipeline's anchors fit the training objects, for people."""
    spec = model_spec(pipeline)
    report = anchor_fit.report(anchor_fit.training_sizes(found.train.samples, pipeline), spec)
    whole = report.overall
    return [
        f"anchors: {whole.reached:.0%} of the objects meet one at an IoU of 0.5 or more (mean {whole.mean_iou:.2f})",
        *(f"  {line}" for line in report.lines()),
    ]


def _start(options: JobOptions, pipeline: config.Pipeline) -> None:
    """Name the first weights: of a detector all that fits, of a classifier (ImageNet's, say) the base network, sliced
    to this one's width.

    Raises:
        ModelError: there is no such checkpoint.
    """
    if options.start == "scratch":
        return
    train = pipeline.train_config
    if options.start == "shipped":
        path, detector = parts.shipped_weights(model_spec(pipeline)), True
        if path is None:
            return
    else:
        path = Path(options.start)
        detector = parts.is_detector(path)
    train.fine_tune_checkpoint = str(path.resolve())
    train.fine_tune_checkpoint_type = "detection" if detector else "classification"
    train.load_all_detection_checkpoint_vars = detector
    pipeline.mirilla.fine_tune_slice_channels = not detector


def steps_of(
    workspace: Workspace, options: JobOptions, found: Inputs, converted: Mapping[str, Any], lasting: str
) -> int:
    """How many steps to train: as asked for, or as many as fit into the minutes on this machine."""
    if options.minutes is None:
        return options.steps or DEFAULT_STEPS
    folder = workspace.out / "speed"

    def stage() -> Done:
        pipeline = pipeline_of(workspace, options, found, converted, _SPEED_STEPS)
        try:
            parts.train(pipeline, folder, _SPEED_STEPS, options.device)
            speeds = [e["images_per_s"] for e in read_log(folder / "log.jsonl") if e.get("images_per_s")]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if not speeds:
            raise TrainingError("The training's speed could not be measured.", "Give --steps rather than --minutes.")
        return Done((), {"images_per_s": speeds[-1]})

    speed = workspace.stage("speed", fingerprint(lasting, options.batch_size, options.minutes, options.device), stage)
    steps = max(1, int(speed["images_per_s"] * 60 * (options.minutes or 0) / options.batch_size))
    console.echo(f"  {speed['images_per_s']:.0f} pictures/s: {steps} steps in {options.minutes:g} min")
    return steps


def configure(
    workspace: Workspace,
    options: JobOptions,
    found: Inputs,
    converted: Mapping[str, Any],
    steps: int,
    lasting: str,
) -> config.Pipeline:
    """Write the run's pipeline.config."""
    pipeline = pipeline_of(workspace, options, found, converted, steps)
    path = workspace.out / "pipeline.config"

    def stage() -> Done:
        config.save(path, pipeline, "Written by 'mirilla run'; 'mirilla train --pipeline-config' reads it.")
        return Done((path,))

    workspace.stage("configure", fingerprint(lasting, config.dump(pipeline)), stage)
    console.echo(
        f"  {steps} steps of {options.batch_size} pictures; "
        f"{recipe.for_steps(steps, options.batch_size, options.recipe).describe()}"
    )
    for line in anchor_lines(pipeline, found):
        console.echo(f"  {line}")
    return pipeline
