"""Several processes that train together: losses as of a single process, one writer, and restarts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from helpers_distributed import small_pipeline, torchrun  # noqa: E402
from mirilla import config  # noqa: E402
from mirilla.errors import UsageError  # noqa: E402
from mirilla.model.sync_batch_norm import sync_batch_norm  # noqa: E402
from mirilla.training import log  # noqa: E402
from mirilla.training.distributed import Group  # noqa: E402
from mirilla.weights import checkpoint  # noqa: E402

STEPS = """
import json, sys
from pathlib import Path
import torch
from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.training import distributed
from mirilla.batches.dataset import open_training_set
from mirilla.batches.host_batches import Batches
from mirilla.training.learner import Learner
from mirilla.training.plan import training_plan

torch.set_num_threads(1)
pipeline = config.load(Path("pipeline.config"))
spec = model_spec(pipeline)
plan = training_plan(pipeline, spec)
data = open_training_set(pipeline, spec, Path("cache"))
with distributed.process_group("cpu") as group:
    batches = Batches(data.pictures, data.objects, spec, plan.batch_size, plan.augmentations, 0,
                      part=group.shard(plan.batch_size))
    result = {}
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        learner = Learner(spec, plan, torch.device("cpu"), group)
        learner.network.use_sync_batch_norm(group.all_reduce_)  # alone, too
        input = learner.input
        learner.input = lambda images: input(images).to(dtype)
        losses = []
        for step in range(1 if dtype == torch.float32 else 4):
            found = learner.step(*batches.batch(step))
            losses.append([float(found.localization), float(found.classification), float(found.positives)])
        result[str(dtype)] = losses
    if group.is_main:
        torch.save(result | {"weights": learner.parameters.weights, "buffers": list(learner.network.buffers())},
                   sys.argv[1])
"""


def test_two_processes_have_the_losses_of_one(tmp_path):
    """The first step in float32, more of them in float64: a fresh network of so small maps makes of a rounding in the
    first step another mining, and of that other weights."""
    pipeline = small_pipeline(tmp_path, batch_size=5)  # 2 + 3 examples
    pipeline.train_config.optimizer.rms_prop_optimizer.learning_rate.constant_learning_rate.learning_rate = 0.004
    config.save(tmp_path / "pipeline.config", pipeline)
    (tmp_path / "steps.py").write_text(STEPS)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    single = [sys.executable, "steps.py", "one.pt"]
    two = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "steps.py", "two.pt"]
    for command in (single, two):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    alone, shared = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "two"))
    for dtype in ("torch.float32", "torch.float64"):
        np.testing.assert_allclose(shared[dtype], alone[dtype], rtol=1e-5, err_msg=dtype)
    assert alone["torch.float64"][0] != alone["torch.float64"][-1]
    scale = float(alone["weights"].abs().max())
    assert float((shared["weights"] - alone["weights"]).abs().max()) < 1e-5 * scale
    for mine, theirs in zip(shared["buffers"], alone["buffers"], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_killed_process_and_a_new_start(tmp_path):
    pipeline = small_pipeline(tmp_path)
    pipeline.mirilla.checkpoint_every_steps = 2
    config.save(tmp_path / "pipeline.config", pipeline)
    process = torchrun(tmp_path, "--num-train-steps", "40", restarts=1)
    deadline = time.monotonic() + 200
    while checkpoint.newest(tmp_path / "run") is None:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(_workers(process.pid)[-1], signal.SIGKILL)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert re.search(r"resuming from model\.ckpt-\d+", output), output
    assert output.count("training embedded_ssd_mobilenet_v1") == 2  # only rank 0 prints, before and after
    assert output.count("made run/model.ckpt-40") == 1
    assert "shared by 2 processes" in output
    assert checkpoint.load(checkpoint.newest(tmp_path / "run")).step == 40
    assert [entry["step"] for entry in log.read(tmp_path / "run")] == [20, 40]
    (tmp_path / "train.tfrecord").unlink()
    finished = torchrun(tmp_path, "--num-train-steps", "40")
    output = finished.communicate(timeout=200)[0]
    assert finished.returncode == 0, output
    assert output.count("step 40 of 40: nothing left to do") == 1


@pytest.mark.slow
def test_all_stop_together_and_leave_a_checkpoint(tmp_path):
    config.save(tmp_path / "pipeline.config", small_pipeline(tmp_path))
    process = torchrun(tmp_path, "--num-train-steps", "100000")
    deadline = time.monotonic() + 200
    while not log.read(tmp_path / "run"):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=200)[0]
    step = checkpoint.load(checkpoint.newest(tmp_path / "run")).step
    assert f"stopped at step {step}" in output


def test_parts_of_a_batch():
    parts = [Group(rank, 3).shard(8) for rank in range(3)]
    assert [i for part in parts for i in range(8)[part]] == list(range(8))
    with pytest.raises(UsageError, match="too few for 3 processes"):
        Group(0, 3).shard(2)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_batch_norm_alone_is_torchs(offset):
    """Against torch's in float64; with a mean far from 0, torch's own in float32 is off by more than this."""
    generator = torch.Generator().manual_seed(0)
    drawn = [offset + 0.2 * torch.randn(3, 4, 5, 6, generator=generator), *torch.randn(2, 4, generator=generator)]
    weight = torch.randn(3, 4, 5, 6, generator=generator)
    found = []
    for mine in (True, False):
        x, gamma, beta = (t.to(torch.float32 if mine else torch.float64).clone().requires_grad_() for t in drawn)
        mean, variance = torch.zeros(4, dtype=x.dtype), torch.ones(4, dtype=x.dtype)
        if mine:
            y = sync_batch_norm(x, mean, variance, gamma, beta, 0.1, 1e-3, lambda part: part)
        else:
            y = torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, True, 0.1, 1e-3)
        (y.sin() * weight).sum().backward()
        found.append([t.detach().float() for t in (y, mean, variance, x.grad, gamma.grad, beta.grad)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3 if offset else 2e-5, atol=1e-3 if offset else 5e-6)


def _workers(agent: int) -> list[int]:
    """Process ids of what an agent of torchrun has started, in order."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
            command = Path(f"/proc/{entry}/cmdline").read_text()
        except OSError:
            continue
        if int(fields[1]) == agent and "mirilla" in command:
            found.append(int(entry))
    return sorted(found)
