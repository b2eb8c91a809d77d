"""A job's output folder, and its record of the finished stages: their inputs, files and facts.

`run.json` in the folder holds, for every finished stage, a fingerprint of its inputs, the files that it wrote, and its
facts. A stage is skipped if its fingerprint and its files are unchanged. The file is replaced atomically after each
stage, so a job that is killed resumes with the stage that was interrupted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, NotRequired, TypedDict, TypeVar

from mirilla.data.sample import Sample
from mirilla.errors import MirillaError, UsageError
from mirilla.files import explaining, locked, write_text
from mirilla.version import __version__

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

STATE, LOCK = "run.json", ".run.lock"
_FORMAT = "mirilla-run"
# Everything that a job may write to its folder; --restart removes only these.
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

Facts = TypeVar("Facts", bound="DataclassInstance")


@dataclass(frozen=True)
class NoFacts:
    """The facts of a stage whose only results are files."""


@dataclass(frozen=True)
class Done(Generic[Facts]):
    """The result of a stage: the files that it wrote, and facts for later stages and the report.

    facts: a dataclass of plain values (numbers, strings, lists, mappings), since it is stored as JSON.
    """

    outputs: Sequence[Path]
    facts: Facts


class _StageState(TypedDict):
    fingerprint: str
    outputs: dict[str, int]  # file name relative to the folder -> size in bytes
    facts: dict[str, object]
    seconds: float


class TrainingState(TypedDict):
    """The data and options with which the checkpoints in `train` were trained."""

    lasting: str  # fingerprint of the data and of `options`
    options: dict[str, object]


class _State(TypedDict):
    """The content of run.json."""

    format: str
    version: int
    made_by: str
    stages: dict[str, _StageState]
    training: NotRequired[TrainingState]


class Workspace:
    """A job's folder; create it with `Workspace.open`."""

    def __init__(self, out: Path, state: _State, log: Callable[[str], None]):
        self.out = out
        self.state = state
        self.log = log

    @classmethod
    @contextlib.contextmanager
    def open(cls, out: Path, log: Callable[[str], None], *, restart: bool = False) -> Iterator[Workspace]:
        """Create the folder, or open that of an earlier run; only one process at a time may have it open.

        Args:
            log: prints a line.
            restart: remove what an earlier run wrote.

        Raises:
            UsageError: the folder was not made by a run, or another process has it open.
            MirillaError: the folder cannot be written, or its run.json is damaged.
        """
        out = Path(out)
        _require_own_folder(out)
        with explaining(out):
            out.mkdir(parents=True, exist_ok=True)
        what = f"--out {out}: another mirilla process is using this folder."
        with locked(out / LOCK, what, "Wait for it, or name another folder."):
            for name in OWN if restart else ():
                with explaining(out / name):
                    _remove(out / name)
            workspace = cls(out, _load(out / STATE), log)
            workspace.save()  # fails early if the folder cannot be written
            yield workspace

    @property
    def stages(self) -> Sequence[str]:
        """Names of the finished stages."""
        return tuple(self.state["stages"])

    def save(self) -> None:
        write_text(self.out / STATE, json.dumps(self.state, indent=1) + "\n")

    def stage(self, name: str, fingerprint: str, facts: type[Facts], work: Callable[[], Done[Facts]]) -> Facts:
        """Run a stage, unless it was run with the same inputs and its files are still there.

        Args:
            fingerprint: of all inputs of the stage.
            facts: the class of its facts.
            work: runs the stage.

        Returns:
            The facts, of this run or an earlier one.
        """
        earlier = self.state["stages"].get(name)
        if earlier and earlier["fingerprint"] == fingerprint and self._intact(earlier["outputs"]):
            with contextlib.suppress(TypeError):  # facts of another version of Mirilla
                known = facts(**earlier["facts"])
                self.log(f"[{name}] up to date")
                return known
        self.log(f"[{name}]")
        start = time.monotonic()
        done = work()
        stored = json.loads(json.dumps(asdict(done.facts)))
        self.state["stages"][name] = {
            "fingerprint": fingerprint,
            "outputs": {path.relative_to(self.out).as_posix(): path.stat().st_size for path in done.outputs},
            "facts": stored,
            "seconds": round(time.monotonic() - start, 1),
        }
        self.save()
        return facts(**stored)

    def seconds(self, name: str) -> float:
        """The duration of a stage; 0 if it never ran."""
        state = self.state["stages"].get(name)
        return state["seconds"] if state else 0.0

    def outputs(self, name: str) -> Mapping[str, int]:
        """The files that a stage wrote: name -> size in bytes."""
        state = self.state["stages"].get(name)
        return state["outputs"] if state else {}

    def _intact(self, outputs: Mapping[str, int]) -> bool:
        paths = [(self.out / name, size) for name, size in outputs.items()]
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def fingerprint(*parts: object) -> str:
    """A hash of plain values (numbers, strings, lists, mappings)."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def samples_fingerprint(samples: Iterable[Sample], *, times: bool = True) -> str:
    """A hash of labels, boxes and pictures (encoded bytes by content, files by size and modification time).

    Args:
        times: False ignores modification times, so that copied files count as the same.
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


def _require_own_folder(out: Path) -> None:
    """Refuse a path that is a file, or a folder with files but without run.json."""
    with explaining(out):
        if not out.exists():
            return
        if not out.is_dir():
            raise UsageError(f"--out {out}: this is a file.", "Name a folder.")
        names = {path.name for path in out.iterdir()}
    others = sorted(name for name in names if name != LOCK and not name.endswith(".part"))
    if others and STATE not in names:
        raise UsageError(
            f"--out {out}: the folder contains other files ({', '.join(others[:4])}) but no {STATE}, so it is not "
            "that of an earlier run.",
            "Name a new or empty folder.",
        )


def _load(path: Path) -> _State:
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
            f"{path}: not a run.json written by Mirilla, or damaged.",
            "Use another --out, or start from the beginning in this folder with --restart.",
        ) from error
    return state


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()
