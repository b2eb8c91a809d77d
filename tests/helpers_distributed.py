"""Processes that train together, started as a user starts them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mirilla import config
from mirilla.data.sample import Sample
from mirilla.data.tfrecord import write_tfrecords
from mirilla.labels import LabelMap, save_label_map


def picture(rng, height: int, width: int):
    """A grey picture with some bright squares, as JPEG, and their boxes."""
    image = Image.new("RGB", (width, height), (60, 60, 60))
    boxes = []
    for _ in range(int(rng.integers(1, 4))):
        side = int(rng.integers(14, 40))
        y, x = int(rng.integers(0, height - side)), int(rng.integers(0, width - side))
        ImageDraw.Draw(image).rectangle((x, y, x + side - 1, y + side - 1), fill=(250, int(rng.integers(100, 255)), 40))
        boxes.append([y / height, x / width, (y + side) / height, (x + side) / width])
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue(), np.array(boxes)


def small_pipeline(folder: Path, *, pictures: int = 10, batch_size: int = 6, size: int = 64, steps: int = 4):
    """Records of drawn pictures and a pipeline that trains on them, small enough for tests."""
    rng = np.random.default_rng(0)
    samples = []
    for i in range(pictures):
        height, width = 64 + 4 * i, 80 + 3 * i
        content, boxes = picture(rng, height, width)
        samples.append(Sample(content, f"{i}.jpg", height, width, boxes, ("square",) * len(boxes)))
    write_tfrecords(samples, ["square"], folder / "train.tfrecord")
    save_label_map(folder / "label_map.pbtxt", LabelMap.from_names(["square"]))
    pipeline = config.sample(
        1,
        folder / "train.tfrecord",
        folder / "train.tfrecord",
        folder / "label_map.pbtxt",
        steps=steps,
        batch_size=batch_size,
        height=size,
        width=size,
    )
    pipeline.model.ssd.anchor_generator.ssd_anchor_generator.min_scale = 0.3
    pipeline.train_config.optimizer.rms_prop_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.02
    pipeline.mirilla.device = "cpu"
    return pipeline


def torchrun(folder: Path, *arguments: str, processes: int = 2, restarts: int = 0) -> subprocess.Popen:
    """`torchrun -m mirilla train --pipeline-config pipeline.config --model-dir run ...` in a folder."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--max-restarts",
        str(restarts),
        "-m",
        "mirilla",
        "train",
        "--pipeline-config",
        "pipeline.config",
        "--model-dir",
        "run",
        *arguments,
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
