"""The folder a job works in, and what it remembers: which stages are done, from what, and what they made.

`run.json` there holds for every finished stage a fingerprint of all that it was made from and the files it
made. A stage is skipped when both are as they were. The file is replaced atomically after each stage, so a
job that is killed anywhere goes on with the stage that it was in.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mirilla.data.sample import Sample
from mirilla.errors import MirillaError, UsageError
from mirilla.files import explaining, write_text
from mirilla.version import __version__

STATE, LOCK = "run.json", ".run.lock"
_FORMAT = "mirilla-run"
# All that a job may make in its folder; --restart removes these and nothing else.
OWN = (
    STATE,
    "data",
    "toy",
    "label_map.pbtxt",
    "pipeline.config",
    "train",
    "export",
    "findings.txt",
    "metrics.json",
    "curves",
    "contact_sheet.jpg",
    "report.html",
    "speed",
)


@dataclass(frozen=True)
class Done:
    """What a stage leaves behind: the files it made, and facts for later stages and the report."""

    outputs: Sequence[Path] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Workspace:
    """A job's folder. Make one with `Workspace.open`."""

    def __init__(self, out: Path, state: dict[str, Any], echo: Callable[[str], None]):
        self.out = out
        self.state = state
        self.echo = echo
        self.stages: dict[str, dict[str, Any]] = state["stages"]

    @classmethod
    @contextlib.contextmanager
    def open(cls, out: Path, echo: Callable[[str], None], *, restart: bool = False) -> Iterator[Workspace]:
        """Make the folder, or take up the job in it; only one process may have it open.

        Raises:
            UsageError: the folder holds something else, or another job is at work in it.
            MirillaError: the folder cannot be written, or its run.json is broken.
        """
        out = Path(out)
        with explaining(out):
            if out.exists() and not out.is_dir():
                raise UsageError(f"--out {out}: this is a file.", "Name a folder.")
            others = (
                [p.name for p in out.iterdir() if p.name != LOCK and not p.name.endswith(".part")]
                if out.is_dir()
                else []
            )
            if others and STATE not in others:
                raise UsageError(
                    f"--out {out}: the folder holds other things ({', '.join(sorted(others)[:4])}) "
                    f"and no {STATE}: this command did not make it.",
                    "Name a new or empty folder.",
                )
            out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            if restart:
                for name in OWN:
                    with explaining(out / name):
                        _remove(out / name)
            state = _load(out / STATE)
            workspace = cls(out, state, echo)
            workspace.save()  # at once: a folder that cannot be written is found out here
            yield workspace

    def save(self) -> None:
        write_text(self.out / STATE, json.dumps(self.state, indent=1) + "\n")

    def stage(self, name: str, fingerprint: str, work: Callable[[], Done]) -> Mapping[str, Any]:
        """Do a stage, unless it was done from the same things and what it made is still there.

        Returns:
            Its facts (from now or from then).
        """
        before = self.stages.get(name)
        if before and before["fingerprint"] == fingerprint and self._intact(before["outputs"]):
            self.echo(f"[{name}] done before, nothing has changed")
            return before["facts"]
        self.echo(f"[{name}]")
        start = time.monotonic()
        done = work()
        self.stages[name] = {
            "fingerprint": fingerprint,
            "outputs": {self._relative(p): p.stat().st_size for p in done.outputs},
            "facts": json.loads(json.dumps(done.facts)),
            "seconds": round(time.monotonic() - start, 1),
        }
        self.save()
        return self.stages[name]["facts"]

    def seconds(self, name: str) -> float:
        return float(self.stages.get(name, {}).get("seconds", 0.0))

    def files(self) -> list[tuple[str, int]]:
        """Every file that the stages made, with its size in bytes."""
        return [(name, size) for stage in self.stages.values() for name, size in stage["outputs"].items()]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def _intact(self, outputs: Mapping[str, int]) -> bool:
        paths = [(self.out / name, size) for name, size in outputs.items()]
        return all(p.is_file() and p.stat().st_size == size for p, size in paths)


def fingerprint(*parts: object) -> str:
    """A hash of plain values (numbers, strings, lists, mappings)."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def samples_fingerprint(samples: Iterable[Sample], *, times: bool = True) -> str:
    """A hash of labels, boxes and pictures (bytes by content, files by size and time).

    Args:
        times: False leaves the files' times out, so that copied files are the same.
    """
    digest = hashlib.sha256()
    for sample in samples:
        if isinstance(sample.image, bytes):
            picture = hashlib.sha256(sample.image).hexdigest()
        else:
            with explaining(sample.image):
                status = sample.image.stat()
            picture = f"{status.st_size}:{status.st_mtime_ns if times else ''}"
        digest.update(f"{sample.filename}|{picture}|{sample.labels}|".encode())
        for array in (
            sample.boxes_yxyx,
            sample.ignore,
            sample.difficult,
            sample.group_of,
            sample.is_crowd,
            sample.weight,
        ):
            digest.update(array.tobytes())
    return digest.hexdigest()[:32]


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"format": _FORMAT, "version": 1, "made_by": f"mirilla {__version__}", "stages": {}}
    with explaining(path):
        text = path.read_text("utf-8", "replace")
    try:
        state = json.loads(text)
        if state["format"] != _FORMAT or not isinstance(state["stages"], dict):
            raise ValueError
    except (ValueError, KeyError, TypeError) as error:
        raise MirillaError(
            f"{path}: this is not a run.json that Mirilla wrote, or it is damaged.",
            "Use another --out, or --restart to begin anew in this folder.",
        ) from error
    return state


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with explaining(out):
        handle = os.open(out / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"--out {out}: another mirilla is at work in this folder.",
                "Wait for it, or name another folder.",
            ) from error
        yield
    finally:
        os.close(handle)
