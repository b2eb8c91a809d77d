"""Mutated copies of valid files: whatever a file holds, reading it may fail only with a MirillaError.

A test gives a valid file, a kind of mutation and a function that reads the mutated bytes:

    @mutations.counts(200, 5000)
    def test_mutated_tables(count, tmp_path):
        mutations.survive("csv", TABLE, mutations.of_text, reader, count)

Input `number` of a test depends on its name and number only, so a failure names everything that repeats it.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import re
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from mirilla.errors import MirillaError

Mutate = Callable[[bytes, random.Random], bytes]

MEMORY_BYTES = 2 << 30
_PROCESS_PAGES = Path("/proc/self/statm")
SECONDS = 20  # for one input of a few kB; the slowest takes a hundredth of that
NUMBERS = (
    *("inf", "-inf", "nan", "NaN", "1e400", "-1e400", "1e308", "-1", "0", "-0.0", "0.5", "2.5", "1e-320"),
    *("9" * 400, "2147483648", "9223372036854775808", "0x10", "1_000", "1,5", "٣", "½", "+5", ".", "-", "", "true"),
)
WORDS = (
    *("", " ", "\0", "null", "None", "NaN", "../../x.jpg", "/etc/passwd", "C:\\x\\a.jpg", "..", ".", "a" * 300),
    *("a" * 5000, "\u202ea.jpg", "\x1b[31m", "é", "e\u0301", "人脸", "\ud7ff", "%00", "%2e%2e%2fa.jpg", "~/a.jpg"),
    *("file:///a.jpg", "http://[", "-rf", "*", "?", "con", "'", '"', "<", "&", "{", "[", "\t", "\n", "\r"),
)
MARKS = ("", ",", ";", "\t", '"', "'", "<", ">", "&", ":", "/", "\\", "{", "]")
VALUES = (
    *(None, True, False, 0, -1, 1.5, 10**30, -(10**400), float("nan"), float("inf"), 1e308, "", "1", "nan", "a" * 5000),
    *([], {}, [None], [[]], {"": None}, [1, 2, 3], ["a"], {"id": {}}, "\ud800", "\0", "../x.jpg"),
)


def counts(short: int, long: int) -> pytest.MarkDecorator:
    """Run a test with argument `count`: `short` in the fast suite, and `long` with -m slow."""
    slow = pytest.param(long, id="long", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])
    return pytest.mark.parametrize("count", [pytest.param(short, id="short"), slow])


def survive(name: str, valid: bytes | Sequence[bytes], mutate: Mutate, read: Callable[[bytes], object], count: int):
    """Read `count` mutated copies of valid files, none of which may end in a traceback, a hang or 2 GB of memory.

    Returns:
        Counter with how many were "read" and how many "refused".
    """
    files = [valid] if isinstance(valid, bytes) else valid
    result: Counter[str] = Counter()
    with _limited_memory(), warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # numpy's, such as an invalid cast: a wrong value
        for number in range(count):
            drawn = random.Random(f"{name} {number}")
            content = mutate(files[number % len(files)], drawn)
            try:
                with _limited_time():
                    read(content)
                result["read"] += 1
            except MirillaError:
                result["refused"] += 1
            except Exception as error:
                error.add_note(f"mutations: {name}, input {number}: {len(content)} bytes {content[:2000]!r}")
                raise
    return result


@contextlib.contextmanager
def _limited_memory() -> Iterator[None]:
    """2 GB more than the process has now, where the system says how much that is."""
    if not _PROCESS_PAGES.exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(_PROCESS_PAGES.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    def late(*_):
        raise TimeoutError(f"reading took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def of_bytes(content: bytes, drawn: random.Random) -> bytes:
    """Change bytes: flipped bits, cuts, spans that are removed, repeated, zeroed or random."""
    data = bytearray(content)
    for _ in range(drawn.choice((1, 1, 1, 2, 5))):
        start = drawn.randrange(len(data) + 1)
        end = min(len(data), start + drawn.choice((1, 1, 2, 4, 8, 40)))
        kind = drawn.randrange(6)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << drawn.randrange(8)
        elif kind == 1:
            data[start:end] = b""
        elif kind == 2:
            data[start:start] = data[start:end] * drawn.choice((1, 2, 50))
        elif kind == 3:
            data[start:end] = bytes(end - start)
        elif kind == 4:
            data[start:end] = drawn.randbytes(end - start)
        else:
            del data[drawn.choice((start, 0, len(data) // 2, max(0, len(data) - 1))) :]
    return bytes(data)


def of_text(content: bytes, drawn: random.Random) -> bytes:
    """Change text: numbers, words, marks and lines, or how it is encoded; in some cases its bytes."""
    if drawn.random() < 0.2:
        return of_bytes(content, drawn)
    text = content.decode()
    for _ in range(drawn.choice((1, 1, 2, 3))):
        text = drawn.choice((_other_number, _other_number, _other_word, _other_mark, _other_lines))(text, drawn)
    return _encoded(text, drawn)


def of_json(content: bytes, drawn: random.Random) -> bytes:
    """Change values of JSON to other types, remove, rename or repeat them, nest them; or as `of_text`."""
    if drawn.random() < 0.2:
        return of_text(content, drawn)
    value = json.loads(content)
    for _ in range(drawn.choice((1, 1, 2, 4))):
        value = _other_value(value, drawn)
    if drawn.random() < 0.03:
        depth = drawn.choice((50, 5000))
        return b"[" * depth + json.dumps(value).encode() + b"]" * depth
    return json.dumps(value).encode()


def _other_value(value: object, drawn: random.Random) -> object:
    if isinstance(value, dict | list) and value and drawn.random() < 0.85:
        key = drawn.choice(list(value)) if isinstance(value, dict) else drawn.randrange(len(value))
        if drawn.random() < 0.7:
            value[key] = _other_value(value[key], drawn)
        elif isinstance(value, list):
            value[key : key + 1] = drawn.choice(([], [value[key]] * 2, [[value[key]]], [_a_value(drawn)]))
        else:
            item = value.pop(key)
            if drawn.random() < 0.5:
                value[drawn.choice((key.upper(), key + "s", "", "id"))] = item
        return value
    return drawn.choice((_a_value(drawn), [value], {"": value}, str(value)))


def _a_value(drawn: random.Random) -> object:
    return copy.deepcopy(drawn.choice(VALUES))  # later mutations change it in place


def _replaced(text: str, pattern: str, drawn: random.Random, values: Sequence[str]) -> str:
    found = list(re.finditer(pattern, text))
    if not found:
        return text
    match = drawn.choice(found)
    return text[: match.start()] + drawn.choice(values) + text[match.end() :]


def _other_number(text: str, drawn: random.Random) -> str:
    return _replaced(text, r"[-+]?\d+\.?\d*", drawn, NUMBERS)


def _other_word(text: str, drawn: random.Random) -> str:
    return _replaced(text, r"[^\W\d][\w./-]*", drawn, WORDS)


def _other_mark(text: str, drawn: random.Random) -> str:
    return _replaced(text, r"[^\w\s]|[ \t]", drawn, MARKS)


def _other_lines(text: str, drawn: random.Random) -> str:
    lines = text.split("\n")
    i, j = drawn.randrange(len(lines)), drawn.randrange(len(lines))
    kind = drawn.randrange(5)
    if kind == 0:
        del lines[i]
    elif kind == 1:
        lines[i:i] = [lines[j]] * drawn.choice((1, 2, 200))
    elif kind == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif kind == 3:
        lines[i] = lines[i][: drawn.randrange(len(lines[i]) + 1)]
    else:
        lines[i : i + 1] = [lines[i], ""]
    return drawn.choice(("\n", "\n", "\r\n", "\r")).join(lines)


def _encoded(text: str, drawn: random.Random) -> bytes:
    encoding = drawn.choice((*["utf-8"] * 8, "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "cp1252", "gbk", "cp037"))
    return text.encode(encoding, "replace" if encoding not in ("utf-8", "utf-8-sig") else "surrogatepass")
