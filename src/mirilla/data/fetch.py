"""Fetch WIDER FACE: download its archives, check them, and unpack them safely.

Sizes and MD5 sums are those in public loaders of the data set. For research only: the photos belong to their owners.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from mirilla.data.download import CHUNK_BYTES, Archive, Downloader, ProgressMaker, defect, no_progress
from mirilla.errors import DownloadError
from mirilla.files import explaining, sha256, write_text, writing

MARKER = "mirilla-fetch.json"
MIRRORS = (
    "https://huggingface.co/datasets/CUHK-CSE/wider_face/resolve/main/data/",
    "https://dataset.bj.bcebos.com/wider_face/",
    "http://shuoyang1213.me/WIDERFACE/support/bbx_annotation/",  # the authors' own page: annotations only
)
WIDER_FACE = (
    Archive(
        "wider_face_split.zip",
        None,  # a mirror has the same annotations in another zip file
        ("0e3767bcf0e326556d407bf5bff5d27c", "a4a898d6193db4b9ef3260a68bad0dc7"),
    ),
    Archive("WIDER_val.zip", 362_752_168, ("dfa7d7e790efa35df3788964cf0bbaea",)),
    Archive("WIDER_train.zip", 1_465_602_149, ("3fedf70df600953d25982bcd13d91ba2",)),
)


def fetch_widerface(
    folder: str | os.PathLike[str],
    *,
    mirrors: Sequence[str] = MIRRORS,
    from_dir: str | os.PathLike[str] | None = None,
    archives: Sequence[Archive] = WIDER_FACE,
    checksum: bool = True,
    keep_archives: bool = False,
    attempts: int = 5,
    progress: ProgressMaker = no_progress,
    echo: Callable[[str], object] = lambda text: None,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, str]:
    """Fetch WIDER FACE into `folder`: WIDER_train/, WIDER_val/, wider_face_split/.

    Existing files are not fetched again; an interrupted download is resumed.

    Args:
        mirrors: addresses to which the archives' names are added, tried in order.
        from_dir: a folder with archives that the user already has; those are used and left in place.
        checksum: whether the archives must have their published MD5 sums (the zip's own are always checked).
        keep_archives: keep downloaded archives after unpacking.
        attempts: tries per mirror if the connection breaks.
        progress, echo, sleep: as in `Downloader`.

    Returns:
        Archive name -> SHA-256 of the file that was unpacked (also written to mirilla-fetch.json).

    Raises:
        DownloadError: no mirror has the whole file, or a file is not the published one; lists the reasons.
        MirillaError: the disk is full, or the folder may not be written.
    """
    folder = Path(folder)
    if from_dir is not None and not Path(from_dir).is_dir():
        raise DownloadError(f"{from_dir}: no such folder.", "Give the folder that holds the .zip files with --from.")
    with explaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
    downloader = Downloader(mirrors, checksum, attempts, progress, echo, sleep)
    done = _read_marker(folder)
    for archive in archives:
        if archive.name in done and (folder / archive.name.removesuffix(".zip")).is_dir():
            echo(f"{archive.name}: already unpacked.")
            continue
        given = Path(from_dir) / archive.name if from_dir is not None else None
        path = folder / archive.name
        if given is not None and given.is_file():
            path = given
            _check_given(given, archive, checksum)
            echo(f"{archive.name}: taken from {given.parent}.")
        elif not path.is_file() or defect(path, archive, checksum):
            downloader.download(archive, path)
        digest = sha256(path)
        unpack(path, folder, progress)
        done[archive.name] = digest
        write_text(folder / MARKER, json.dumps({"sha256": done}, indent=1) + "\n")
        if path != given and not keep_archives:
            path.unlink()
    return {archive.name: done[archive.name] for archive in archives}


def _check_given(path: Path, archive: Archive, checksum: bool) -> None:
    if reason := defect(path, archive, checksum):
        raise DownloadError(
            f"{path}: {reason}.",
            "Fetch that file again, or, if it was packed again on purpose, add --no-checksum.",
        )


def _read_marker(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / MARKER).read_text("utf-8"))
        return {str(name): str(digest) for name, digest in content["sha256"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def unpack(path: Path, folder: Path, progress: ProgressMaker = no_progress) -> int:
    """Unpack a zip file; every member's CRC is checked, and existing files with the same size and CRC are kept.

    Returns:
        The number of files.

    Raises:
        DownloadError: a member is damaged or a link, or its name leads out of the folder.
        MirillaError: the disk is full.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(m, _target(m, path, folder)) for m in archive.infolist() if not m.is_dir()]
            needed = sum(m.file_size for m, target in members if not target.exists())
            if needed > shutil.disk_usage(folder).free:
                raise DownloadError(
                    f"{folder}: unpacking {path.name} needs {needed / 1e9:.2f} GB, but only "
                    f"{shutil.disk_usage(folder).free / 1e9:.2f} GB are free.",
                    "Free some space.",
                )
            with progress(f"Unpacking {path.name}", len(members), "files") as bar:
                for member, target in members:
                    if not _is_unpacked(target, member):
                        with archive.open(member) as source, writing(target) as file:
                            shutil.copyfileobj(source, file, CHUNK_BYTES)
                    bar.advance(1)
            return len(members)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(f"{path}: the zip file is damaged: {error}.", "Remove it and fetch it again.") from error


def _target(member: zipfile.ZipInfo, path: Path, folder: Path) -> Path:
    name = PurePosixPath(member.filename.replace("\\", "/"))
    mode = member.external_attr >> 16
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or stat.S_ISLNK(mode):
        raise DownloadError(
            f"{path}: it holds '{member.filename}', which would be written outside the folder or is a link.",
            "Do not use this file: it is not the published one.",
        )
    target = folder.joinpath(*name.parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(
            f"{path}: '{member.filename}' would be written outside {folder}, through a link there.",
            "Unpack into an empty folder.",
        )
    return target


def _is_unpacked(target: Path, member: zipfile.ZipInfo) -> bool:
    if not target.is_file() or target.stat().st_size != member.file_size:
        return False
    crc = 0
    with open(target, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc = zlib.crc32(chunk, crc)
    return crc == member.CRC
