"""Compile the int8 file for Arm's Ethos-U, with Arm's own compiler Vela.

One file for each accelerator in `BOARDS`; vela.json has what Vela reports: where operators run, memory, and its
estimate of the time for an inference. Vela is a Python package (Apache-2.0) and runs in a process of its own.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from mirilla.errors import ModelError
from mirilla.findings import ERROR, NOTE, Finding
from mirilla.targets.target import Pixels, Source, Target
from mirilla.targets.tflite import integers

REPORT = "vela.json"


@dataclass(frozen=True)
class Board:
    """An accelerator, as Vela knows it.

    accelerator, system, memory: the names of Vela's options.
    sram: bytes on the boards that have it; None if they differ too much.
    example: a board.
    """

    accelerator: str
    system: str
    memory: str
    sram: int | None
    example: str

    @property
    def file(self) -> str:
        return f"model_{self.accelerator}.tflite"


BOARDS = (
    Board("ethos-u55-64", "Ethos_U55_High_End_Embedded", "Shared_Sram", 2_000_000, "Himax WE2 (Grove Vision AI V2)"),
    Board(
        "ethos-u55-128", "Ethos_U55_High_End_Embedded", "Shared_Sram", None, "Alif Ensemble E1, E3 (high efficiency)"
    ),
    Board("ethos-u65-256", "Ethos_U65_Client_Server", "Dedicated_Sram_384KB", None, "NXP i.MX 93"),
    Board("ethos-u85-256", "Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_384KB", None, "Alif Ensemble E4, E6, E8"),
)
FILE = BOARDS[0].file
SNIPPET = """\
import json

for board in json.load(open("vela.json")):  # the files run on the boards only
    print(board["file"], board["npu_operators"], "operators on the NPU,", board["cpu_operators"], "on the CPU")
    print("  SRAM", board["sram_bytes"], "bytes,", board["milliseconds"], "ms by Vela's estimate")
"""
_OPERATORS = re.compile(r"(CPU|NPU) operators = (\d+)")
_TIMEOUT_S = 600


@dataclass(frozen=True)
class Compiled:
    """What Vela reports of a file. Sizes are in bytes, `milliseconds` is Vela's estimate for an inference."""

    file: str
    accelerator: str
    system_config: str
    memory_mode: str
    npu_operators: int
    cpu_operators: int
    sram_bytes: int
    dram_bytes: int
    flash_bytes: int
    milliseconds: float


def check(source: Source) -> list[Finding]:
    """The rules are Vela's own; see `build`."""
    return integers.check(source)


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """A compiled file for each accelerator, and Vela's report.

    Raises:
        ModelError: Vela refuses the model, leaves an operator to the CPU, or needs more memory than the board has.
    """
    content = integers.build(source, pictures)[integers.FILE]
    files, reports = {}, []
    for board in BOARDS:
        files[board.file], report = compiled(content, board)
        if problems := [one for one in findings(report, board) if one.severity == ERROR]:
            raise ModelError(problems[0].what, problems[0].remedy)
        reports.append(asdict(report))
    return {**files, REPORT: (json.dumps(reports, indent=2) + "\n").encode()}


def findings(report: Compiled, board: Board) -> list[Finding]:
    """What is wrong with a compiled file."""
    found = []
    if report.cpu_operators:
        what = f"{board.accelerator}: {report.cpu_operators} operators would run on the CPU."
        found.append(Finding(ERROR, "cpu-operators", board.file, what, "Use the layers of the zoo's networks."))
    if board.sram is not None and report.sram_bytes > board.sram:
        what = f"{board.accelerator}: {report.sram_bytes:,} bytes of SRAM; {board.example} has {board.sram:,}."
        found.append(Finding(ERROR, "sram", board.file, what, "Train with a smaller input (--size)."))
    if not found:
        what = f"{board.accelerator}: every operator runs on the NPU, {report.sram_bytes:,} bytes of SRAM."
        found.append(Finding(NOTE, "compiled", board.file, what))
    return found


def compiled(content: bytes, board: Board) -> tuple[bytes, Compiled]:
    """Run Vela on an int8 file.

    Raises:
        ModelError: Vela fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.tflite").write_bytes(content)
        options = ["--config", "Arm/vela.ini", "--system-config", board.system, "--memory-mode", board.memory]
        options += ["--accelerator-config", board.accelerator, "--output-dir", str(folder)]
        command = [sys.executable, "-m", "ethosu.vela", str(folder / "model.tflite"), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        made = folder / "model_vela.tflite"
        summaries = list(folder.glob("model_summary_*.csv"))
        if done.returncode or not made.is_file() or not summaries:
            reason = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise ModelError(f"Vela cannot compile the model for {board.accelerator}: {reason}", "See vela --help.")
        with summaries[0].open(newline="") as file:
            (row,) = csv.DictReader(file)
        counts = {kind: int(count) for kind, count in _OPERATORS.findall(done.stdout)}
        return made.read_bytes(), Compiled(
            board.file,
            board.accelerator,
            board.system,
            board.memory,
            counts["NPU"],
            counts["CPU"],
            round(float(row["sram_memory_used"]) * 1024),
            round(float(row["dram_memory_used"]) * 1024),
            round((float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])) * 1024),
            round(float(row["inference_time"]) * 1000, 3),
        )


ETHOS_U = Target(
    "ethos-u",
    FILE,
    "int8 compiled by Vela for Arm Ethos-U (Himax WE2, Alif, i.MX 93)",
    check,
    build,
    None,
    SNIPPET,
    calibrated=True,
    needs=("ethosu", "ethos-u-vela", "ethos-u"),
)
