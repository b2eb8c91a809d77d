"""Training speed on the CPU: the step alone, the batches alone, both together; and TensorFlow's Keras.

    python -m benchmarks.speed.train_speed TRAIN.tfrecord LABEL_MAP.pbtxt [--threads 1 2] [--layers fused torch]
                                     [--recipe tf1] [--tensorflow-python PYTHON] [--rounds 3] [--steps 10]
                                     [--size 256]

Every row is a separate process (of PYTHON, for Keras), so that peak memory can be measured. They work in turns, round
after round, so that other load on the machine affects all alike. The best round counts, in wall time and in CPU seconds
(of all threads, and of the system). Other modes:

    --allocator      the step with each setting of training/allocator.py alone, in fresh processes, one thread
    --growth STEPS   train at --size from the real reader, and print the memory every 500 steps, one thread
    --start          `mirilla train` up to one step in fresh processes, with and without a picture cache and compiled
                     kernels; with --pictures N --work DIR (and without records) on N photos of ../shared, repeated as
                     in data_speed.py: 12880 is the size of WIDER FACE, 1.5 GB

The records are those that `mirilla run` or `mirilla data convert` writes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.data_speed import WIDER_MEAN_BYTES, make

from mirilla import config, console
from mirilla.data import read_dataset
from mirilla.data.convert import convert
from mirilla.job.options import RECIPES
from mirilla.training.allocator import SETTINGS

HERE = Path(__file__).resolve().parent


class Worker:
    """A process that makes steps on request."""

    def __init__(self, command: list[str], threads: int):
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        self._answer()

    def ask(self, what: str, steps: int) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what} {steps}\n")
        self.process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        sys.exit(f"{' '.join(map(str, self.process.args))} ended with {self.process.wait()}")  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="?")
    parser.add_argument("label_map", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--recipe", choices=RECIPES, default="tf1", help="default: the original's")
    parser.add_argument("--layers", nargs="+", choices=("fused", "torch"), default=["fused"])
    parser.add_argument("--tensorflow-python", type=Path)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--work", type=Path, help="folder for large temporary files")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--allocator", action="store_true")
    modes.add_argument("--growth", type=int, metavar="STEPS")
    modes.add_argument("--start", action="store_true")
    args = parser.parse_args()
    if args.label_map is None and not (args.start and args.pictures):
        parser.error("TRAIN.tfrecord and LABEL_MAP.pbtxt are needed")
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        if args.allocator:
            allocator(args, Path(folder))
        elif args.growth:
            subprocess.run(
                [*command(args, Path(folder), 1), "--growth", str(args.growth)],
                check=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
        elif args.start:
            start(args, Path(folder))
        else:
            speed(args, Path(folder))
    print("load average", *(f"{load:.1f}" for load in os.getloadavg()))


def command(args: argparse.Namespace, folder: Path, threads: int, layers: str = "fused") -> list[str]:
    return [
        sys.executable,
        str(HERE / "train_speed_worker.py"),
        str(args.records),
        str(args.label_map),
        str(folder / "cache"),
        "--threads",
        str(threads),
        "--batch",
        str(args.batch),
        "--size",
        str(args.size),
        "--layers",
        layers,
        "--recipe",
        args.recipe,
    ]


def speed(args: argparse.Namespace, folder: Path) -> None:
    """The main table."""
    names = {"fused": "kernels", "torch": "PyTorch's layers"}
    workers: dict[tuple[str, int], Worker] = {}
    for layers in args.layers:
        for threads in args.threads:
            workers[names[layers], threads] = Worker(command(args, folder, threads, layers), threads)
    if args.tensorflow_python:
        for threads in args.threads:
            workers["TensorFlow's Keras", threads] = Worker(
                [
                    str(args.tensorflow_python),
                    str(HERE / "train_speed_tensorflow.py"),
                    "--threads",
                    str(threads),
                    "--batch",
                    str(args.batch),
                    "--size",
                    str(args.size),
                ],
                threads,
            )
    found: dict[tuple[str, int, str], list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for (name, threads), worker in workers.items():
            for what in ("step alone",) if "Keras" in name else ("step alone", "batches alone", "end to end"):
                found.setdefault((name, threads, what), []).append(worker.ask(what, args.steps))
    for worker in workers.values():
        worker.close()
    rows = []
    for (name, threads, what), answers in found.items():
        wall = max(a["images"] / a["wall"] for a in answers)
        cpu = min(1000 * (a["user"] + a["system"]) / a["images"] for a in answers)
        rows.append((name, threads, what, round(wall, 1), round(cpu, 2), round(answers[-1]["peak_gib"], 2)))
    console.print_table(
        f"batch {args.batch}, {args.size} px, the best of {args.rounds} rounds of {args.steps} steps",
        ("what", "threads", "", "images/s, wall time", "CPU s per 1000 images", "peak GiB"),
        rows,
    )


def allocator(args: argparse.Namespace, folder: Path) -> None:
    """CPU time of a step under each of the allocator's settings."""
    rows = []
    for layers in ("torch", "fused"):
        for name, chosen in (("none", []), *((n, [n]) for n in SETTINGS), ("all", list(SETTINGS))):
            worker = Worker([*command(args, folder, 1, layers), "--allocator", *chosen], 1)
            answers = [worker.ask("step alone", args.steps) for _ in range(args.rounds)]
            worker.close()
            best = min(answers, key=lambda a: a["user"] + a["system"])
            user, system = (round(1000 * best[k] / args.steps) for k in ("user", "system"))
            rows.append((layers, name, user + system, system, round(best["peak_gib"], 2)))
            print(rows[-1], file=sys.stderr, flush=True)
    console.print_table(
        "the step alone, one thread", ("layers", "setting", "CPU ms a step", "of it the system", "peak GiB"), rows
    )


def start(args: argparse.Namespace, folder: Path) -> None:
    """From the command to the end of a training of one step, its checkpoint written."""
    if args.pictures:
        make(folder / "photos", args.pictures, int(args.pictures * WIDER_MEAN_BYTES))
        convert(read_dataset(folder / "photos/wider"), folder / "data", "tfrecord")
        shutil.rmtree(folder / "photos")
        args.records, args.label_map = folder / "data/train.tfrecord", folder / "data/label_map.pbtxt"
    pipeline = config.sample(
        1,
        args.records.absolute(),
        args.records.absolute(),
        args.label_map.absolute(),
        batch_size=args.batch,
        height=args.size,
        width=args.size,
    )
    config.save(folder / "pipeline.config", pipeline)
    rows = []
    for known, kernels in ((False, False), (True, True), (False, True), (True, False)):
        for checkpoint in (folder / "run").glob("model.ckpt-*"):
            checkpoint.unlink()
        if not known:
            shutil.rmtree(folder / "run", ignore_errors=True)
        if not kernels:
            shutil.rmtree(folder / "numba", ignore_errors=True)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [
                sys.executable,
                "-m",
                "mirilla",
                "train",
                "--pipeline-config",
                folder / "pipeline.config",
                "--model-dir",
                folder / "run",
                "--num-train-steps",
                "1",
                "--device",
                "cpu",
            ],
            check=True,
            env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "numba")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows.append(("known" if known else "read", "there" if kernels else "compiled", round(wall, 1), round(cpu, 1)))
        print(rows[-1], file=sys.stderr, flush=True)
    console.print_table("mirilla train, one step", ("records", "kernels", "s wall time", "CPU s"), rows)


if __name__ == "__main__":
    main()
