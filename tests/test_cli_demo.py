"""The whole of `mirilla demo`: draw, train a few steps, evaluate, export, detect, report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers_process import restore_sigint
from mirilla import shipped
from mirilla.cli.main import main
from mirilla.data.images import decode_rgb

pytest.importorskip("torch")


def test_demo_runs_all_stages_and_resumes(tmp_path, capsys, monkeypatch):
    from mirilla.job import demo

    monkeypatch.setattr(demo, "EVAL_PICTURES", 10)
    out = tmp_path / "demo"
    command = ["demo", "--out", str(out), "--steps", "4", "--pictures", "30", "--device", "cpu"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    for name in (
        "report.html",
        "contact_sheet.jpg",
        "metrics.json",
        "pipeline.config",
        "findings.txt",
        "export/frozen_inference_graph.pb",
        "export/model.json",
        "toy/wider_face_split/wider_face_val_bbx_gt.txt",
    ):
        assert (out / name).exists(), name
        assert str(out / name) in printed
    assert (out / "findings.txt").read_text() == ""  # a drawn set has no faults
    assert "mirilla detect" in printed
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["results"][0]["figures"].keys() >= {"AP@0.5", "AP@0.5 >= 16 px"}
    assert (out / "photo.jpg").exists() == (shipped.FOLDER / shipped.FROZEN_GRAPH).is_file()
    assert main(command) == 0
    assert "[train] up to date" in capsys.readouterr().out


def test_the_shipped_detector_detects_the_real_photo(tmp_path, capsys, monkeypatch):
    from mirilla.job.demo import detect_shipped_photo

    path = tmp_path / "photo.jpg"
    with monkeypatch.context() as without:
        without.setattr(shipped, "FOLDER", tmp_path)
        detect_shipped_photo(path)
        assert not path.exists()
    if not (shipped.FOLDER / shipped.FROZEN_GRAPH).is_file():
        pytest.skip("no weights are in the package yet")
    detect_shipped_photo(path)
    assert "faces found: 1" in capsys.readouterr().out
    drawn, plain = decode_rgb(path).astype(int), decode_rgb(shipped.PHOTO).astype(int)
    assert drawn.shape == plain.shape
    assert abs(drawn - plain).max() > 100


def test_too_few_pictures_are_refused(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "demo"), "--pictures", "3"]) == 2
    assert "at least 24" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_training_resumes_from_its_last_checkpoint(tmp_path, how):
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "mirilla.cli.main", "demo", "--out", str(out), "--steps", "60"]
    command += ["--pictures", "24", "--device", "cpu"]
    source = str(Path(__file__).resolve().parents[1] / "src")
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=restore_sigint
    )
    end = time.monotonic() + 240
    while not list((out / "train").glob("model.ckpt-*")) and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGKILL, 130)
    assert not (out / "report.html").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert "[draw] up to date" in again.stdout
    assert "resuming from step" in again.stdout
    assert (out / "report.html").exists()
