"""CPU time of the program for the kit per frame: decoding and NMS alone, and the whole program with Google's client.

    python -m benchmarks.bonnet.kit_cpu FOLDER PICTURES --python kit/bin/python

FOLDER has a version's files (model, model.json, mirilla_kit.py); the Python has Google's client (docs/emulator.md) and
is preferably 3.7. The times are the program's own CPU time (user and system), without the emulator's.

Result (pikachu2_detector, camera inference, 100 frames, Python 3.7.16, one core of a busy AMD EPYC; the same with
PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in parentheses; docs/kit-program.md estimates a Pi Zero's times):

    threshold 0.5, sparse:  0.72 ms a frame, decoding 0.19 ms   ( 1.29 ms)
    threshold 0.5, dense :  1.60 ms a frame, decoding 0.78 ms   (29.36 ms)
    threshold 0.1, sparse:  0.91 ms a frame, decoding 0.31 ms   ( 2.03 ms)
    threshold 0.1, dense :  1.77 ms a frame, decoding 0.92 ms   (30.21 ms)
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

# Runs in the other Python: the program's own loop, with the CPU time read around the decoding and around all.
INSIDE = r"""
import json, os, sys, time
sys.path.insert(0, os.path.join(sys.argv[1], "mirilla_kit.py"))
from mirilla_kit import bonnet, options, program
decoding_s = 0.0
read_result = bonnet.read_result
def timed(*arguments):
    global decoding_s
    start = time.process_time()
    found = read_result(*arguments)
    decoding_s += time.process_time() - start
    return found
bonnet.read_result = timed
words = ["--dir", sys.argv[1], "--json", "--tries", "1", "--threshold", sys.argv[2]] + sys.argv[4:]
kit = program.Program(options.parse(words), out=open("/dev/null", "w"))
kit.open()
for _ in range(5):
    kit.step()
count = int(sys.argv[3])
decoding_s, boxes, start = 0.0, 0, time.process_time()
for _ in range(count):
    kit.step()
    boxes += len(kit.status.state()["detections"])
whole_s = time.process_time() - start
kit.close()
start, total = time.process_time(), 0
for i in range(1000000):
    total += i * i
loop_s = time.process_time() - start
print(json.dumps({"whole_ms": whole_s / count * 1e3, "decode_ms": decoding_s / count * 1e3, "boxes": boxes / count,
                  "loop_ms": loop_s * 1e3, "python": sys.version.split()[0]}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU time of the program for the kit per frame.")
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
                times = json.loads(done.stdout)
                print(
                    f"Python {times['python']}, threshold {threshold}, {'dense ' if options else 'sparse'}: "
                    f"{times['whole_ms']:.2f} ms a frame, decoding {times['decode_ms']:.2f} ms "
                    f"({times['boxes']:.1f} boxes a frame; a loop of a million iterations: {times['loop_ms']:.0f} ms)"
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
