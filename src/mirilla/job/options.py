"""The options of `mirilla run`, `demo` and `init`, each declared once: field, default, help and rule."""

# ruff: noqa: RUF009 (option(), same() and required() make dataclass fields)

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirilla.data import formats
from mirilla.errors import UsageError
from mirilla.job.option_fields import AT_LEAST_1, MORE_THAN_0, Rule, check, option, required, same

DEFAULT_STEPS = 12_000
MIN_SIZE_PX = 32
RECIPES = ("mirilla", "tf1")


@dataclass(frozen=True)
class JobOptions:
    """Options of the main job. None selects the default described in an option's help."""

    datasets: tuple[str, ...] = required(
        "folder or annotation file of any known format; DATASET@train selects one part", flag="", metavar="DATASET"
    )
    out: Path = required("folder for all files that the run writes", metavar="DIR")
    eval_dataset: str | None = option(
        None, "evaluate on this data set (on its eval part if it has a split)", flag="--eval", metavar="DATASET"
    )
    eval_share: float = option(
        0.1,
        "share of the pictures to hold out for evaluation, without --eval and without a split",
        metavar="S",
        rule=Rule("lie between 0 and 1", lambda share: 0 < share < 1, "Try 0.1."),
    )
    split_file: Path | None = option(
        None, "CSV file with rows 'file,train' or 'file,eval'; replaces the data sets' own splits", metavar="F"
    )
    label_map: Path | None = option(None, "label map (default: made from the classes in the data)", metavar="P")
    steps: int | None = option(
        None, f"training steps (default: {DEFAULT_STEPS})", metavar="N", rule=AT_LEAST_1, group="length"
    )
    minutes: float | None = option(
        None,
        "train for about this many minutes: as many steps as this machine can run in that time",
        metavar="M",
        rule=MORE_THAN_0,
        group="length",
    )
    batch_size: int = option(24, "pictures per step", metavar="B", rule=AT_LEAST_1, alias="--batch")
    size_px: int = option(
        256,
        "side of the network's square input in pixels",
        flag="--size",
        metavar="N",
        rule=Rule(f"be at least {MIN_SIZE_PX}", lambda size: size >= MIN_SIZE_PX),
        alias="--imgsz",
    )
    depth_multiplier: float | None = option(
        None, "width of the network (default: that of --model)", metavar="D", rule=MORE_THAN_0
    )
    model: str = option("kit", "network; 'mirilla zoo' lists them", metavar="NAME")
    recipe: str = option(
        "mirilla",
        "training recipe: mirilla, or tf1 for the matching, losses and augmentation of the TensorFlow original",
        metavar="NAME",
        choices=RECIPES,
    )
    start: str = option(
        "shipped",
        "initial weights: 'shipped' (the face detector in the package), 'scratch' (random), or the path of a "
        "checkpoint or model",
        metavar="W",
        alias="--weights",
    )
    teacher: Path | None = option(
        None,
        "ONNX face detector (YuNet): faces that it finds and the labels miss become labels, or are ignored if its "
        "score is low",
        metavar="ONNX",
    )
    teacher_share: float = option(
        0.0,
        # Its detections as labels bring as much, in less time (benchmarks/accuracy.md, "A teacher").
        "distillation: weight of the teacher's score against the label in the class target, from 0 (labels only) "
        "to 1; try 0.5",
        metavar="S",
        rule=Rule("lie between 0 and 1", lambda share: 0 <= share <= 1, "Try 0.5."),
    )
    resize: str = option(
        "squash",
        "how a photo becomes the square input: stretched, or scaled and padded",
        choices=("squash", "letterbox"),
    )
    device: str | None = option(None, "cpu, cuda, cuda:1 or mps (default: the fastest available)", metavar="D")
    seed: int = option(0, "random seed for initial values, order, augmentation and the held-out share", metavar="N")
    name: str | None = option(None, "name of the model (default: the name of DIR)")
    restart: bool = option(False, "delete what an earlier run wrote to DIR, and start from the beginning")

    def __post_init__(self) -> None:
        if not self.datasets:
            raise UsageError("No data set is given.", "mirilla run DATASET --out DIR; or try 'mirilla demo'.")
        if self.steps is not None and self.minutes is not None:
            raise UsageError("--steps and --minutes exclude each other.", "Give one of them.")
        check(self)


@dataclass(frozen=True)
class DemoOptions:
    """Options of `mirilla demo`. The defaults take a few minutes on two cores."""

    out: Path = same(JobOptions, "out", default=Path("mirilla-demo"))
    steps: int = same(JobOptions, "steps", default=3000, help="training steps", group="")
    pictures: int = option(
        600,
        "pictures to draw for training",
        metavar="N",
        rule=Rule(
            f"be at least {JobOptions.batch_size}, since one step takes so many", lambda n: n >= JobOptions.batch_size
        ),
    )
    seed: int = same(JobOptions, "seed", default=1, help="random seed for drawing and training")
    device: str | None = same(JobOptions, "device")
    restart: bool = same(JobOptions, "restart")

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class InitOptions:
    """Options of `mirilla init`. The checks of the configuration refuse values out of range."""

    datasets: tuple[str, ...] = required(
        "folder, annotation file or TFRecord files (several are joined); PATH@train and PATH@eval choose a part",
        flag="",
        metavar="DATASET",
    )
    out: Path = required("the pipeline.config to write", metavar="FILE")
    eval_datasets: tuple[str, ...] = option(
        (),
        "data sets for evaluation (default: the data set's own split, else --eval-share of it)",
        flag="--eval",
        metavar="DATASET",
    )
    eval_share: float = same(JobOptions, "eval_share")
    from_format: str | None = option(
        None, "format of the data sets (default: recognised)", flag="--from", choices=formats.READABLE
    )
    label_map: Path | None = same(JobOptions, "label_map")
    steps: int | None = same(JobOptions, "steps", help="training steps", group="")
    batch_size: int = same(JobOptions, "batch_size")
    depth_multiplier: float = same(JobOptions, "depth_multiplier", default=0.125, help="width of the network")
    size_px: int = same(JobOptions, "size_px")
    letterbox: bool = option(False, "scale a photo and pad it, to keep its proportions (default: stretch it)")
    convert: bool = option(False, "also write the TFRecord files, unless DATASET has them already")
    records: Path | None = option(None, "folder of the TFRecord files (default: 'records' beside FILE)", metavar="DIR")
    force: bool = option(False, "replace existing files")

    @property
    def records_folder(self) -> Path:
        return self.out.with_name("records") if self.records is None else self.records
