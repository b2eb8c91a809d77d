"""Find the picture that an annotation names.

Labelling tools write names as they were on another machine: with backslashes, as absolute paths of Windows or POSIX, as
URLs with percent-encoding, in another Unicode normal form or case, or without a suffix.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mirilla.data import images

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters at least: a single one is a drive
_DRIVE = re.compile(r"/?[A-Za-z]:(?=/)")  # with '/' before it in file:///C:/photos


class Picture(NamedTuple):
    """A picture that an annotation names.

    Attributes:
        path: its file; it does not exist if no file of this name was found.
        name: its name in the data set: relative, with '/' between folders, and without '.' and '..'.
    """

    path: Path
    name: str


class PictureFinder:
    """Finds pictures in folders by the names in annotations; the folders are listed once, when first needed."""

    def __init__(self, *folders: Path):
        self.folders = folders
        self._listings: dict[Path, _Listing] = {}

    def find(self, given: str) -> Picture:
        """The picture of this name: the first that exists of

        1. the name itself, in each folder,
        2. the name with '/' for backslashes, then without percent-encoding,
        3. an absolute path or URL: as it is, then without its first folder, and so on down to the file's name,

        where each may be in another Unicode form, or without a suffix, or in another case if one file only fits.
        If there is none, the path is that of the plain name in the first folder.
        """
        for folder in self.folders:
            if _is_plain(given) and os.path.isfile(folder / given):
                return Picture(folder / given, given)
        plain = list(_spellings(given))
        for spelling in dict.fromkeys((*plain, *_spellings(unquote(given)))):
            if spelling.startswith("/") and os.path.isfile(spelling):
                return self._absolute(Path(spelling))
            for tail in _tails(spelling):
                for folder in self.folders:
                    if found := self._search(folder, tail):
                        return found
        *_, parts = _tails(plain[-1])
        return Picture(self.folders[0].joinpath(*parts), "/".join(part for part in parts if part != "..") or "picture")

    def _absolute(self, path: Path) -> Picture:
        for folder in self.folders:
            if path.is_relative_to(os.path.abspath(folder)):
                return Picture(path, path.relative_to(os.path.abspath(folder)).as_posix())
        return Picture(path, path.name)

    def _search(self, folder: Path, parts: list[str]) -> Picture | None:
        """The picture at `parts` below a folder, as the folders' listings spell them."""
        path, name = folder, []
        for number, part in enumerate(parts, 1):
            if part == "..":
                path = path.parent if path.name not in ("", "..") else path / ".."
                continue
            listing = self._listings.setdefault(path, _Listing(path))
            actual = listing.spelled(part) or (listing.with_suffix(part) if number == len(parts) else None)
            if actual is None:
                return None
            path, name = path / actual, [*name, actual]
        return Picture(path, "/".join(name)) if os.path.isfile(path) else None


class _Listing:
    """The names in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    @cached_property
    def _names(self) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self._folder))
        except (OSError, ValueError):
            return frozenset()

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        """Name in one Unicode form and case -> names."""
        folded: dict[str, list[str]] = {}
        for name in sorted(self._names):
            folded.setdefault(_fold(name), []).append(name)
        return folded

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        """Name without suffix, in one Unicode form -> names of pictures."""
        stems: dict[str, list[str]] = {}
        for name in sorted(self._names):
            if images.is_picture_name(name):
                stems.setdefault(unicodedata.normalize("NFC", os.path.splitext(name)[0]), []).append(name)
        return stems

    def spelled(self, name: str) -> str | None:
        """The name as it is in the folder: the same, or the only one in another Unicode form or case."""
        if name in self._names:
            return name
        names = self._folded.get(_fold(name), [])
        same = [other for other in names if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name)]
        return same[0] if same else names[0] if len(names) == 1 else None

    def with_suffix(self, stem: str) -> str | None:
        """The picture with this name before its suffix."""
        if images.is_picture_name(stem):
            return None  # the name has its suffix: another suffix is another picture
        return next(iter(self._stems.get(unicodedata.normalize("NFC", stem), [])), None)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _is_plain(name: str) -> bool:
    """Whether a name is relative, without backslashes, '.' and '..'."""
    return bool(name) and "\\" not in name and not any(part in ("", ".", "..") for part in name.split("/"))


def _spellings(given: str) -> Iterator[str]:
    """The forms of a name, most literal first, with '/' between folders; absolute ones start with '/'."""
    if _SCHEME.match(given):
        given = "/" + unquote(_SCHEME.sub("", given).partition("?")[0]).lstrip("/")
    yield given  # on POSIX, a backslash may be part of a name
    given = given.replace("\\", "/")
    yield given
    if drive := _DRIVE.match(given):
        yield "/" + given[drive.end() :].lstrip("/")


def _tails(name: str) -> Iterator[list[str]]:
    """The parts of a relative name; of an absolute one, also without its first folder, its second, and so on."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    yield parts
    if name.startswith("/"):
        for start in range(1, len(parts)):
            yield parts[start:]
