"""Training speed on the CPU: the whole (pictures, augmentation, step) and the step alone, side by side.

    python benchmarks/train_speed.py TRAIN.tfrecord LABEL_MAP.pbtxt [--steps 60] [--threads 2] [--size 256]
                                     [--layers both]

The records are those that `mirilla run` or `mirilla data convert` writes. Both figures come from one process, in
turns, so that what else the machine does meets both alike. CPU seconds count every thread. `--layers both` runs
Mirilla's kernels and PyTorch's layers in turns.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from mirilla import config
from mirilla.model import fused
from mirilla.model.from_config import model_spec
from mirilla.training.allocator import keep_freed_memory
from mirilla.training.dataset import open_training_set
from mirilla.training.input import Batches
from mirilla.training.plan import training_plan
from mirilla.training.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("label_map", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--allocator", choices=("kept", "default"), default="kept")
    parser.add_argument("--layers", choices=("fused", "torch", "both"), default="fused")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.allocator == "kept":
        keep_freed_memory()
    pipeline = config.sample(1, args.records, args.records, args.label_map, batch_size=args.batch, height=args.size,
                             width=args.size)
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    with tempfile.TemporaryDirectory() as folder:
        data = open_training_set(pipeline, spec, Path(folder))
        batches = Batches(data.pictures, data.objects, spec, plan.batch_size, plan.augmentations, 0)
        trainer = Trainer(spec, plan, torch.device("cpu"))
        ready = [batches.batch(i) for i in range(8)]
        print(f"batch {args.batch}, {args.size} px, {args.threads} threads, allocator {args.allocator}")
        for _ in range(args.rounds):
            for layers in ("fused", "torch") if args.layers == "both" else (args.layers,):
                trainer.network.fused = layers == "fused"
                with fused.taking_threads(trainer.network.fused):
                    for arrays in ready[:2]:
                        trainer.step(arrays)
                    measure(f"{layers}, step alone", args, lambda: [trainer.step(ready[i % 8])
                                                                    for i in range(args.steps)])
                    measure(f"{layers}, end to end", args, lambda: [trainer.step(a) for a in
                                                                    batches.stream(0, args.steps)])
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


def measure(name: str, args: argparse.Namespace, work) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = args.steps * args.batch
    print(f"{name}: {count / wall:6.1f} images/s, {count / cpu:6.1f} images per CPU second "
          f"({wall:.1f} s wall, {cpu:.1f} s CPU)", flush=True)


if __name__ == "__main__":
    main()
