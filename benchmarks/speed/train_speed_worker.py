"""A training in a process of its own for train_speed.py, which makes steps or batches on request.

Reads lines from standard input, `step alone N`, `batches alone N` or `end to end N`; answers each with a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import torch

from mirilla import config
from mirilla.batches.dataset import open_training_set
from mirilla.batches.host_batches import Batches
from mirilla.config.to_spec import model_spec
from mirilla.job import recipe
from mirilla.job.options import RECIPES
from mirilla.model import fused
from mirilla.training.allocator import SETTINGS, keep_freed_memory
from mirilla.training.learner import Learner
from mirilla.training.plan import training_plan

STEPS = 10_000  # of the run that the measured steps are the beginning of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path)
    parser.add_argument("label_map", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--recipe", choices=RECIPES, default="tf1")
    parser.add_argument("--layers", choices=("fused", "torch"), default="fused")
    parser.add_argument("--allocator", nargs="*", default=list(SETTINGS))
    parser.add_argument("--growth", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory(args.allocator)
    pipeline = config.sample(
        1, args.records, args.records, args.label_map, batch_size=args.batch, height=args.size, width=args.size
    )
    recipe.apply(recipe.for_steps(STEPS, args.batch, args.recipe), pipeline)
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    data = open_training_set(pipeline, spec, args.cache)
    data.pictures.complete()
    batches = Batches(
        data.pictures,
        data.objects,
        spec,
        plan.batch_size,
        plan.augmentations,
        0,
        recipe=plan.input_recipe,
        total_steps=STEPS,
    )
    learner = Learner(spec, plan, torch.device("cpu"))
    learner.network.use_kernels = args.layers == "fused"
    with fused.threads_for_kernels(learner.network.use_kernels):
        if args.growth:
            grow(learner, batches, args.growth)
            return
        ready = [batches.batch(i) for i in range(4)]
        for batch in ready[:2]:
            learner.step(*batch)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            what, _, count = line.rpartition(" ")
            steps = int(count)
            before = usage()
            if what == "step alone":
                for i in range(steps):
                    learner.step(*ready[i % len(ready)])
            elif what == "batches alone":
                for i in range(steps):
                    batches.batch(learner.state.step + i)
            else:
                for batch in batches.stream(learner.state.step, learner.state.step + steps):
                    learner.step(*batch)
            print(json.dumps(answer(before, steps * args.batch)), flush=True)


def grow(learner: Learner, batches: Batches, steps: int) -> None:
    """Train, and print the process's memory every 500 steps."""
    started = time.perf_counter()
    print("step,RSS MiB,anonymous MiB,mapped files MiB,seconds", flush=True)
    for batch in batches.stream(0, steps):
        learner.step(*batch)
        if learner.state.step % 500 == 0 or learner.state.step in (1, 100):
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            sizes = [int(status[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")]
            print(
                f"{learner.state.step},{','.join(f'{s:.1f}' for s in sizes)},{time.perf_counter() - started:.0f}",
                flush=True,
            )


def usage() -> tuple[float, float, float]:
    """Seconds: wall time, and CPU time of this process in user and in system mode."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(), used.ru_utime, used.ru_stime


def answer(before: tuple[float, float, float], images: int) -> dict[str, float]:
    wall, user, system = (b - a for a, b in zip(before, usage(), strict=True))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"images": images, "wall": wall, "user": user, "system": system, "peak_gib": peak}


if __name__ == "__main__":
    main()
