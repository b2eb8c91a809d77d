"""The text of annotation files, in the encodings that labelling tools and spreadsheets write.

UTF-8 and UTF-16, with or without a byte-order mark, and for XML the encoding that its header names. All line ends
(CR LF, and the bare CR of old Macs) become LF. Text in any other encoding is refused rather than read wrongly.
"""

from __future__ import annotations

import codecs
import math
import re
from pathlib import Path

from mirilla.errors import DataError
from mirilla.files import explaining

_TRUE = ("true", "yes", "y", "t")
_LARGEST_FLAG = 1e9
SAVE_AS_UTF8 = "Save it as UTF-8."
_MARKS = (  # the longer ones first: that of UTF-16 begins that of UTF-32
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16", "utf16", "utf-32", "utf32", "ucs-2", "ucs-4")
_XML_ENCODING = re.compile(r"""\s*<\?xml[^>]{0,200}?\bencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")


class DecodeError(ValueError):
    """Bytes that are not text in the expected encoding; the message has the line and the reason, but no file name."""


def decode(content: bytes) -> str:
    """The text of a file, with LF at the ends of its lines.

    Raises:
        DecodeError: it is neither UTF-8 nor UTF-16.
    """
    encoding, content = _without_mark(content)
    return _decoded(content, encoding or "utf-8")


def decode_xml(content: bytes) -> str:
    """The text of an XML file: by its byte-order mark, by the encoding that its header names, or else UTF-8.

    Raises:
        DecodeError: the encoding is unknown, or is not the one that the file is in.
    """
    encoding, content = _without_mark(content)
    header = _XML_ENCODING.match(content[:400].decode("latin-1"))
    named = header[1] if header else "utf-8"
    if named.lower().startswith(_WIDE):  # its ASCII header was read byte by byte, so the file is not (.NET writes this)
        named = "utf-8"
    return _decoded(content, encoding or named)


def read(path: Path) -> str:
    """The text of a file, as `decode` returns it.

    Raises:
        DataError: it is neither UTF-8 nor UTF-16.
        MirillaError: the file cannot be opened.
    """
    with explaining(path):
        content = path.read_bytes()
    try:
        return decode(content)
    except DecodeError as error:
        raise DataError(f"{path}: {error}.", SAVE_AS_UTF8) from error


def head(path: Path, size: int = 4096) -> str:
    """The beginning of a file as text, to recognise its format; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            content = file.read(size)
    except (OSError, ValueError):
        return ""
    encoding, content = _without_mark(content)
    return _lines_with_lf(content.decode(encoding or "utf-8", "replace"))


def number(word: str, name: str) -> float:
    """A finite number in an annotation; `name` says which, for messages.

    Raises:
        ValueError: it is not a number, or not finite.
    """
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{name} is {word[:40]!r}, not a number" if word.strip() else f"{name} is empty") from None
    if not math.isfinite(value):
        raise ValueError(f"{name} is {word[:40]!r}, not a finite number")
    return value


def flag(word: str) -> float:
    """The number of a flag. Tools also write words: true and yes are 1, others (Unspecified, False) are 0."""
    try:
        value = float(word)
    except ValueError:
        return float(word.strip().lower() in _TRUE)
    return min(max(value, -_LARGEST_FLAG), _LARGEST_FLAG) if math.isfinite(value) else 0.0


def _without_mark(content: bytes) -> tuple[str | None, bytes]:
    """The encoding that the first bytes show (None if they show none), and the bytes after a byte-order mark."""
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return encoding, content[len(mark) :]
    first = content[:256]  # ASCII letters in UTF-16: each second byte is zero
    for encoding, zeros, letters in (("utf-16-le", first[1::2], first[::2]), ("utf-16-be", first[::2], first[1::2])):
        if len(first) >= 4 and not any(zeros) and all(letters[: len(zeros)]):
            return encoding, content
    return None, content


def _decoded(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except LookupError:
        raise DecodeError(f"the encoding '{encoding}' in its header is unknown") from None
    except UnicodeDecodeError as error:
        line = _lines_with_lf(content[: error.start].decode(encoding, "replace")).count("\n") + 1
        byte = content[error.start] if error.start < len(content) else 0
        raise DecodeError(f"it is not {encoding.upper()}: byte 0x{byte:02x} in line {line} ({error.reason})") from None
    except ValueError as error:  # codecs with other rules, such as 'idna'
        raise DecodeError(f"it is not in the encoding '{encoding}' of its header ({error})") from None
    return _lines_with_lf(text)


def _lines_with_lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
