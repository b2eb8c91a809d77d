"""MATLAB files (.mat), read by scipy in a process of its own: a damaged file can crash it, or ask for gigabytes."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

from numpy.typing import NDArray

from mirilla.data import isolated
from mirilla.errors import DataError, MissingExtraError
from mirilla.files import explaining


def load(path: Path, names: Sequence[str] = ()) -> dict[str, NDArray]:
    """The variables of a file, or those of `names` that it has.

    Raises:
        MissingExtraError: scipy is not installed.
        DataError: the file is damaged, or is no MATLAB file.
        MirillaError: it cannot be opened.
    """
    if importlib.util.find_spec("scipy") is None:
        raise MissingExtraError("scipy", "eval", "Reading WIDER FACE's .mat files")
    with explaining(path), open(path, "rb") as file:
        content = file.read()
    try:
        return pickle.loads(isolated.run(__name__, *names, content=content))
    except isolated.ChildError as error:
        raise DataError(f"{path}: this MATLAB file cannot be read: {error}.", "Download it again.") from error


def _child(names: Sequence[str]) -> None:
    """Read a file from standard input; write its variables to standard output."""
    import io

    isolated.limit_memory()
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(sys.stdin.buffer.read()), variable_names=names or None)
    except (Exception, MemoryError) as error:  # scipy raises many kinds of exceptions for a damaged file
        sys.exit(" ".join(str(error).split()) or type(error).__name__)
    arrays = {name: value for name, value in content.items() if not name.startswith("__")}
    sys.stdout.buffer.write(pickle.dumps(arrays, pickle.HIGHEST_PROTOCOL))


if __name__ == "__main__":
    _child(sys.argv[1:])
