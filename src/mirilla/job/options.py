"""What the main job is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirilla.config import zoo
from mirilla.errors import UsageError
from mirilla.job import recipe
from mirilla.job.recipe import TEACHER_SHARE

DEFAULT_STEPS = 12_000
DEFAULT_EVAL_SHARE = 0.1


@dataclass(frozen=True)
class JobOptions:
    """Options of `mirilla run`; their words are the command line's.

    datasets: folders or annotation files; 'PATH@train' takes one part only.
    out: folder for everything that is made.
    eval_dataset: evaluated on this set (its eval part where it has a split), not on a part of `datasets`.
    eval_share: of a set without a split of its own, the share of pictures that is held back.
    split_file: rows 'file,train' or 'file,eval' that override the sets' own splits.
    steps: length of the training; None: by `minutes`, or else DEFAULT_STEPS.
    minutes: train about so long on this machine (its speed is measured first).
    batch_size: pictures per step.
    size_px: side of the network's square input.
    model: a network of the zoo (`mirilla zoo`).
    depth_multiplier: of the network's width; None: the model's own.
    recipe: 'mirilla', or 'tf1' for the sample's own matching, losses and augmentation.
    start: 'shipped' for the weights in the package, 'scratch', or the path of a checkpoint or model.
    teacher: an ONNX face detector; faces that it finds and the training labels miss are learnt or ignored.
    teacher_share: what the teacher's certainty counts beside a label (distillation); 0: nothing.
    resize: 'squash' (as the sample does) or 'letterbox'.
    device: 'cpu', 'cuda', 'mps' or None for the best there is.
    label_map: a .pbtxt; None: the classes found in the data, in their order.
    name: of the model; None: the out folder's name.
    restart: throw away what an earlier run made in `out`.
    """

    datasets: tuple[str, ...]
    out: Path
    eval_dataset: str | None = None
    eval_share: float = DEFAULT_EVAL_SHARE
    split_file: Path | None = None
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 24
    size_px: int = 256
    depth_multiplier: float | None = None
    model: str = zoo.DEFAULT
    recipe: str = recipe.DEFAULT
    start: str = "shipped"
    teacher: Path | None = None
    teacher_share: float = TEACHER_SHARE
    resize: str = "squash"
    device: str | None = None
    seed: int = 0
    label_map: Path | None = None
    name: str | None = None
    restart: bool = False

    def __post_init__(self):
        if not self.datasets:
            raise UsageError("No data set is given.", "mirilla run DATASET --out DIR; or try 'mirilla demo'.")
        if self.steps is not None and self.minutes is not None:
            raise UsageError("--steps and --minutes both say how long to train.", "Give one of them.")
        for name, value in (("--steps", self.steps), ("--batch-size", self.batch_size)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value}: it must be at least 1.")
        if self.minutes is not None and not self.minutes > 0:
            raise UsageError(f"--minutes {self.minutes}: it must be more than 0.")
        if not 0 <= self.teacher_share <= 1:
            raise UsageError(f"--teacher-share {self.teacher_share}: it must lie between 0 and 1.", "Try 0.5.")
        if not 0 < self.eval_share < 1:
            raise UsageError(f"--eval-share {self.eval_share}: it must lie between 0 and 1.", "Try 0.1.")
        if self.size_px < 32:
            raise UsageError(f"--size {self.size_px}: the network's input needs at least 32 pixels a side.")
        if self.recipe not in recipe.NAMES:
            raise UsageError(f"--recipe {self.recipe}: it is one of {', '.join(recipe.NAMES)}.")
        if self.depth_multiplier is not None and not self.depth_multiplier > 0:
            raise UsageError(f"--depth-multiplier {self.depth_multiplier}: it must be more than 0.")
        if self.resize not in ("squash", "letterbox"):
            raise UsageError(f"--resize {self.resize}: it is 'squash' or 'letterbox'.")
