"""Processor time of the kit's program for a frame: decoding and NMS alone, and the whole program with Google's client.

    python -m benchmarks.bonnet.kit_cpu FOLDER PICTURES --python kit/bin/python

FOLDER is as `mirilla deploy` fills it; the Python is one with Google's client (docs/emulator.md), best a 3.7. Times
are the program's own processor time (user and system), so the emulator and other programs hardly count.

Result (pikachu2_detector, camera inference, 100 frames, Python 3.7.16, one core of a busy AMD EPYC; the same with
PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in brackets; what it means for a Pi Zero is in docs/kit-program.md):

    threshold 0.5, sparse:  0.72 ms a frame, of it decoding 0.19 ms   ( 1.29 ms)
    threshold 0.5, dense :  1.60 ms a frame, of it decoding 0.78 ms   (29.36 ms)
    threshold 0.1, sparse:  0.91 ms a frame, of it decoding 0.31 ms   ( 2.03 ms)
    threshold 0.1, dense :  1.77 ms a frame, of it decoding 0.92 ms   (30.21 ms)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from mirilla.emulator.bonnet import EmulatedBonnet
from mirilla.emulator.camera import open_frames
from mirilla.emulator.server import Server

# Runs in the other Python: the program's own loop, with the processor's time read around each part.
INSIDE = r"""
import json, sys, time
sys.path.insert(0, sys.argv[1])
import mirilla_kit as kit
options = kit.parser().parse_args(["--dir", sys.argv[1], "--json", "--threshold", sys.argv[2]] + sys.argv[4:])
options.tries = 1
program = kit.Program(options, out=open("/dev/null", "w"))
program._open()
for _ in range(5):
    program._step()
decode = [0.0]
inner = program.bonnet.detections
def timed(*given):
    start = time.process_time()
    found = inner(*given)
    decode[0] += time.process_time() - start
    return found
program.bonnet.detections = timed
count = int(sys.argv[3])
start, boxes = time.process_time(), 0
for _ in range(count):
    program._step()
    boxes += len(program.board.state()["detections"])
whole = time.process_time() - start
program.bonnet.close()
work = kit.time.process_time()
total = 0
for i in range(1000000):
    total += i * i
loop = time.process_time() - work
print(json.dumps({"whole_ms": whole / count * 1e3, "decode_ms": decode[0] / count * 1e3, "boxes": boxes / count,
                  "loop_ms": loop * 1e3, "python": sys.version.split()[0]}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="Processor time of the kit's program for a frame.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with Server(EmulatedBonnet(frames=open_frames(args.pictures), fps=0), port=0) as server:
        for threshold in ("0.5", "0.1"):
            for options in ([], ["--dense"]):
                command = [args.python, "-c", INSIDE, str(args.folder), threshold, str(args.count), *options]
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    check=True,
                    env=clean | {"VISION_BONNET_HOST": "127.0.0.1", "VISION_BONNET_PORT": str(server.port)},
                )
                one = json.loads(done.stdout)
                print(
                    f"Python {one['python']}, threshold {threshold}, {'dense ' if options else 'sparse'}: "
                    f"{one['whole_ms']:.2f} ms a frame, of it decoding {one['decode_ms']:.2f} ms "
                    f"({one['boxes']:.1f} boxes a frame; a million turns of a loop: {one['loop_ms']:.0f} ms)"
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
