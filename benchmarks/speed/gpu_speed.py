"""Training speed on a GPU: the step as one captured graph and op by op, and the lower bounds of both.

    python -m benchmarks.speed.gpu_speed TRAIN.tfrecord LABEL_MAP.pbtxt [--batch 24 512]
                                          [--precision float32 tf32 bfloat16]
    python -m benchmarks.speed.gpu_speed --floors

The second form needs no GPU. The first is end to end: pictures are on the device, batches are painted there, and every
step is a real update; images/s in wall time, with a synchronisation at the end. --device cpu runs the same code op by
op, to check that it works. --profile lists the ten slowest kernels. The peaks are those of an H100 SXM's data sheet,
dense; pass your device's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from mirilla import config
from mirilla.batches.dataset import open_training_set
from mirilla.batches.gpu_batches import LEVELS, GpuBatches
from mirilla.batches.gpu_pictures import bytes_free, upload
from mirilla.batches.host_batches import Batches
from mirilla.config.rules import PRECISIONS
from mirilla.config.to_spec import model_spec
from mirilla.model.layers import architecture
from mirilla.model.spec import ModelSpec
from mirilla.training.device import set_precision
from mirilla.training.learner import Learner
from mirilla.training.plan import training_plan
from mirilla.training.step import DeviceSteps, static_objective

BYTES = {"float32": 4, "tf32": 4, "bfloat16": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, nargs="?")
    parser.add_argument("label_map", type=Path, nargs="?")
    parser.add_argument("--floors", action="store_true", help="print the floors only")
    parser.add_argument("--batch", type=int, nargs="+", default=[24, 512])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--bandwidth", type=float, default=3.35e12, help="bytes/s of the device's memory")
    parser.add_argument(
        "--tensor-flops",
        type=float,
        nargs=3,
        default=[67e12, 494e12, 989e12],
        help="multiplications and additions/s of matrices: float32, tf32, bfloat16",
    )
    parser.add_argument("--vector-flops", type=float, default=67e12, help="those outside matrices")
    args = parser.parse_args()
    floors(ModelSpec(height_px=args.size, width_px=args.size), args)
    if args.floors:
        return
    if args.records is None or args.label_map is None:
        parser.error("give the records and the label map, or --floors")
    for batch in args.batch:
        for precision in args.precision:
            measure(args, batch, precision)


def floors(spec: ModelSpec, args: argparse.Namespace) -> None:
    """What no step can beat: see benchmarks/README.md for the derivation."""
    matrix, vector, elements = costs(spec)
    print(
        f"one picture at {args.size} px, forward and backward: {matrix / 1e6:.0f} MFLOP in matrices, "
        f"{vector / 1e6:.0f} MFLOP in depthwise convolutions, {elements / 1e6:.2f} M values moved"
    )
    for precision, flops in zip(PRECISIONS, args.tensor_flops, strict=True):
        by_bytes = args.bandwidth / (elements * BYTES[precision])
        by_flops = 1 / (matrix / flops + vector / args.vector_flops)
        print(f"  {precision:9} at most {by_bytes:9,.0f} images/s by bytes, {by_flops:9,.0f} by arithmetic")


def costs(spec: ModelSpec) -> tuple[float, float, float]:
    """(operations in matrices, in depthwise convolutions, values moved to and from memory) of a picture's step."""
    table = architecture(spec)
    shapes = {"": (spec.height_px, spec.width_px, 3)}
    shapes |= {e.name: (e.height, e.width, e.out_channels) for e in table.layers}
    matrix = vector = elements = 0.0
    for layer in table.layers:
        height, width, channels = shapes[layer.input]
        out = layer.height * layer.width * layer.out_channels
        inner = 1 if layer.kind == "depthwise" else channels
        work = 3 * 2 * out * inner * layer.kernel**2
        vector += work if layer.kind == "depthwise" else 0
        matrix += 0 if layer.kind == "depthwise" else work
        elements += 3 * (height * width * channels + out)
    for p in table.predictors:
        out = p.height * p.width * (p.box_channels + p.class_channels)
        matrix += 3 * 2 * out * p.in_channels
        elements += 3 * (p.height * p.width * p.in_channels + out)
    return matrix, vector, elements


def measure(args: argparse.Namespace, batch: int, precision: str) -> None:
    device = torch.device(args.device)
    pipeline = config.sample(
        1, args.records, args.records, args.label_map, batch_size=batch, height=args.size, width=args.size
    )
    spec = model_spec(pipeline)
    plan = training_plan(pipeline, spec)
    set_precision(precision)
    with tempfile.TemporaryDirectory() as folder:
        data = open_training_set(pipeline, spec, Path(folder))
        data.pictures.complete()
        host = Batches(data.pictures, data.objects, spec, batch, plan.augmentations, 0)
        levels = LEVELS if host.recipe is not None else 1
        made = GpuBatches(upload(data.pictures, device, levels, bytes_free(device)), host)
    for captured in (False, True) if device.type == "cuda" else (False,):
        learner = Learner(spec, plan, device, precision=precision)
        static = static_objective(plan.objective, len(learner.anchors))
        assert static is not None
        learner.plan = replace(plan, objective=static)
        runner = DeviceSteps(learner, made, captured)
        for _ in range(min(10, args.steps)):
            losses = runner.step()
        wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(args.steps):
            losses = runner.step()
        wait(device)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        way = "captured" if captured else "op by op"
        memory = f", {torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB" if device.type == "cuda" else ""
        print(
            f"batch {batch}, {precision:9} {way:12} {args.steps * batch / wall:9,.1f} images/s, "
            f"{1e3 * wall / args.steps:7.2f} ms a step, {1e3 * cpu / args.steps:6.2f} ms of the host{memory}, "
            f"loss {losses.total.item():.3f}",
            flush=True,
        )
        if args.profile:
            profile(runner, device)


def profile(runner: DeviceSteps, device: torch.device) -> None:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(5):
            runner.step()
        wait(device)
    key = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(seen.key_averages().table(sort_by=key, row_limit=10))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
