"""Virtual environments that tests make for themselves, for packages that conflict with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TIMEOUT_S = 400  # of one command


def make_environment(folder: Path, *installs: Sequence[str], python: str = sys.executable) -> Path:
    """Make a virtual environment with packages, or skip the test if that is not possible here.

    Args:
        folder: where; it must not exist.
        installs: arguments of `pip install`, one sequence a call.
        python: the interpreter that the environment gets.

    Returns:
        The environment's interpreter.
    """
    own = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [str(own), "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "20"]
    for command in ([python, "-m", "venv", str(folder)], *([*pip, *packages] for packages in installs)):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            pytest.skip(f"{' '.join(command[-2:])}: no end after {TIMEOUT_S} s")
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            pytest.skip(f"{command[-1]} cannot be installed or made (is the package registry reachable?): {last}")
    return own
