"""The files that are deployed as one version: a model, its model.json and the program for the kit."""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mirilla.errors import ModelError, UsageError
from mirilla.files import explaining

PROGRAM = "mirilla_kit.py"
CARD = "model.json"
SUMS = "SHA256SUMS"
ARCHIVE_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a .zip can store; a fixed time gives fixed bytes

# mirilla_kit.py is a zip archive, which Python runs whatever its name: versions deployed before the program had several
# modules hold one script of this name, and a systemd unit starts both.
_HEADER = b"""#!/usr/bin/env python3
# A zip archive of Python modules, which python3 runs. To read them: python3 -m zipfile -e mirilla_kit.py FOLDER
"""
_PACKAGE = "mirilla_kit"
_MAIN = f"import sys\n\nfrom {_PACKAGE}.__main__ import main\n\nsys.exit(main())\n"


@dataclass(frozen=True)
class Payload:
    """The files of a version.

    name: of the version and of its folder: the time it was made, and a hash of all files.
    model: the model's display name.
    files: contents by file name.
    """

    name: str
    model: str
    files: Mapping[str, bytes]

    @property
    def sums(self) -> str:
        """The hashes, in the format of sha256sum."""
        lines = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in sorted(self.files.items()))
        return "".join(lines)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that depend on the contents only."""
        return self.name.rpartition("-")[2]


def read_payload(model_path: str | os.PathLike[str], *, bonnet: bool = True, stamp: str | None = None) -> Payload:
    """Read a model and its model.json, and add the program for the kit.

    Args:
        bonnet: whether the model must be compiled for the bonnet. False takes any file, without reading it.
        stamp: the time in the version's name; the current time by default.

    Raises:
        ModelError: the model is not a compiled one, or its model.json is missing or belongs to another model.
        UsageError: the model is a frozen graph.
        MirillaError: a file cannot be read.
    """
    from mirilla.model import card as cards
    from mirilla.model import classifier_card

    model_path = Path(model_path)
    with explaining(model_path):
        content = model_path.read_bytes()
    if bonnet:
        _check_compiled(model_path, content)
    card_path = cards.find(model_path)
    if card_path is None:
        raise ModelError(
            f"{model_path}: no model.json beside it. It holds the labels and anchors.",
            "Compile in an export's folder: 'mirilla compile' writes model.json beside the model, and for a classifier "
            "always (--labels FILE names its classes).",
        )
    card = classifier_card.load_beside(model_path) or cards.load(card_path, model_path)
    if bonnet and card.target != "bonnet":
        raise ModelError(
            f"{card_path}: 'file.target' is '{card.target}', not 'bonnet'.", "Compile again with 'mirilla compile'."
        )
    if not re.fullmatch(r"[\w+][\w+ .,()=-]*", card.file) or card.file in (CARD, PROGRAM, SUMS, "previous"):
        raise ModelError(
            f"{card_path}: '{card.file}' cannot be the name of a model file on the kit.",
            "Use letters, digits, '.', '_' and '-', and compile again under that name.",
        )
    with explaining(card_path):
        files = {card.file: content, CARD: card_path.read_bytes(), PROGRAM: program()}
    hashes = sorted((name, hashlib.sha256(content).hexdigest()) for name, content in files.items())
    digest = hashlib.sha256(repr(hashes).encode()).hexdigest()[:8]
    stamp = stamp or time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    return Payload(f"{stamp}-{digest}", card.name, files)


def _check_compiled(path: Path, content: bytes) -> None:
    from mirilla.bonnet import format as binary

    if path.suffix == ".pb":
        raise UsageError(
            f"{path}: the bonnet does not run frozen graphs.",
            f"mirilla compile {path} --out {path.with_suffix('.binaryproto')}",
        )
    binary.parse(content, os.fspath(path))


def program() -> bytes:
    """The program for the kit: the files of mirilla.board.kit as an executable zip archive.

    The files are stored without compression, so that the bytes do not depend on a version of zlib.
    """
    folder = resources.files("mirilla.board") / "kit"
    files = {"__main__.py": _MAIN.encode()}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith((".py", ".html")):
            files[f"{_PACKAGE}/{file.name}"] = file.read_bytes()
    stream = io.BytesIO()
    stream.write(_HEADER)
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, ARCHIVE_TIME), content)
    return stream.getvalue()
