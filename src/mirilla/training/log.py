"""The training log: `log.jsonl`, with one JSON object per line, and event files for TensorBoard."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from mirilla.data.records import write_record
from mirilla.files import explaining
from mirilla.protos.tensorflow_pb2 import Event, SessionLog, Summary

Entry = dict[str, Any]  # parsed JSON: numbers, and a dict of numbers for "eval"

FILE = "log.jsonl"
SCALARS = {
    "loss": "Loss/total_loss",
    "localization_loss": "Loss/localization_loss",
    "classification_loss": "Loss/classification_loss",
    "regularization_loss": "Loss/regularization_loss",
    "learning_rate": "learning_rate",
    "images_per_s": "images_per_second",
    "steps_per_s": "global_step/sec",
}


class Log:
    """Appends to the log in a model directory. Entries after `step`, left by a run that got further, are removed."""

    def __init__(self, model_dir: Path, step: int):
        self._path = model_dir / FILE
        with explaining(model_dir):
            self._remove_after(step)
            self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._events = EventFile(model_dir)
        if step:  # TensorBoard then drops what an earlier run wrote from this step on
            self._events.add(Event(step=step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, entry: Entry) -> None:
        """Append an entry with "step", and numbers or {"eval": numbers}."""
        with explaining(self._path):
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        figures = {SCALARS[k]: v for k, v in entry.items() if k in SCALARS}
        figures |= {f"eval/{k}": v for k, v in entry.get("eval", {}).items() if isinstance(v, int | float)}
        self._events.add_scalars(entry["step"], figures)

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._file.close()
        self._events.close()

    def _remove_after(self, step: int) -> None:
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue  # an incomplete line, left by a killed run
        temporary = self._path.with_suffix(".part")
        temporary.write_text("".join(f"{line}\n" for line in kept))
        os.replace(temporary, self._path)


class EventFile:
    """Writes a new TensorBoard event file in a folder, which is created if missing."""

    def __init__(self, folder: Path):
        name = f"{time.time_ns() // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:8]}"
        with explaining(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / f"events.out.tfevents.{name}", "wb")  # noqa: SIM115
        self.add(Event(file_version="brain.Event:2"))
        self.flush()

    def add(self, event: Event) -> None:
        event.wall_time = time.time()
        write_record(self._file, event.SerializeToString())

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Add scalars: tag -> value."""
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        self.add(Event(step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read(model_dir: Path) -> list[Entry]:
    """All entries of a log, in order; an empty list if there is no log."""
    path = model_dir / FILE
    if not path.is_file():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries
