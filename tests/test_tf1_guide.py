"""The guide of 2018: the commands of docs/guide-2018.md and docs/guia-2018.md, run in a shell."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import SHARED
from helpers_board import Kit, Sshd, sshd, sshd_program
from mirilla import config
from mirilla.bonnet import format as binary
from mirilla.data.records import read_records
from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.server import Server
from mirilla.protos.tensorflow_pb2 import Event
from mirilla.tf1 import flags_page
from mirilla.toy import dataset as toy
from test_board_kit_client import python  # noqa: F401

DOCS = Path(__file__).resolve().parents[1] / "docs"
SAMPLE = "embedded_ssd_mobilenet_v1_coco.config"
STEPS = 10
# What the test changes in the page's commands: small data, few steps, and photos that are there.
CHANGES = {
    "mirilla tf1 001_down_data.py\n": "mirilla tf1 001_down_data.py --from photos\n",
    f"  {SAMPLE}\n": f"  {SAMPLE}\nsed -i 's/batch_size: 32/batch_size: 4\\n  num_steps: {STEPS}/' {SAMPLE}\n",
    "NUM_TRAIN_STEPS=200000": f"NUM_TRAIN_STEPS={STEPS}",
    "model.ckpt-200000": f"model.ckpt-{STEPS}",
}


def commands(page: str) -> str:
    return "".join(re.findall(r"```sh\n(.*?)```", (DOCS / page).read_text("utf-8"), re.S))


def events(folder: Path) -> list[Event]:
    files = sorted(folder.glob("events.out.tfevents.*"))
    return [Event.FromString(content) for file in files for content in read_records(file)]


def write_sample(folder: Path) -> None:
    """The API's sample, or, without the external data, Mirilla's in the same form."""
    original = SHARED / "data/odapi/samples" / SAMPLE
    if original.is_file():
        shutil.copy(original, folder / SAMPLE)
        return
    place = "PATH_TO_BE_CONFIGURED"
    records = [f"{place}/mscoco_train.record-?????-of-00100"], [f"{place}/mscoco_val.record-?????-of-00010"]
    pipeline = config.sample(90, *records, f"{place}/mscoco_label_map.pbtxt", batch_size=32)
    pipeline.train_config.fine_tune_checkpoint = f"/{place}/model.ckpt"
    pipeline.train_config.ClearField("num_steps")
    config.save(folder / SAMPLE, pipeline)


def write_old_checkpoint(folder: Path) -> None:
    """A TensorFlow checkpoint of the same network with 20 classes, as the guide's readers had one."""
    import torch

    from mirilla.model.initializers import initialise
    from mirilla.model.network import SsdNetwork
    from mirilla.model.spec import ModelSpec
    from mirilla.weights.tensorflow_write import save_checkpoint

    network = SsdNetwork(ModelSpec(num_classes=20))
    initialise(network, torch.Generator().manual_seed(1))
    folder.mkdir()
    save_checkpoint(folder / "model.ckpt-870894", network.get_weights())


def write_programs(folder: Path) -> None:
    """Mirilla's commands of the guide."""
    folder.mkdir()
    for name, module in {"mirilla": "mirilla.cli.main", "bonnet_model_compiler.par": "mirilla.cli.compile"}.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (folder / name).chmod(0o755)


def detections_on_the_kit(model: Path, photos: Path, server: Sshd) -> list[dict]:
    """What the kit's program prints for photos: the model in Google's client, with the emulator as the bonnet."""
    options = f"--source {photos} --once --json --threshold 0.01"
    command = [sys.executable, "-m", "mirilla.cli.main", "deploy", model, server.target, "-F", server.config, "--run"]
    done = subprocess.run([*map(str, command), f"--options={options}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_the_two_pages_have_the_same_commands():
    assert commands("guide-2018.md") == commands("guia-2018.md")


@pytest.mark.parametrize(("page", "spanish"), flags_page.PAGES.items())
def test_the_pages_have_the_current_table(page, spanish):
    text = (DOCS / page).read_text("utf-8")
    assert flags_page.with_table(text, spanish=spanish) == text


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="the page's commands are for bash and GNU sed")
@pytest.mark.skipif(sshd_program() is None, reason="needs OpenSSH's server (Debian: apt-get install openssh-server)")
def test_the_whole_guide(python, tmp_path):  # noqa: F811
    """From the first script to detections on a simulated kit, over a real SSH server."""
    pytest.importorskip("torch")
    toy.write(tmp_path / "photos", train=14, val=6)
    write_sample(tmp_path)
    write_old_checkpoint(tmp_path / "checkpoint")
    write_programs(tmp_path / "bin")
    with contextlib.ExitStack() as stack:
        bonnet = stack.enter_context(Server(EmulatedBonnet(), port=0))
        variables = {"VISION_BONNET_HOST": "127.0.0.1", "VISION_BONNET_PORT": str(bonnet.port)}
        kit = Kit(tmp_path / "kit", aiy=False, environment=variables)
        (kit.folder / "aiy/picamera.py").touch()
        kit.program("python3", f'#!/bin/sh\nPYTHONPATH={kit.folder}/aiy exec {python} "$@"\n')
        server = stack.enter_context(sshd(kit, tmp_path / "ssh"))
        (kit.home / "pi").mkdir()
        script = commands("guide-2018.md")
        changes = CHANGES | {
            "scp export": f"scp -F {server.config} export",
            "--files-only": f"-F {server.config} --files-only",
            "pi@raspberrypi.local": server.target,
            "/home/pi/": f"{kit.home}/pi/",
        }
        for old, new in changes.items():
            assert old in script
            script = script.replace(old, new)
        environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-exc", script],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout
        copied = kit.home / "pi/frozen_inference_graph.binaryproto"
        (tmp_path / "album").mkdir()
        for photo in sorted((tmp_path / "photos/WIDER_val/images").rglob("*.jpg"))[:2]:
            shutil.copy(photo, tmp_path / "album")
        lines = detections_on_the_kit(copied, tmp_path / "album", server)
    boxes = [detection["box_yxyx"] for line in lines for detection in line.get("detections", [])]
    assert boxes
    assert all(len(box) == 4 for box in boxes)

    model = tmp_path / "model"
    assert (model / f"model.ckpt-{STEPS}.safetensors").is_file()
    [figures] = [event for event in events(model / "eval_0") if event.step == STEPS]
    tags = {value.tag for value in figures.summary.value}
    assert {"DetectionBoxes_Precision/mAP", "DetectionBoxes_Recall/AR@100 (large)", "global_step"} <= tags
    assert "Loss/total_loss" in tags
    assert list((model / "export/Servo").glob("*/saved_model.pb"))
    assert len(events(tmp_path / "evaluation/eval_validation_data")) == 2
    assert any("PascalBoxes" in v.tag for event in events(tmp_path / "legacy_evaluation") for v in event.summary.value)
    compiled = (tmp_path / "export/frozen_inference_graph.binaryproto").read_bytes()
    binary.parse(compiled, "the compiled model")
    assert copied.read_bytes() == compiled
    assert copied.with_name("model.json").is_file()
    assert "is ignored" in done.stdout
    assert "concat_1" in done.stdout
