"""Write a trained model as files for other runtimes, and check that they detect the same.

    exports/onnx/model.onnx, model.json, labels.txt, example.py, parity.json
    exports/tflite-int8/...

A target's folder is made beside its place and moved there when its file is complete, has run in its real runtime and
loses no more AP than allowed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mirilla.detect.detector import Detector
from mirilla.detect.models import source_network
from mirilla.errors import MissingExtraError, ModelError, UsageError
from mirilla.exports import parity
from mirilla.exports.parity import Parity
from mirilla.exports.pictures import Pictures, calibration_pixels
from mirilla.files import explaining, write_bytes, write_text
from mirilla.findings import ERROR, Finding, RuleError
from mirilla.model import card as cards
from mirilla.targets.names import EXAMPLE, TOLERANCE
from mirilla.targets.target import Network, Pixels, Source, Target

LABELS = "labels.txt"


@dataclass(frozen=True)
class Written:
    """A target's files.

    parity: how they differ from the model; None if the runtime is not installed (`unmeasured` says what is missing).
    """

    target: str
    folder: Path
    files: Mapping[str, int]  # name -> bytes
    parity: Parity | None
    unmeasured: str = ""


class ParityError(ModelError):
    """An exported file loses more AP than allowed; it was not written."""


def export(
    source: Source,
    targets: Sequence[Target],
    out: Path,
    *,
    pictures: Pictures | None,
    tolerance: float = TOLERANCE,
    log: Callable[[str], None],
) -> list[Written]:
    """Write a model for each target, in a folder of its name.

    Args:
        pictures: for the ranges of integers and for the comparison; None: no comparison.
        tolerance: the AP that a file may lose.
        log: prints a line.

    Raises:
        RuleError: a target cannot be built from this model; nothing is written.
        UsageError: a target needs pictures, or a folder has other content.
        ParityError: a file loses too much AP; the other targets' files are written.
        MirillaError: a file cannot be written.
    """
    for finding in _require_buildable(source, targets, pictures):
        log(f"{finding.what} {finding.remedy}".rstrip())
    for target in targets:
        _require_own_folder(out / target.name)
    pixels = np.zeros((0, source.card.spec.height_px, source.card.spec.width_px, 3), np.uint8)
    if pictures is not None and any(target.calibrated for target in targets):
        pixels = calibration_pixels(pictures.calibration, source.card)
    model = None
    if pictures is not None and pictures.measured:
        model = parity.reference(_detector(source, source_network(source)), pictures.measured)
    written: list[Written] = []
    failed: list[Parity] = []
    for target in targets:
        result = _export_one(source, target, out / target.name, pixels, model, tolerance)
        if isinstance(result, Written):
            written.append(result)
            log(f"{target.name}: {result.parity or result.unmeasured or 'not compared: no pictures'}")
        else:
            failed.append(result)
            log(f"{target.name}: not written: {result}")
    if failed:
        names = ", ".join(f"{one.target} ({one.lost:.4f})" for one in failed)
        raise ParityError(
            f"AP falls by more than {tolerance:g}: {names}.",
            "Give pictures like those of the application with --calibrate, or allow more with --tolerance.",
        )
    return written


def _export_one(
    source: Source, target: Target, folder: Path, pixels: Pixels, model: parity.Reference | None, tolerance: float
) -> Written | Parity:
    """Write a target's folder; if the file loses too much AP, write nothing and return the comparison."""
    with _staging(folder) as stage:
        _write(stage, target, source, target.build(source, pixels))
        compared, unmeasured = _compare(stage, target, source, model)
        if compared is not None:
            if compared.lost > tolerance:
                return compared
            parity.save(stage / parity.FILE_NAME, [compared])
            threshold = round(min(max(source.card.threshold + compared.threshold_shift, 0), 1), 2)
            if threshold != source.card.threshold:  # not in model.json only: C source and the web page have it as well
                source = replace(source, card=replace(source.card, threshold=threshold))
                _write(stage, target, source, target.build(source, pixels))
        files = {path.name: path.stat().st_size for path in sorted(stage.iterdir())}
        _replace(folder, stage)
    return Written(target.name, folder, files, compared, unmeasured)


def _require_buildable(source: Source, targets: Sequence[Target], pictures: Pictures | None) -> list[Finding]:
    """Refuse what cannot be built; returns the other findings."""
    if pictures is None and (names := [target.name for target in targets if target.calibrated]):
        raise UsageError(
            f"{', '.join(names)}: pictures are needed to choose the ranges of integers.",
            "Name a data set with --calibrate.",
        )
    findings: list[Finding] = []
    for target in targets:
        findings += [replace(finding, what=f"{target.name}: {finding.what}") for finding in target.check(source)]
    errors = [finding for finding in findings if finding.severity == ERROR]
    if errors:
        raise RuleError(errors)
    return findings


def _write(stage: Path, target: Target, source: Source, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        write_bytes(stage / name, content)
    write_text(stage / LABELS, "".join(f"{name}\n" for name in source.card.labels.by_column))
    write_text(stage / EXAMPLE, target.snippet)
    cards.save(_card(target, source), stage / target.file)


def _card(target: Target, source: Source) -> cards.ModelCard:
    return replace(source.card, target=target.name, file=target.file, file_sha256="")


def _compare(stage: Path, target: Target, source: Source, model: parity.Reference | None) -> tuple[Parity | None, str]:
    """The comparison, or why there is none."""
    if model is None:
        return None, ""
    if target.run is None:
        return None, "not compared: its runtime does not run on this computer"
    try:
        network = target.run(stage / target.file, source.card)
    except MissingExtraError as error:
        return None, f"not compared: {error.what} {error.remedy or ''}".rstrip()
    return parity.compare(target.name, _detector(source, network), model), ""


def _detector(source: Source, network: Network) -> Detector:
    return Detector(source.card, network, source=source.card.name)


def _require_own_folder(folder: Path) -> None:
    """Refuse a folder that an export did not make."""
    with explaining(folder):
        if folder.is_dir() and any(folder.iterdir()) and not (folder / cards.FILE_NAME).is_file():
            raise UsageError(f"{folder}: the folder contains other files.", "Choose another --out.")
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder}: not a folder.", "Choose another --out.")


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    with explaining(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _replace(folder: Path, stage: Path) -> None:
    """Move the files of `stage` into `folder`, model.json last; files of an earlier export are replaced."""
    with explaining(folder):
        folder.mkdir(exist_ok=True)
        for path in sorted(stage.iterdir(), key=lambda path: path.name == cards.FILE_NAME):
            os.replace(path, folder / path.name)
