"""Speed of the interpreter for compiled models on one core.

Result (pikachu2_detector at 256x256, batches of one, medians of 50; one core of a busy AMD EPYC, numpy 2.4):

    float32 activations:  120.8 pictures/s,   85.3 with the resize of a 640x480 photo
    fp16 activations:      78.5 pictures/s,   50.9 with the resize of a 640x480 photo

The target is 20 pictures/s at 256 px. CPU time is measured, so other programs have little influence.
Without MODEL it needs ../shared beside the project:

    python -m benchmarks.bonnet.emulator [MODEL.binaryproto] [--count N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported

import numpy as np  # noqa: E402

from mirilla.bonnet.run import CompiledModel  # noqa: E402

MODEL = Path(__file__).resolve().parents[3] / "shared" / "data" / "bonnet" / "pikachu2_detector.binaryproto"
TARGET = 20.0  # pictures/s


def rate(model: CompiledModel, count: int, photo: bool) -> float:
    """Pictures per second of CPU time: the network alone, or with the resize of a 640x480 photo."""
    if model.input_size is None:
        raise SystemExit("The file does not contain its input size.")
    random = np.random.default_rng(0)
    picture = random.uniform(-1, 1, (1, *model.input_size, model.input_channels)).astype(np.float32)
    rgb = random.integers(0, 256, (480, 640, 3), np.uint8)
    times = []
    for _ in range(count + 3):
        start = time.process_time()
        if photo:
            model.run_image(rgb, 128, 128)
        else:
            model.run(picture)
        times.append(time.process_time() - start)
    return 1 / statistics.median(times[3:])


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of the interpreter for compiled models on one core.")
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    parser.add_argument("--count", type=int, default=50)
    args = parser.parse_args()
    slowest = float("inf")
    for half in (False, True):
        model = CompiledModel.load(args.model, fp16_activations=half)
        network, total = rate(model, args.count, False), rate(model, args.count, True)
        slowest = min(slowest, network, total)
        print(
            f"{'fp16' if half else 'float32'} activations: {network:6.1f} pictures/s, "
            f"{total:6.1f} with the resize of a 640x480 photo"
        )
    print(f"{'meets' if slowest >= TARGET else 'misses'} the target of {TARGET:g} pictures/s")
    return 0 if slowest >= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
