"""The job's pipeline.config: network, recipe, anchors fitted to the data, initial weights, and number of steps."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirilla import config, shipped
from mirilla.config import anchor_fit, zoo
from mirilla.config.to_spec import model_spec, write_anchors
from mirilla.console import echo
from mirilla.data.sample import Sample
from mirilla.detect.models import find_model
from mirilla.errors import ModelError, UsageError
from mirilla.job import recipe
from mirilla.job.inputs import Inputs
from mirilla.job.options import JobOptions
from mirilla.job.prepare import Records
from mirilla.job.workspace import Done, NoFacts, Workspace, fingerprint, samples_fingerprint
from mirilla.labels import label_map_text
from mirilla.model import card
from mirilla.model.spec import ModelSpec
from mirilla.weights import load as weights

# Mosaics and zooming out also show objects at about half their size.
_SHOWN_SCALES = (1.0, 0.5)


@dataclass(frozen=True)
class TrainingIdentity:
    """The data and options that checkpoints depend on; training cannot continue with others.

    fingerprint: of the training pictures, the classes and `options`.
    options: name used in messages -> value.
    """

    fingerprint: str
    options: Mapping[str, object]

    @classmethod
    def of(cls, options: JobOptions, inputs: Inputs) -> TrainingIdentity:
        named: dict[str, object] = {
            "size": options.size_px,
            "model": options.model,
            "depth multiplier": options.depth_multiplier,
            "resize": options.resize,
            "recipe": options.recipe,
            "start": options.start,
            "seed": options.seed,
        }
        if _distils(options):
            named["teacher's share"] = options.teacher_share
        data = samples_fingerprint(inputs.train.samples, times=False), label_map_text(inputs.labels)
        return cls(fingerprint(fingerprint(*data), named), named)


def require_available(options: JobOptions) -> None:
    """Check that the files, the model and the device that the options name exist, before any data is read.

    Raises:
        UsageError, ModelError: an unknown model, a missing file for --start or --teacher, or no such device.
    """
    zoo.find(options.model)
    if options.start not in ("shipped", "scratch"):
        is_detector(start_file(options.start))
    if options.teacher is not None and not options.teacher.is_file():
        raise UsageError(f"--teacher {options.teacher}: no such file.", "Give a YuNet's ONNX file.")
    if options.device is not None and importlib.util.find_spec("torch"):
        from mirilla.training.device import pick_device

        pick_device(options.device)


def make_pipeline(
    workspace: Workspace, options: JobOptions, inputs: Inputs, records: Records, steps: int
) -> config.Pipeline:
    """The pipeline.config for a training of `steps` steps.

    Raises:
        ConfigError, UsageError: the options name something that does not exist, or do not fit together.
    """
    out = workspace.out.resolve()
    pipeline = config.sample(
        len(inputs.labels),
        [out / "data" / name for name in records.train],
        [out / "data" / name for name in records.eval],
        out / "label_map.pbtxt",
        steps=steps,
        batch_size=options.batch_size,
        height=options.size_px,
        width=options.size_px,
        num_eval_examples=len(inputs.evaluation),
        keep_aspect_ratio=options.resize == "letterbox",
    )
    zoo.apply(options.model, pipeline)
    if options.depth_multiplier is not None:
        pipeline.model.ssd.feature_extractor.depth_multiplier = options.depth_multiplier
    recipe.apply(recipe.for_steps(steps, options.batch_size, options.recipe), pipeline)
    if options.recipe != "tf1":
        fit_anchors(pipeline, inputs.train.samples)
    if options.teacher is not None and _distils(options):
        distillation = pipeline.mirilla.distillation
        distillation.teacher, distillation.share = str(options.teacher.resolve()), options.teacher_share
    _set_initial_weights(options, pipeline)
    pipeline.mirilla.seed = options.seed
    config.require(pipeline)
    return pipeline


def write_pipeline(
    workspace: Workspace,
    identity: TrainingIdentity,
    options: JobOptions,
    inputs: Inputs,
    records: Records,
    steps: int,
) -> config.Pipeline:
    """Write pipeline.config, and print the schedule and how well the anchors fit."""
    pipeline = make_pipeline(workspace, options, inputs, records, steps)
    path = workspace.out / "pipeline.config"

    def work() -> Done[NoFacts]:
        config.save(path, pipeline, "Written by 'mirilla run'; 'mirilla train --pipeline-config' reads it.")
        return Done([path], NoFacts())

    workspace.stage("configure", fingerprint(identity.fingerprint, config.dump(pipeline)), NoFacts, work)
    echo(f"  {steps} steps of {options.batch_size} pictures; {describe_recipe(options, steps)}")
    for line in _anchor_lines(pipeline, inputs):
        echo(f"  {line}")
    return pipeline


def describe_recipe(options: JobOptions, steps: int) -> str:
    """The schedule, on one line."""
    return recipe.for_steps(steps, options.batch_size, options.recipe).describe()


def fit_anchors(pipeline: config.Pipeline, samples: Iterable[Sample]) -> None:
    """Write anchors into a pipeline that fit the training objects at the sizes that training shows."""
    sizes = anchor_fit.training_sizes(samples, pipeline)
    shown = np.concatenate([sizes * scale for scale in _SHOWN_SCALES])
    write_anchors(pipeline, anchor_fit.fit_spec(model_spec(pipeline), shown))


def start_file(start: str) -> Path:
    """The file with the weights that --start names: the file itself, or that of an export, training or run folder.

    Raises:
        ModelError: a folder without a model or checkpoint.
    """
    path = Path(start)
    if not path.is_dir():
        return path  # perhaps a prefix
    found = find_model(path)
    return weights.load_newest_weights(found).path if found.is_dir() else found


def is_detector(path: Path) -> bool:
    """Whether a checkpoint holds a detector, rather than a classifier.

    Raises:
        ModelError: it cannot be read.
    """
    return any(name.startswith("FeatureExtractor/") for name in weights.load_variables(path)[0])


def _distils(options: JobOptions) -> bool:
    """Whether a teacher's scores enter the class targets; the losses of tf1 have no such targets."""
    return options.teacher is not None and options.teacher_share > 0 and options.recipe != "tf1"


def _anchor_lines(pipeline: config.Pipeline, inputs: Inputs) -> list[str]:
    report = anchor_fit.report(anchor_fit.training_sizes(inputs.train.samples, pipeline), model_spec(pipeline))
    overall = report.overall
    return [
        f"anchors: {overall.reached:.0%} of the objects have an anchor with an IoU of at least 0.5 "
        f"(mean best IoU {overall.mean_iou:.2f})",
        *(f"  {line}" for line in report.lines()),
    ]


def _set_initial_weights(options: JobOptions, pipeline: config.Pipeline) -> None:
    """Set the checkpoint of the initial weights: of a detector, all weights that fit; of a classifier (on ImageNet,
    for example), the base network, sliced to this network's width.

    Raises:
        ModelError: no such checkpoint.
    """
    if options.start == "scratch":
        return
    if options.start == "shipped":
        path, detector = _shipped_weights(model_spec(pipeline)), True
        if path is None:
            return
    else:
        path = start_file(options.start)
        detector = is_detector(path)
    train = pipeline.train_config
    train.fine_tune_checkpoint = str(path.resolve())
    train.fine_tune_checkpoint_type = "detection" if detector else "classification"
    train.load_all_detection_checkpoint_vars = detector
    pipeline.mirilla.fine_tune_slice_channels = not detector


def _shipped_weights(spec: ModelSpec) -> Path | None:
    """The package's own weights; None for a network of another width, or if the installation has none."""
    try:
        shipped_spec = card.load(shipped.default_model() / card.FILE_NAME).spec
    except ModelError:
        return None
    return shipped.default_weights() if shipped_spec.depth_multiplier == spec.depth_multiplier else None
