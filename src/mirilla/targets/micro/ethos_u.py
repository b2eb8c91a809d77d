"""The target `ethos-u`: the file of `tflite-int8`, compiled for Arm's Ethos-U by Vela, Arm's own compiler.

One compiled file for each of DEVICES, and `vela.md` with what Vela reports of it: which operators run on the NPU, and
how much memory they take. Vela runs in a process of its own. A compiled file is one custom operator, which runs on
an NPU only; so LiteRT runs, and the comparison measures, the file that Vela was given.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mirilla.errors import ModelError
from mirilla.findings import Finding
from mirilla.targets.target import Package, Pixels, Source, Target
from mirilla.targets.tflite import integers
from mirilla.targets.tflite.run import run

REPORT = "vela.md"
_TIMEOUT_S = 300
_REMEDY = "Export to tflite-int8, and compile that file with the Vela of the board's maker."


@dataclass(frozen=True)
class Device:
    """An accelerator and its memory, in Vela's words.

    accelerator, system, memory: of --accelerator-config, --system-config and --memory-mode.
    boards: where it is found.
    sram_kib: the SRAM that the NPU can use there; 0 if that depends on the board.
    """

    accelerator: str
    system: str
    memory: str
    boards: str
    sram_kib: int

    @property
    def file(self) -> str:
        """Name of the compiled file."""
        return f"model_{self.accelerator}.tflite"


_SHARED, _DEDICATED = "Shared_Sram", "Dedicated_Sram_384KB"
_U55 = "Ethos_U55_High_End_Embedded"
DEVICES = (
    Device("ethos-u55-64", _U55, _SHARED, "Himax WE2: Seeed's Grove Vision AI V2", 2048),
    Device("ethos-u55-128", _U55, _SHARED, "Alif Ensemble, high-efficiency core", 0),
    Device("ethos-u65-256", "Ethos_U65_High_End", _DEDICATED, "NXP i.MX 93", 384),
    Device("ethos-u85-256", "Ethos_U85_SYS_Flash_High", _SHARED, "Alif Ensemble E4, E6 and E8", 0),
)

SNIPPET = """\
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

# on this computer: the file that was compiled; on the board, its firmware runs model_ethos-u55-64.tflite and others
detect = Interpreter("model_int8.tflite").get_signature_runner()
_, height, width, _ = detect.get_input_details()["image"]["shape"]
pixels = np.asarray(Image.open("photo.jpg").convert("RGB").resize((width, height)))
found = detect(image=(pixels[None].astype(np.int16) - 128).astype(np.int8))
print("best score:", (int(found["scores"].max()) + 128) / 256)
"""


@dataclass(frozen=True)
class Compiled:
    """A compiled file and what Vela reports of it.

    npu_operators, cpu_operators: how many operators run where.
    on_cpu: each operator that is left to the CPU, with Vela's reason.
    sram_kib, dram_kib, flash_kib: memory used.
    milliseconds: Vela's estimate of the time of one picture.
    """

    device: Device
    content: bytes
    npu_operators: int
    cpu_operators: int
    on_cpu: tuple[str, ...]
    sram_kib: float
    dram_kib: float
    flash_kib: float
    milliseconds: float


def check(source: Source) -> list[Finding]:
    """Every SSD can be compiled."""
    return []


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The file of `tflite-int8`, a compiled one for each device, and Vela's reports.

    Raises:
        ModelError: Vela refuses the file.
    """
    model = integers.build(source, pictures)[integers.FILE]
    compiled = [compile_for(device, model) for device in DEVICES]
    files = {integers.FILE: model} | {one.device.file: one.content for one in compiled}
    return files | {REPORT: report(compiled).encode()}


def compile_for(device: Device, model: bytes) -> Compiled:
    """Compile a TensorFlow Lite file, and read Vela's report.

    Raises:
        ModelError: Vela refuses the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.tflite").write_bytes(model)
        command = [sys.executable, "-m", "ethosu.vela", "model.tflite", "--output-dir", "out", *options(device)]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ModelError(f"Vela has not compiled for {device.accelerator} after {_TIMEOUT_S} s.", _REMEDY) from None
        compiled = Path(folder) / "out" / "model_vela.tflite"
        if done.returncode or not compiled.is_file():
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise ModelError(f"Vela cannot compile the model for {device.accelerator}: {last}", _REMEDY)
        (summary,) = (Path(folder) / "out").glob("*_summary_*.csv")
        return _compiled(device, compiled.read_bytes(), done.stdout, summary)


def options(device: Device) -> tuple[str, ...]:
    """Vela's options for a device; Vela brings the systems and memory modes with it."""
    return (
        *("--config", "Arm/vela.ini"),
        *("--accelerator-config", device.accelerator),
        *("--system-config", device.system),
        *("--memory-mode", device.memory),
    )


def report(compiled: Sequence[Compiled]) -> str:
    """The page `vela.md`."""
    rows = "".join(
        f"| `{one.device.file}` | {one.device.boards} | {one.npu_operators} | {one.cpu_operators} "
        f"| {one.sram_kib:.0f}{f' of {one.device.sram_kib}' if one.device.sram_kib else ''} | {one.dram_kib:.0f} "
        f"| {one.flash_kib:.0f} | {one.milliseconds:.1f} |\n"
        for one in compiled
    )
    commands = "".join(f"vela model_int8.tflite {' '.join(options(one.device))}\n" for one in compiled)
    text = _PAGE.format(rows=rows, commands=commands)
    left = sorted({f"- {line}\n" for one in compiled for line in one.on_cpu})
    if left:
        text += "\n## Operators that are left to the CPU\n\n" + "".join(left)
    large = [one for one in compiled if one.device.sram_kib and one.sram_kib > one.device.sram_kib]
    for one in large:
        text += (
            f"\n{one.device.boards}: the model needs more SRAM than there is. "
            "Train with a smaller image_resizer, such as 192x192.\n"
        )
    return text


_PAGE = """\
# model_int8.tflite, compiled by Arm's Vela

Vela's own report. Operators are those after its optimiser, memory is in KiB, and the time is Vela's estimate for the
accelerator's full clock; nothing of this was measured on a board.

| file | found in | operators on the NPU | on the CPU | SRAM | DRAM | flash | ms |
|---|---|---:|---:|---:|---:|---:|---:|
{rows}
The commands, for other options (a board's maker may name its own --config, --system-config and --memory-mode, or an
older Vela that fits the firmware's driver):

```sh
{commands}```

The input is the bytes of an RGB picture minus 128, int8. The outputs are box codes and scores, int8. The target `c` has
a decoder for them.
"""


def _compiled(device: Device, content: bytes, output: str, summary: Path) -> Compiled:
    with summary.open(newline="", encoding="utf-8") as stream:
        figures = next(csv.DictReader(stream))
    counts = dict(re.findall(r"^(CPU|NPU) operators = (\d+)", output, re.MULTILINE))
    reasons = re.findall(r"operator: (\S+), ofm: '([^']*)'\s*\nReason: ([^\n]*)", output)
    return Compiled(
        device=device,
        content=content,
        npu_operators=int(counts["NPU"]),
        cpu_operators=int(counts["CPU"]),
        on_cpu=tuple(f"{op} '{tensor}': {reason.strip()}" for op, tensor, reason in reasons),
        sram_kib=float(figures["sram_memory_used"]),
        dram_kib=float(figures["dram_memory_used"]),
        flash_kib=float(figures["off_chip_flash_memory_used"]) + float(figures["on_chip_flash_memory_used"]),
        milliseconds=float(figures["inference_time"]) * 1000,
    )


ETHOS_U = Target(
    "ethos-u",
    integers.FILE,
    "TensorFlow Lite compiled by Arm's Vela for Ethos-U (Grove Vision AI, Alif, i.MX 93)",
    check,
    build,
    run,
    SNIPPET,
    calibrated=True,
    needs=(Package("ethosu", "ethos-u-vela", "ethos-u"),),
)
