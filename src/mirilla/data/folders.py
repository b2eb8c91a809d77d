"""List files. The metadata files of macOS, '._a.xml' beside 'a.xml', are left out.

A subfolder that cannot be read is a finding, not silence.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from mirilla.findings import Finding


def files_in(folder: Path, *patterns: str) -> list[Path]:
    """The files and folders in a folder whose names in lower case match a pattern, sorted; none if there is no folder.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(
        folder / name
        for name in names
        if not is_metadata(name) and any(fnmatchcase(name.lower(), pattern) for pattern in patterns)
    )


def is_metadata(name: str) -> bool:
    """Whether macOS keeps the metadata of another file under this name."""
    return name.startswith("._")


def files_below(folder: Path) -> tuple[list[Path], list[Finding]]:
    """All files below a folder, sorted, and a finding for each folder that cannot be read.

    Links to folders are followed, except to folders that are listed already.
    """
    files: list[Path] = []
    problems: list[Finding] = []

    def refused(error: OSError) -> None:
        what = f"the folder cannot be read ({error.strerror}); its files are left out."
        problems.append(Finding("error", "unreadable-folder", str(error.filename), what, "Change its permissions."))

    listed: set[tuple[int, int]] = set()
    for place, inside, names in os.walk(folder, onerror=refused, followlinks=True):
        stat = os.stat(place)
        if (stat.st_dev, stat.st_ino) in listed:
            inside.clear()
            continue
        listed.add((stat.st_dev, stat.st_ino))
        files += [Path(place, name) for name in names if not is_metadata(name)]
    return sorted(files), problems
