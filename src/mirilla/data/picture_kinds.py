"""What a file is that Pillow does not read as a picture, by its first bytes."""

from __future__ import annotations

import os
from pathlib import Path

from mirilla.errors import DataError

# Cameras' raw files. Most are TIFF files of which Pillow would read the small preview.
RAW_EXTENSIONS = frozenset(
    {".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw"}
)
OTHER_EXTENSIONS = RAW_EXTENSIONS | {".jp2", ".jxl", ".psd", ".tga", ".xcf"}  # pictures that are not read
HEIC = "a HEIC photo"
_AVIF = "an AVIF picture"
HEAD_BYTES = 64  # of a file, for `kind_of`
# Brands in the first box of the file: ISO/IEC 14496-12, section 4.3; 23008-12, annex B; AV1's in AVIF 1.1, section 6.
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_KINDS = (  # first bytes, what it is
    (b"version https://git-lfs", "a Git LFS pointer, not the picture itself (run 'git lfs pull')"),
    (b"\x00\x05\x16\x07", "macOS metadata (AppleDouble)"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "a Photoshop file"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
)


def refuse_raw(picture: object) -> None:
    """Refuse a camera's raw file, by its suffix.

    Raises:
        DataError: it is one.
    """
    if isinstance(picture, str | os.PathLike) and Path(picture).suffix.lower() in RAW_EXTENSIONS:
        raise DataError(f"{picture}: a camera's raw file, which is not read.", "Export it as JPEG.")


def unreadable(head: bytes, size: int, name: str) -> DataError:
    """The error about a file, of `size` bytes, that is not a picture that can be read."""
    kind = kind_of(head)
    what = f"it is {kind}" if kind else "its first bytes match no known format"
    remedy = "Replace the file, or remove it from the data set."
    if kind == _AVIF:
        remedy = "Upgrade Pillow (pip install 'mirilla[heif]'), or save it as JPEG."
    return DataError(f"{name}: not a picture that can be read ({size} bytes): {what}.", remedy)


def kind_of(head: bytes) -> str | None:
    """What a file is, by its first HEAD_BYTES bytes; None if that is not known."""
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, length - 3, 4))}
        if brands & _AVIF_BRANDS:
            return _AVIF
        return HEIC if brands & _HEIC_BRANDS else "a video"
    for start, kind in _KINDS:
        if head.startswith(start):
            return kind
    return "a text, a web page perhaps" if head.lstrip().startswith((b"<", b"{")) else None
