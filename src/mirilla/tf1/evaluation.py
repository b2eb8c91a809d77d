"""Evaluate checkpoints as the original scripts did, with figures for TensorBoard under the original's tags."""

from __future__ import annotations

import importlib.util
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.console import echo, progress
from mirilla.data.dataset import combine
from mirilla.data.read import read_dataset
from mirilla.data.sample import Sample
from mirilla.detect.detector import Detector
from mirilla.errors import ModelError, UsageError
from mirilla.evaluation.interface import Result
from mirilla.evaluation.measure import evaluate_model, prepare
from mirilla.job.measure import configured_metrics
from mirilla.labels import LabelMap
from mirilla.model.card import ModelCard
from mirilla.targets import frozen_graph
from mirilla.training.log import EventFile
from mirilla.weights import checkpoint
from mirilla.weights.load import load_weights
from mirilla.weights.training_folder import load_labels

THROTTLE_S = 600.0  # model_main starts an evaluation at most this often
POLL_S = 10.0

_COCO_TAGS = {
    "AP": "DetectionBoxes_Precision/mAP",
    "AP@.50": "DetectionBoxes_Precision/mAP@.50IOU",
    "AP@.75": "DetectionBoxes_Precision/mAP@.75IOU",
    **{f"AP {size}": f"DetectionBoxes_Precision/mAP ({size})" for size in ("small", "medium", "large")},
    **{f"AR@{limit}": f"DetectionBoxes_Recall/AR@{limit}" for limit in (1, 10, 100)},
    **{f"AR {size}": f"DetectionBoxes_Recall/AR@100 ({size})" for size in ("small", "medium", "large")},
}
_PASCAL_TAGS = {
    "mAP@0.5": "PascalBoxes_Precision/mAP@0.5IOU",
    "weighted mAP@0.5": "WeightedPascalBoxes_Precision/mAP@0.5IOU",
}


def tags(result: Result) -> dict[str, float]:
    """The figures of a result by the original's tags; COCO's undefined figures are -1, as in the original."""
    found = {}
    for figure in result.figures:
        if result.metric == "coco":
            found[_COCO_TAGS[figure.name]] = -1.0 if math.isnan(figure.value) else figure.value
        elif figure.name in _PASCAL_TAGS:
            found[_PASCAL_TAGS[figure.name]] = figure.value
        else:
            found[f"PascalBoxes_PerformanceByCategory/{figure.name.replace('/', 'IOU/', 1)}"] = figure.value
    return found


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate on.

    training_data: the training records instead of those for evaluation.
    one_of: evaluate on one of so many examples.
    default_metric: where eval_config.metrics_set is empty.
    """

    training_data: bool = False
    one_of: int = 1
    default_metric: str = "coco"


@dataclass(frozen=True)
class Evaluation:
    """The examples and metrics of a pipeline.config, read once, to evaluate checkpoints on.

    folder: for the event files.
    """

    pipeline: config.Pipeline
    labels: LabelMap
    samples: Sequence[Sample]
    metrics: tuple[str, ...]
    folder: Path

    @classmethod
    def open(cls, pipeline: config.Pipeline, source: Path, folder: Path, options: EvaluationOptions) -> Evaluation:
        """Read the records.

        Args:
            source: the pipeline.config's path, for messages.

        Raises:
            ConfigError, DataError, UsageError: there is nothing to evaluate on.
        """
        if options.one_of < 1:
            raise UsageError(f"One of {options.one_of} examples: the number must be at least 1.")
        name = "train_input_reader" if options.training_data else "eval_input_reader"
        reader = pipeline.train_input_reader if options.training_data else pipeline.eval_input_reader
        paths = list(reader.tf_record_input_reader.input_path)
        if not paths:
            raise UsageError(
                f"{source}: its {name} has no input file.", f"Set {name}.tf_record_input_reader.input_path."
            )
        dataset = combine([read_dataset(path, format="tfrecord") for path in paths])
        samples = dataset.samples[:: options.one_of]
        labels = load_labels(pipeline, source.parent, model_spec(pipeline).num_classes)
        metrics = configured_metrics(pipeline, source) or (options.default_metric,)
        prepare(samples, labels, metrics)
        return cls(pipeline, labels, samples, metrics, folder)

    def run(self, path: Path) -> None:
        """Evaluate a checkpoint: print the figures and write them as events.

        Raises:
            ModelError: the checkpoint cannot be read, or does not fit the pipeline.config.
        """
        weights = load_weights(path, self.pipeline.eval_config.use_moving_averages)
        spec = model_spec(self.pipeline)
        card = ModelCard(spec, self.labels, name=path.name)
        detector = Detector.from_graph(frozen_graph.build(spec, weights.variables), card, source=str(path))
        with progress("evaluating", len(self.samples), "photos") as bar:
            results = evaluate_model(detector, self.samples, self.labels, self.metrics, progress=bar)
        step = weights.step or 0
        scalars = {tag: value for result in results for tag, value in tags(result).items()}
        if importlib.util.find_spec("torch"):
            from mirilla.training.evaluation_losses import evaluation_losses

            scalars |= evaluation_losses(self.pipeline, weights.variables, self.samples, self.labels)
        events = EventFile(self.folder)
        events.add_scalars(step, {**scalars, "global_step": float(step)})
        events.close()
        echo(f"step {step}, evaluated on {len(self.samples)} pictures; events in {self.folder}")
        for tag, value in scalars.items():
            echo(f"  {tag} = {value:.6f}")


class Throttle:
    """Evaluates the checkpoints of a running training: at most every `every_s` seconds, and the last one."""

    def __init__(self, evaluate: Callable[[Path], object], every_s: float = THROTTLE_S):
        self._evaluate, self._every_s = evaluate, every_s
        self._started_s = -math.inf

    def __call__(self, path: Path, ends: bool) -> None:
        if ends or time.monotonic() - self._started_s >= self._every_s:
            self._started_s = time.monotonic()
            self._evaluate(path)


def follow(
    folder: Path,
    evaluate: Callable[[Path], object],
    *,
    once: bool,
    last_step: int | None = None,
    limit: int | None = None,
    every_s: float = POLL_S,
) -> None:
    """Evaluate the newest checkpoint of a folder, and each newer one that appears.

    Args:
        once: evaluate one checkpoint only.
        last_step: end with the checkpoint of this step; None: never.
        limit: end after so many evaluations; None: never.
        every_s: how often to look for a new checkpoint.

    Raises:
        ModelError: `once`, and there is no checkpoint.
    """
    seen: Path | None = None
    count = 0
    while True:
        path = newest_checkpoint(folder)
        if path is not None and path != seen:
            evaluate(path)
            seen, count = path, count + 1
            if once or count == limit or (last_step is not None and step_of(path) >= last_step):
                return
        elif once:
            raise ModelError(f"{folder}: no checkpoint in this folder.", "Train first, or name a training's folder.")
        elif path is None:
            echo(f"{folder}: no checkpoint yet; waiting. Ctrl-C ends.")
        time.sleep(every_s)


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of the highest step in a folder, of Mirilla or TensorFlow."""
    found = [*checkpoint.all_checkpoints(folder)[-1:]]
    found += [path.with_suffix("") for path in folder.glob("model.ckpt-*.index")]
    return max(found, key=step_of, default=None)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    step = re.match(r"model\.ckpt-(\d+)", path.name)
    return int(step[1]) if step else -1
