"""The arena over time as a picture: ops from left to right, addresses from bottom to top, PNG or SVG."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from mirilla.bonnet.describe import short_names
from mirilla.bonnet.format import ARENA_BYTES, Model
from mirilla.bonnet.memory_plan import Lifetime, lifetimes
from mirilla.errors import UsageError
from mirilla.files import write_bytes

WIDTH, HEIGHT = 1500, 820
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 20, 56, 66
_COLOURS = {"input": "#8c8c8c", "tensor": "#5b8db8", "output": "#4f9d69", "scratch": "#d9a441"}
_INK, _PALE, _PAPER, _PEAK = "#202020", "#d8d8d8", "#ffffff", "#b03030"


@dataclass(frozen=True)
class Box:
    """A filled rectangle with a thin edge; `title` is what an SVG shows under the pointer."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str = ""
    edge: str = _PAPER


@dataclass(frozen=True)
class Text:
    """A line of text; x is its left end, middle or right end as `anchor` says, y its middle.

    A vertical one reads from bottom to top around its middle.
    """

    x: float
    y: float
    text: str
    size: int = 13
    anchor: str = "start"
    colour: str = _INK
    vertical: bool = False


Shape = Box | Text


def draw(model: Model, size: tuple[int, int] | None = None, title: str = "") -> list[Shape]:
    """The picture's shapes.

    Raises:
        RuleError: shapes of the model that cannot be told.
    """
    blocks = lifetimes(model, size)
    arena = (model.arena.bytes if model.arena else None) or ARENA_BYTES
    count = max(len(model.ops), 1)
    step = (WIDTH - _LEFT - _RIGHT) / count
    scale = (HEIGHT - _TOP - _BOTTOM) / arena
    base = HEIGHT - _BOTTOM
    shapes: list[Shape] = []
    for kib in range(0, arena // 1024 + 1, 128):
        y = base - kib * 1024 * scale
        shapes += [
            Box(_LEFT, y, WIDTH - _LEFT - _RIGHT, 1, _PALE, edge=_PALE),
            Text(_LEFT - 8, y, f"{kib} KiB", 12, "end"),
        ]
    shapes.append(Box(_LEFT, base - arena * scale, WIDTH - _LEFT - _RIGHT, 2, _PEAK, edge=_PEAK))
    shapes += _peak(model, step, base)
    names = short_names([one.block.name for one in blocks])
    for one in blocks:
        shapes += _block(one, names[one.block.name], step, base, scale)
    every = 1 if count <= 40 else 2 if count <= 80 else 5 if count <= 200 else 50
    for index in range(0, count, every):
        shapes.append(Text(_LEFT + (index + 0.5) * step, base + 14, str(index), 11, "middle"))
    shapes.append(Text((_LEFT + WIDTH - _RIGHT) / 2, base + 32, "op", 12, "middle"))
    shapes.append(Text(_LEFT, 18, title or "Arena over time", 16))
    return shapes + _legend(model, arena)


def _block(one: Lifetime, name: str, step: float, base: float, scale: float) -> list[Shape]:
    block = one.block
    x, width = _LEFT + one.first * step, (one.last - one.first + 1) * step
    height = max(block.bytes * scale, 1.5)
    y = base - block.address * scale - height
    title = f"{block.name}: {block.address} + {block.bytes} bytes, op {one.first} to {one.last}"
    shapes: list[Shape] = [Box(x, y, width, height, _COLOURS[one.kind], title)]
    across, up = int((width - 6) / 6.4), int((height - 6) / 6.4)
    vertical = len(name) > across and up > across and width > 14
    letters = up if vertical else across
    if min(width, height) > 14 and letters >= 6:
        label = "scratch" if one.kind == "scratch" else name
        label = label if len(label) <= letters else label[: letters - 2] + ".."
        shapes.append(Text(x + width / 2, y + height / 2, label, 11, "middle", _PAPER, vertical))
    return shapes


def _peak(model: Model, step: float, base: float) -> list[Shape]:
    """A band behind the op with the most bytes in use."""
    used = [(op.plan.in_use or 0) if op.plan else 0 for op in model.ops]
    index = max(range(len(used)), key=used.__getitem__, default=0)
    return [Box(_LEFT + index * step, _TOP, step, base - _TOP, "#f6dede", f"peak: op {index}", "#f6dede")]


def _legend(model: Model, arena: int) -> list[Shape]:
    used = [(op.plan.in_use or 0) if op.plan else 0 for op in model.ops]
    peak = max(used, default=0)
    shapes: list[Shape] = []
    x = float(_LEFT)
    for kind, colour in _COLOURS.items():
        shapes += [Box(x, 34, 12, 12, colour), Text(x + 18, 40, kind, 12)]
        x += 92
    at = used.index(peak) if used else 0
    text = f"peak {peak:,} of {arena:,} bytes ({peak / arena:.0%}) at op {at}".replace(",", " ")
    return [*shapes, Text(x, 40, text, 12, colour=_PEAK)]


def to_svg(shapes: Sequence[Shape]) -> str:
    """The shapes as an SVG file's text."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{_PAPER}"/>',
    ]
    for one in shapes:
        if isinstance(one, Box):
            title = f"<title>{escape(one.title)}</title>" if one.title else ""
            parts.append(
                f'<rect x="{one.x:.2f}" y="{one.y:.2f}" width="{one.width:.2f}" '
                f'height="{one.height:.2f}" fill="{one.colour}" stroke="{one.edge}" '
                f'stroke-width="0.5">{title}</rect>'
            )
        else:
            turn = f' transform="rotate(-90 {one.x:.2f} {one.y:.2f})"' if one.vertical else ""
            parts.append(
                f'<text x="{one.x:.2f}" y="{one.y:.2f}" font-size="{one.size}" '
                f'fill="{one.colour}" text-anchor="{one.anchor}" '
                f'dominant-baseline="central"{turn}>{escape(one.text)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


def to_png(shapes: Sequence[Shape]) -> bytes:
    """The shapes as a PNG file's bytes."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    pen = ImageDraw.Draw(image)
    anchors = {"start": "lm", "middle": "mm", "end": "rm"}
    for one in shapes:
        if isinstance(one, Box):
            pen.rectangle((one.x, one.y, one.x + one.width, one.y + one.height), one.colour, one.edge)
            continue
        font = ImageFont.load_default(one.size)
        if one.vertical:
            wide, high = round(pen.textlength(one.text, font)) + 2, one.size + 4
            mask = Image.new("L", (wide, high), 0)
            ImageDraw.Draw(mask).text((wide / 2, high / 2), one.text, 255, font, anchor="mm")
            mask = mask.rotate(90, expand=True)
            image.paste(one.colour, (round(one.x - high / 2), round(one.y - wide / 2)), mask)
        else:
            pen.text((one.x, one.y), one.text, one.colour, font, anchor=anchors[one.anchor])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def save(path: str | os.PathLike[str], model: Model, size: tuple[int, int] | None = None) -> None:
    """Write the picture; the file's ending, .png or .svg, says how.

    Raises:
        UsageError: another ending.
        RuleError: see `draw`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise UsageError(
            f"{os.fspath(path)}: a picture of the arena is a .png or .svg file.", "Give a name that ends so."
        )
    shapes = draw(model, size)
    write_bytes(path, to_svg(shapes).encode() if suffix == ".svg" else to_png(shapes))
