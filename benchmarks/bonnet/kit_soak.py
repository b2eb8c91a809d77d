"""Runs the program for the kit with the emulator for a long time: whether its memory grows, and whether it recovers.

    python -m benchmarks.bonnet.kit_soak FOLDER PICTURES --python kit/bin/python --minutes 30

FOLDER has a version's files (model, model.json, mirilla_kit.py); the Python has Google's client (docs/emulator.md).
Every few minutes the emulator is killed and started again; in between, its port is closed, answers garbage, or closes
every connection, in turn. A browser shows the live picture half of the time.

Result (a one-class face detector, 5 photos, Python 3.7.16, 2 pictures a second, page, snapshots and alert command on):

    30.0 minutes, 3416 frames, 11 kills of the emulator, recovered 11 times (44 faults in all)
    memory (RSS): median 30212 KiB early, 30052 KiB late, 30032 KiB at the end
    at most 20 of 20 snapshots, exit code 0 at SIGTERM
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

TOKEN = "soak-soak-soak-soak"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def emulator(port: int, pictures: Path) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "mirilla.cli.main",
        "emulate",
        "--port",
        str(port),
        "--frames",
        str(pictures),
        "--fps",
        "0",
    ]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=dict(os.environ, OMP_NUM_THREADS="1"))


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def misbehave(port: int, kind: str, seconds: float) -> None:
    """Use the emulator's port for a while: answer garbage, or close every connection at once."""
    if kind == "nothing":
        time.sleep(seconds)
        return
    end = time.monotonic() + seconds
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.3)
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    if kind == "garbage":
                        connection.settimeout(1)
                        connection.recv(4096)
                        connection.sendall(b"\0\0\0\x10" + bytes(range(240, 256)))
                        time.sleep(0.2)


def watch(port: int, stop: threading.Event) -> None:
    """A browser that shows the live picture every other minute."""
    while not stop.is_set():
        with contextlib.suppress(OSError):
            address = f"http://127.0.0.1:{port}/live.mjpeg?token={TOKEN}"
            with urllib.request.urlopen(address, timeout=20) as answer:
                end = time.monotonic() + 60
                while time.monotonic() < end and not stop.is_set() and answer.read(4096):
                    pass
        stop.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description="The program for the kit with the emulator, for a long time.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--python", required=True, help="a Python with Google's client")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=2, help="pictures a second")
    parser.add_argument("--every", type=float, default=150, help="seconds between two kills of the emulator")
    parser.add_argument("--camera", action="store_true", help="camera inference instead of the folder's pictures")
    parser.add_argument("--report", type=Path, help="write the figures here as JSON")
    args = parser.parse_args()
    port, page = free_port(), free_port()
    bonnet = emulator(port, args.pictures)
    time.sleep(5)
    events: dict[str, int] = {"frames": 0, "fault": 0, "recovered": 0, "alert": 0}
    with tempfile.TemporaryDirectory() as temporary:
        shots = Path(temporary) / "shots"
        command = [
            args.python,
            str(args.folder / "mirilla_kit.py"),
            "--json",
            "--max-rate",
            str(args.rate),
            "--web",
            str(page),
            "--web-host",
            "127.0.0.1",
            "--snapshots",
            str(shots),
            "--snapshots-max",
            "20",
            "--snapshots-every",
            "2",
            "--alert-command",
            "/bin/true",
            "--alert-min-frames",
            "1",
            "--alert-clear-frames",
            "1",
            "--alert-every",
            "5",
            "--source",
            "camera" if args.camera else str(args.pictures),
        ]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        program = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean
            | {"VISION_BONNET_HOST": "127.0.0.1", "VISION_BONNET_PORT": str(port), "MIRILLA_WEB_TOKEN": TOKEN},
        )

        def read() -> None:
            assert program.stdout is not None
            for line in program.stdout:
                kind = json.loads(line).get("event", "frames")
                events[kind] += 1

        stop = threading.Event()
        reader = threading.Thread(target=read)
        reader.start()
        threading.Thread(target=watch, args=(page, stop), daemon=True).start()
        start = next_kill = time.monotonic()
        next_kill += args.every
        memory: list[tuple[float, int]] = []
        kills = recovered = most_shots = 0
        while time.monotonic() - start < args.minutes * 60 and program.poll() is None:
            time.sleep(5)
            memory.append((round(time.monotonic() - start, 1), rss_kib(program.pid)))
            most_shots = max(most_shots, len(list(shots.glob("*.jpg"))))
            if time.monotonic() >= next_kill:
                bonnet.kill()
                bonnet.wait()
                misbehave(port, ("nothing", "garbage", "silence")[kills % 3], 6)
                kills += 1
                before = events["frames"]
                bonnet = emulator(port, args.pictures)
                end = time.monotonic() + 75
                while time.monotonic() < end and events["frames"] <= before:
                    time.sleep(0.5)
                recovered += events["frames"] > before
                next_kill = time.monotonic() + args.every
        alive = program.poll() is None
        program.send_signal(signal.SIGTERM)
        code = program.wait(20)
        stop.set()
        reader.join(10)
        bonnet.kill()
    third = max(1, len(memory) // 3)
    early = statistics.median(kib for _, kib in memory[third // 2 : third + third // 2])
    late = statistics.median(kib for _, kib in memory[-third:])
    figures = {
        "minutes": round(memory[-1][0] / 60, 1),
        **events,
        "kills": kills,
        "recovered_from_kills": recovered,
        "rss_kib_early": early,
        "rss_kib_late": late,
        "rss_kib_last": memory[-1][1],
        "most_snapshots": most_shots,
        "exit_code": code,
        "memory": memory,
    }
    if args.report:
        args.report.write_text(json.dumps(figures) + "\n")
    del figures["memory"]
    print(json.dumps(figures, indent=1))
    passed = alive and code == 0 and kills == recovered and late < early * 1.03 + 300
    print("passed" if passed else "failed")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
