"""What to detect in: photos, folders, patterns, lists, videos, cameras, addresses and standard input."""

from __future__ import annotations

import base64
import glob
import http.client
import sys
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from mirilla.data.folders import files_below
from mirilla.data.images import EXTENSIONS, decode_rgb
from mirilla.data.text import read
from mirilla.detect import video
from mirilla.errors import DataError

STANDARD_INPUT = "-"
MAX_BYTES = 100_000_000  # of a photo that is not a file
TIMEOUT_S = 20
_ADDRESSES = ("http://", "https://")


@dataclass(frozen=True)
class Photo:
    """A photo.

    content: its file, or its encoded bytes.
    source: how it is called in the results.
    name: file name of its result.
    """

    content: Path | bytes
    source: str
    name: str


@dataclass
class Sources:
    """What to detect in.

    videos: files, cameras and streams.
    missing: what cannot be read, with the reason.
    """

    photos: list[Photo] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def find_sources(paths: Iterable[str]) -> Sources:
    """Sort paths into photos, videos, cameras and streams.

    Folders are searched recursively. A pattern (`photos/*.jpg`) stands for the files that it fits. A `.txt` file stands
    for the paths in its lines, which are relative to the current folder or to the file's. An address of a photo is
    fetched, any other is a stream. '-' is a photo on standard input.
    """
    sources = Sources()
    for text in _expanded(paths, sources.missing):
        path = Path(text)
        if text == STANDARD_INPUT:
            _add_standard_input(sources)
        elif text.startswith(_ADDRESSES):
            _add_address(text, sources)
        elif (live := video.live_source(text)) is not None:
            sources.videos.append(live)
        elif path.is_dir():
            _add_folder(path, sources)
        elif not path.exists():
            sources.missing.append(f"{text}: no such file or folder.")
        elif path.suffix.lower() in video.EXTENSIONS:
            sources.videos.append(text)
        else:
            sources.photos.append(Photo(path, text, path.name))
    return sources


def decoded(photo: Photo) -> NDArray[np.uint8]:
    """The photo's pixels (H, W, 3) RGB.

    Raises:
        DataError: it is missing, broken, or no photo.
    """
    try:
        return decode_rgb(photo.content)
    except DataError as error:
        if isinstance(photo.content, Path):
            raise
        raise DataError(f"{photo.source}: {error.what}", error.remedy) from None


def _expanded(paths: Iterable[str], missing: list[str]) -> Iterator[str]:
    """The paths with patterns and lists replaced by what they stand for."""
    for text in paths:
        path = Path(text)
        if path.suffix.lower() == ".txt" and path.is_file():
            lines = [line.strip() for line in read(path).splitlines()]
            for line in filter(None, lines):
                is_place = Path(line).exists() or line == STANDARD_INPUT or video.live_source(line) is not None
                yield line if is_place else str(path.parent / line)
        elif glob.has_magic(text) and not path.exists() and video.live_source(text) is None:
            found = sorted(glob.glob(text, recursive=True))
            if not found:
                missing.append(f"{text}: no file fits this pattern.")
            yield from found
        else:
            yield text


def _add_folder(folder: Path, sources: Sources) -> None:
    below, problems = files_below(folder)
    sources.missing += [f"{problem.where}: {problem.what}" for problem in problems]
    files = [file for file in below if file.is_file()]
    photos = [file for file in files if file.suffix.lower() in EXTENSIONS]
    sources.photos += [Photo(file, str(file), str(file.relative_to(folder))) for file in photos]
    sources.videos += [str(file) for file in files if file.suffix.lower() in video.EXTENSIONS]


def _add_standard_input(sources: Sources) -> None:
    content = _limited(sys.stdin.buffer)
    if content is None:
        sources.missing.append(f"standard input: more than {MAX_BYTES:,} bytes, which is no photo.")
    elif not content:
        sources.missing.append("standard input: empty. Give a photo: mirilla detect - < photo.jpg")
    else:
        sources.photos.append(Photo(content, STANDARD_INPUT, "stdin.jpg"))


def _add_address(address: str, sources: Sources) -> None:
    """Fetch a photo; what is no photo by its content type is a stream."""
    shown = video.without_password(address)
    try:
        with urllib.request.urlopen(_request(address), timeout=TIMEOUT_S) as response:
            if response.headers.get_content_maintype() != "image":
                sources.videos.append(address)
                return
            content = _limited(response)
    except (OSError, ValueError, http.client.HTTPException) as error:
        is_answer = isinstance(error, urllib.error.HTTPError)
        reason = error.reason if isinstance(error, urllib.error.URLError) and not is_answer else error
        sources.missing.append(f"{shown}: cannot be fetched ({reason}).")
        return
    if content is None:
        sources.missing.append(f"{shown}: more than {MAX_BYTES:,} bytes, which is no photo.")
    else:
        name = PurePosixPath(unquote(urlsplit(shown).path)).name
        sources.photos.append(Photo(content, shown, Path(name).name or "photo.jpg"))


def _request(address: str) -> urllib.request.Request:
    """A request; the address's user and password go into a header."""
    parts = urlsplit(address)
    request = urllib.request.Request(video.without_password(address), headers={"User-Agent": "mirilla"})
    if parts.username is not None:
        both = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {base64.b64encode(both.encode()).decode()}")
    return request


def _limited(stream: BinaryIO) -> bytes | None:
    """What a stream holds; None if that is more than MAX_BYTES."""
    content = stream.read(MAX_BYTES + 1)
    return content if len(content) <= MAX_BYTES else None
