"""`mirilla run` with a fake trainer: stages, resuming, refusals, and the files of a job."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from helpers_job import csv_set, make
from mirilla.cli.main import build_parser, main
from mirilla.config.to_spec import model_spec
from mirilla.job import evaluate, prepare, training
from mirilla.model.layers import architecture
from mirilla.toy import dataset as toy


@pytest.fixture(scope="module")
def toy_set(tmp_path_factory) -> Path:
    return toy.write(tmp_path_factory.mktemp("data") / "toy", train=20, val=8, seed=5)


class FakeTrainer:
    """Writes a checkpoint file with the step in its name; `stop_at` stops it as Ctrl-C would."""

    def __init__(self):
        self.calls: list[tuple[int, int | None]] = []  # (steps asked for, step begun at)
        self.stop_at: int | None = None

    def step(self, folder: Path) -> int | None:
        steps = [int(p.stem.partition("-")[2]) for p in folder.glob("ckpt-*.npz")] if folder.is_dir() else []
        return max(steps, default=None)

    def train(self, pipeline, folder: Path, steps: int, device) -> None:
        self.calls.append((steps, self.step(folder)))
        reached = min(steps, self.stop_at) if self.stop_at else steps
        folder.mkdir(exist_ok=True)
        rng = np.random.default_rng(reached)
        spec = model_spec(pipeline)
        weights = {
            name: (np.ones(shape) if name.endswith(("gamma", "moving_variance")) else rng.normal(0, 0.05, shape))
            for name, shape, _ in architecture(spec).variables()
        }
        (folder / "log.jsonl").write_text(
            "".join(
                json.dumps({"step": s, "loss": 5 / s, "learning_rate": 0.01, "images_per_s": 240.0}) + "\n"
                for s in range(1, 6)
            )
        )
        np.savez(folder / f"ckpt-{reached}.npz", **weights)
        if reached < steps:
            raise KeyboardInterrupt

    def trained(self, folder: Path, averages: bool = True) -> training.Trained:
        step = self.step(folder)
        assert step is not None
        with np.load(folder / f"ckpt-{step}.npz") as file:
            return training.Trained({n: file[n].astype(np.float32) for n in file.files}, step)


@pytest.fixture
def trainer(monkeypatch) -> FakeTrainer:
    fake = FakeTrainer()
    monkeypatch.setattr(training, "require_training", lambda: None)
    monkeypatch.setattr(training, "train", fake.train)
    monkeypatch.setattr(training, "trained_step", fake.step)
    monkeypatch.setattr(training, "newest_checkpoint", lambda folder: folder / f"ckpt-{fake.step(folder)}.npz")
    monkeypatch.setattr(training, "trained", fake.trained)
    return fake


def redone(text: str) -> list[str]:
    """The stages that were done rather than skipped."""
    heads = [line for line in text.splitlines() if line.startswith("[")]
    return [line.strip("[]") for line in heads if line.endswith("]") and line != "[read]"]


ALL = ["check", "convert", "configure", "train", "evaluate", "export", "detect", "report"]


def test_makes_everything_and_skips_it_the_second_time(toy_set, tmp_path, trainer, capsys):
    out = tmp_path / "job"
    command = ["run", str(toy_set), "--out", str(out), "--steps", "50"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert redone(printed) == ALL
    for name in (
        "report.html",
        "contact_sheet.jpg",
        "metrics.json",
        "pipeline.config",
        "label_map.pbtxt",
        "data/train.tfrecord",
        "data/eval.tfrecord",
        "export/frozen_inference_graph.pb",
        "export/model.json",
    ):
        assert (out / name).stat().st_size, name
        assert str(out / name) in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert [r["metric"] for r in metrics["results"]] == ["faces", "coco", "pascal"]
    assert "squash" in metrics["results"][0]["protocol"]["detector"]
    card = json.loads((out / "export" / "model.json").read_text())
    assert card["recommended_threshold"] == metrics["threshold"]
    assert card["metrics"][0]["name"] == "AP@0.5"
    before = {
        p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name not in (".run.lock", "run.json")
    }
    assert main(command) == 0
    assert redone(capsys.readouterr().out) == []
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert len(trainer.calls) == 1


def test_the_next_commands_run(toy_set, tmp_path, trainer, capsys, monkeypatch):
    """Each printed command does what it says; the last one trains on."""
    monkeypatch.chdir(tmp_path)
    command = ["run", str(toy_set), "--out", "my job", "--steps", "50", "--size", "128", "--seed", "3"]
    assert main(command) == 0
    printed = capsys.readouterr().out.partition("Next steps")[2]
    commands = [shlex.split(line)[1:] for line in printed.splitlines() if line.strip().startswith("mirilla ")]
    assert [words[0] for words in commands] == ["detect", "eval", "compile", "deploy", "export", "run"]
    photo = str(next(toy_set.rglob("*.jpg")))
    places = {"PHOTO...": photo, "DATASET": f"{toy_set}@eval"}
    for words in commands:
        words = [places.get(word, word) for word in words]
        if words[0] == "deploy":
            build_parser("deploy").parse_args(words)
        elif words[0] == "export":
            build_parser("export").parse_args(words)  # tests/test_exports.py runs it
        else:
            assert main(words) == 0, words
    assert (tmp_path / "detected" / "detections.json").is_file()
    assert (tmp_path / "my job" / "kit.binaryproto").is_file()
    assert trainer.calls == [(50, None), (100, 50)]


def test_resumes_where_training_was_stopped(toy_set, tmp_path, trainer, capsys):
    command = ["run", str(toy_set), "--out", str(tmp_path / "job"), "--steps", "50"]
    trainer.stop_at = 30
    assert main(command) == 130
    capsys.readouterr()
    trainer.stop_at = None
    assert main(command) == 0
    assert redone(capsys.readouterr().out) == ALL[3:]
    assert trainer.calls == [(50, None), (50, 30)]


@pytest.mark.parametrize(
    ("module", "function"), [(prepare, "check_samples"), (prepare, "write_tfrecords"), (evaluate, "write_text")]
)
def test_resumes_after_being_killed_anywhere(toy_set, tmp_path, trainer, monkeypatch, module, function):

    command = ["run", str(toy_set), "--out", str(tmp_path / "job"), "--steps", "50"]
    real = getattr(module, function)

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, function, die)
    assert main(command) == 130
    monkeypatch.setattr(module, function, real)
    assert main(command) == 0
    assert (tmp_path / "job" / "report.html").exists()


def test_redoes_a_stage_whose_file_is_gone(toy_set, tmp_path, trainer, capsys):
    command = ["run", str(toy_set), "--out", str(tmp_path / "job"), "--steps", "50"]
    assert main(command) == 0
    (tmp_path / "job" / "contact_sheet.jpg").unlink()
    capsys.readouterr()
    assert main(command) == 0
    assert redone(capsys.readouterr().out) == ["detect"]


def test_more_steps_train_on(toy_set, tmp_path, trainer, capsys):
    command = ["run", str(toy_set), "--out", str(tmp_path / "job"), "--steps"]
    assert main([*command, "50"]) == 0
    capsys.readouterr()
    assert main([*command, "80"]) == 0
    assert redone(capsys.readouterr().out) == ALL[2:]
    assert trainer.calls[-1] == (80, 50)


def test_another_network_is_refused_while_a_model_is_there(toy_set, tmp_path, trainer, capsys):
    command = ["run", str(toy_set), "--out", str(tmp_path / "job"), "--steps", "50"]
    assert main(command) == 0
    assert main([*command, "--size", "128"]) == 2
    assert "size: 256 then, 128 now" in capsys.readouterr().err
    assert trainer.step(tmp_path / "job" / "train") == 50  # still there
    assert main([*command, "--size", "128", "--restart"]) == 0
    assert len(trainer.calls) == 2
    assert trainer.calls[1] == (50, None)


def test_other_training_data_is_refused_while_a_model_is_there(tmp_path, trainer, capsys):
    data = toy.write(tmp_path / "toy", train=12, val=6, seed=2)
    command = ["run", str(data), "--out", str(tmp_path / "job"), "--steps", "5"]
    assert main(command) == 0
    listing = data / "wider_face_split" / "wider_face_train_bbx_gt.txt"
    lines = listing.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if len(line.split()) == 10 and not line.startswith("0 0 0 0"))
    numbers = lines[at].split()
    lines[at] = " ".join([numbers[0], numbers[1], str(int(numbers[2]) - 1), *numbers[3:]])
    listing.write_text("\n".join(lines) + "\n")
    assert main(command) == 2
    assert "changed" in capsys.readouterr().err


def test_copied_pictures_are_the_same_pictures(tmp_path, trainer, capsys):
    data = toy.write(tmp_path / "toy", train=12, val=6, seed=2)
    command = ["run", str(data), "--out", str(tmp_path / "job"), "--steps", "5"]
    assert main(command) == 0
    for picture in data.rglob("*.jpg"):
        os.utime(picture, (1, 1))
    capsys.readouterr()
    assert main(command) == 0
    assert "convert" in redone(capsys.readouterr().out)
    assert trainer.calls[-1] == (5, 5)  # checked again, nothing left to do


def test_minutes_measure_the_speed_first(toy_set, tmp_path, trainer):
    assert main(["run", str(toy_set), "--out", str(tmp_path / "job"), "--minutes", "0.5", "--batch-size", "12"]) == 0
    assert [steps for steps, _ in trainer.calls] == [40, 600]  # 240 pictures/s for half a minute, by twelves
    assert not (tmp_path / "job" / "speed").exists()


def test_letterbox_and_size_reach_the_config(toy_set, tmp_path, trainer):
    from mirilla import config

    out = tmp_path / "job"
    options = ["--resize", "letterbox", "--size", "128", "--depth-multiplier", "0.25", "--seed", "3"]
    assert main(["run", str(toy_set), "--out", str(out), "--steps", "5", *options]) == 0
    pipeline = config.load(out / "pipeline.config")
    assert pipeline.model.ssd.image_resizer.keep_aspect_ratio_resizer.max_dimension == 128
    assert pipeline.model.ssd.feature_extractor.depth_multiplier == 0.25
    assert pipeline.mirilla.seed == 3
    assert "letterbox" in json.loads((out / "metrics.json").read_text())["results"][0]["protocol"]["detector"]


def test_refuses_a_folder_with_other_things(toy_set, tmp_path, trainer, capsys):
    (tmp_path / "thesis.tex").write_text("x")
    assert main(["run", str(toy_set), "--out", str(tmp_path)]) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_refuses_a_file_as_folder(toy_set, tmp_path, trainer, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["run", str(toy_set), "--out", str(tmp_path / "file")]) == 2
    assert "this is a file" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_cannot_be_written(toy_set, tmp_path, trainer, capsys):
    tmp_path.chmod(0o500)
    assert main(["run", str(toy_set), "--out", str(tmp_path / "job")]) == 1
    assert "Permission denied" in capsys.readouterr().err
    tmp_path.chmod(0o700)


def test_an_output_folder_below_a_file(toy_set, tmp_path, trainer, capsys):
    (tmp_path / "file").write_text("x")
    assert main(["run", str(toy_set), "--out", str(tmp_path / "file" / "job")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_nothing_to_learn_and_nothing_to_measure(tmp_path, trainer, capsys):
    a, b = make(tmp_path, "a", 4), csv_set(tmp_path / "b", ["b0.png,40,30,,,,,"], ["b0.png"])
    assert main(["run", str(b), "--eval", str(a), "--out", str(tmp_path / "job")]) == 1
    assert "nothing to learn" in capsys.readouterr().err
    assert main(["run", str(a), "--eval", str(b), "--out", str(tmp_path / "job")]) == 1
    assert "nothing can be measured" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none"), "--out", str(tmp_path / "job")]) == 1
    assert "none" in capsys.readouterr().err


def test_pictures_cut_short_are_named_and_left_out(tmp_path, trainer, capsys):
    data = toy.write(tmp_path / "toy", train=12, val=6, seed=2)
    victim = sorted((data / "WIDER_train").rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:3000])
    assert main(["run", str(data), "--out", str(tmp_path / "job"), "--steps", "5"]) == 0
    assert "cannot be decoded are left out" in capsys.readouterr().out
    assert victim.name in (tmp_path / "job" / "findings.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--batch-size", "0"], "--batch-size 0"),
        (["--eval-share", "1"], "--eval-share"),
        (["--size", "8"], "--size 8"),
        (["--minutes", "-1"], "--minutes -1"),
        (["--depth-multiplier", "0"], "--depth-multiplier"),
    ],
)
def test_invalid_options_are_refused(tmp_path, trainer, capsys, arguments, message):
    assert main(["run", "x", "--out", str(tmp_path / "job"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "mobile"], "Unknown model 'mobile'."),
        (["--recipe", "old"], "Unknown recipe 'old'. Choose from: mirilla, tf1."),
        (["--start", "nowhere.pb"], "nowhere.pb: no such checkpoint"),
        (["--teacher", "nowhere.onnx"], "--teacher nowhere.onnx: no such file"),
        (["--teacher-share", "1.5"], "--teacher-share 1.5: it must lie between 0 and 1"),
    ],
)
def test_missing_files_are_reported_before_data_is_read(toy_set, tmp_path, trainer, capsys, arguments, message):
    assert main(["run", str(toy_set), "--out", str(tmp_path / "job"), "--steps", "3", *arguments]) in (1, 2)
    printed = capsys.readouterr()
    assert message in printed.err
    assert "[read]" not in printed.out
