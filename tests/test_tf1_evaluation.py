"""When the scripts evaluate, and under which tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirilla import config
from mirilla.errors import ModelError, UsageError
from mirilla.evaluation.interface import Figure, Result
from mirilla.tf1 import evaluation, flags, legacy
from mirilla.tf1.evaluation import Throttle, follow, newest_checkpoint, tags

SIZES = ("small", "medium", "large")
COCO = (
    "AP",
    "AP@.50",
    "AP@.75",
    *(f"AP {size}" for size in SIZES),
    "AR@1",
    "AR@10",
    "AR@100",
    *(f"AR {s}" for s in SIZES),
)


def test_coco_tags():
    figures = tags(Result("coco", tuple(Figure(name, i / 100) for i, name in enumerate(COCO)), {}))
    assert len(figures) == 12
    assert figures["DetectionBoxes_Precision/mAP@.75IOU"] == 0.02
    assert figures["DetectionBoxes_Precision/mAP (small)"] == 0.03
    assert figures["DetectionBoxes_Recall/AR@10"] == 0.07
    assert figures["DetectionBoxes_Recall/AR@100 (large)"] == 0.11


def test_an_undefined_figure_of_coco_is_minus_one():
    assert tags(Result("coco", (Figure("AP small", float("nan")),), {})) == {
        "DetectionBoxes_Precision/mAP (small)": -1.0
    }


def test_pascal_tags():
    figures = (Figure("mAP@0.5", 0.25), Figure("weighted mAP@0.5", 0.5), Figure("AP@0.5/face", 0.75))
    assert tags(Result("pascal", figures, {})) == {
        "PascalBoxes_Precision/mAP@0.5IOU": 0.25,
        "WeightedPascalBoxes_Precision/mAP@0.5IOU": 0.5,
        "PascalBoxes_PerformanceByCategory/AP@0.5IOU/face": 0.75,
    }


def test_at_most_every_ten_minutes_and_at_the_end(monkeypatch):
    times = iter((0.0, 0.0, 599.0, 601.0, 601.0, 700.0))
    monkeypatch.setattr(evaluation.time, "monotonic", lambda: next(times))
    seen: list[str] = []
    throttle = Throttle(lambda path: seen.append(path.name))
    for name in ("a", "b", "c"):
        throttle(Path(name), False)
    throttle(Path("d"), True)
    assert seen == ["a", "c", "d"]


def checkpoint(folder: Path, step: int, suffix: str = ".safetensors") -> None:
    (folder / f"model.ckpt-{step}{suffix}").touch()


def test_newest_checkpoint_of_both_kinds(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 9)
    checkpoint(tmp_path, 100, ".index")
    assert newest_checkpoint(tmp_path) == tmp_path / "model.ckpt-100"
    checkpoint(tmp_path, 1000)
    assert newest_checkpoint(tmp_path) == tmp_path / "model.ckpt-1000.safetensors"


def test_follow_until_the_last_step(tmp_path):
    seen: list[int] = []

    def evaluate(path: Path) -> None:
        seen.append(evaluation.step_of(path))
        checkpoint(tmp_path, seen[-1] + 10)

    checkpoint(tmp_path, 10)
    follow(tmp_path, evaluate, once=False, last_step=30, every_s=0)
    assert seen == [10, 20, 30]
    follow(tmp_path, evaluate, once=False, limit=2, every_s=0)
    assert seen[3:] == [40, 50]
    follow(tmp_path, evaluate, once=True, every_s=0)
    assert seen[5:] == [60]


def test_once_needs_a_checkpoint(tmp_path):
    with pytest.raises(ModelError, match="no checkpoint"):
        follow(tmp_path, print, once=True)


def write_parts(folder: Path) -> list[str]:
    pipeline = config.sample(1, ["a.record"], ["b.record"], "map.pbtxt")
    parts = {
        "train_config": pipeline.train_config,
        "input_config": pipeline.train_input_reader,
        "model_config": pipeline.model,
    }
    for name, part in parts.items():
        config.save(folder / f"{name}.pbtxt", part)
    return [f"--{name}_path={folder / name}.pbtxt" for name in parts]


def test_three_files_are_one_pipeline(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("mirilla.training.trainer.train", lambda *args, **options: calls.append((args, options)))
    words = ["--train_dir=t", *write_parts(tmp_path), "--clone_on_cpu"]
    assert legacy.train(flags.parse("train", words, print)) == 0
    [((pipeline, folder), options)] = calls
    assert pipeline.model.ssd.num_classes == 1
    assert list(pipeline.train_input_reader.tf_record_input_reader.input_path) == ["a.record"]
    assert (folder, options["device"]) == (Path("t"), "cpu")


@pytest.mark.parametrize(
    ("more", "message"), [(["--pipeline_config_path=p"], "cannot be combined"), ([], "--input_config_path is missing")]
)
def test_the_forms_of_the_configuration(tmp_path, more, message):
    words = write_parts(tmp_path)
    given = ["--train_dir=t", *more, *(words if more else [words[0], words[2]])]
    with pytest.raises(UsageError, match=message):
        legacy.train(flags.parse("train", given, print))
