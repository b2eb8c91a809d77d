"""Plot the arena over time as PNG or SVG: ops from left to right, addresses from bottom to top."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from mirilla.bonnet.describe import short_names
from mirilla.bonnet.format import ARENA_BYTES, Model
from mirilla.bonnet.memory_plan import LiveRange, live_ranges
from mirilla.errors import UsageError
from mirilla.files import write_bytes

WIDTH, HEIGHT = 1500, 820
_LEFT, _RIGHT, _TOP, _BOTTOM = 86, 20, 56, 66
_COLOURS = {"input": "#8c8c8c", "tensor": "#5b8db8", "output": "#4f9d69", "scratch": "#d9a441"}
_INK, _GRID, _BACKGROUND, _PEAK, _PEAK_BAND = "#202020", "#d8d8d8", "#ffffff", "#b03030", "#f6dede"
_GRID_KIB = 128


@dataclass(frozen=True)
class Box:
    """A filled rectangle with a thin edge; `title` is the tooltip in an SVG."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str = ""
    edge: str = _BACKGROUND


@dataclass(frozen=True)
class Text:
    """A line of text; x is its start, middle or end according to `anchor`, y its middle.

    Vertical text reads from bottom to top and is rotated around its middle.
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
    """The shapes of the plot.

    Raises:
        RuleError: the model's shapes cannot be inferred.
    """
    ranges = live_ranges(model, size)
    arena = (model.arena.bytes if model.arena else None) or ARENA_BYTES
    count = max(len(model.ops), 1)
    step = (WIDTH - _LEFT - _RIGHT) / count  # px per op
    scale = (HEIGHT - _TOP - _BOTTOM) / arena  # px per byte
    base = HEIGHT - _BOTTOM
    shapes: list[Shape] = []
    for kib in range(0, arena // 1024 + 1, _GRID_KIB):
        y = base - kib * 1024 * scale
        shapes += [
            Box(_LEFT, y, WIDTH - _LEFT - _RIGHT, 1, _GRID, edge=_GRID),
            Text(_LEFT - 8, y, f"{kib} KiB", 12, "end"),
        ]
    shapes.append(Box(_LEFT, base - arena * scale, WIDTH - _LEFT - _RIGHT, 2, _PEAK, edge=_PEAK))
    shapes += _peak(model, step, base)
    names = short_names([live.block.name for live in ranges])
    for live in ranges:
        shapes += _block(live, names[live.block.name], step, base, scale)
    tick = 1 if count <= 40 else 2 if count <= 80 else 5 if count <= 200 else 50
    for index in range(0, count, tick):
        shapes.append(Text(_LEFT + (index + 0.5) * step, base + 14, str(index), 11, "middle"))
    shapes.append(Text((_LEFT + WIDTH - _RIGHT) / 2, base + 32, "op", 12, "middle"))
    shapes.append(Text(_LEFT, 18, title or "Arena over time", 16))
    return shapes + _legend(model, arena)


def _block(live: LiveRange, name: str, step: float, base: float, scale: float) -> list[Shape]:
    """The box of a block, with its name if there is room for it."""
    block = live.block
    x, width = _LEFT + live.first * step, (live.last - live.first + 1) * step
    height = max(block.bytes * scale, 1.5)
    y = base - block.address * scale - height
    title = f"{block.name}: {block.address} + {block.bytes} bytes, op {live.first} to {live.last}"
    shapes: list[Shape] = [Box(x, y, width, height, _COLOURS[live.kind], title)]
    horizontal_letters, vertical_letters = int((width - 6) / 6.4), int((height - 6) / 6.4)
    vertical = len(name) > horizontal_letters and vertical_letters > horizontal_letters and width > 14
    letters = vertical_letters if vertical else horizontal_letters
    if min(width, height) > 14 and letters >= 6:
        label = "scratch" if live.kind == "scratch" else name
        label = label if len(label) <= letters else label[: letters - 2] + ".."
        shapes.append(Text(x + width / 2, y + height / 2, label, 11, "middle", _BACKGROUND, vertical))
    return shapes


def _peak(model: Model, step: float, base: float) -> list[Shape]:
    """A band behind the op with the most bytes in use."""
    used = [(op.plan.in_use or 0) if op.plan else 0 for op in model.ops]
    index = max(range(len(used)), key=used.__getitem__, default=0)
    return [Box(_LEFT + index * step, _TOP, step, base - _TOP, _PEAK_BAND, f"peak: op {index}", _PEAK_BAND)]


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
    """The shapes as the text of an SVG file."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{_BACKGROUND}"/>',
        *(_box_svg(shape) if isinstance(shape, Box) else _text_svg(shape) for shape in shapes),
        "</svg>",
        "",
    ]
    return "\n".join(lines)


def _box_svg(box: Box) -> str:
    title = f"<title>{escape(box.title)}</title>" if box.title else ""
    return (
        f'<rect x="{box.x:.2f}" y="{box.y:.2f}" width="{box.width:.2f}" height="{box.height:.2f}" '
        f'fill="{box.colour}" stroke="{box.edge}" stroke-width="0.5">{title}</rect>'
    )


def _text_svg(text: Text) -> str:
    rotation = f' transform="rotate(-90 {text.x:.2f} {text.y:.2f})"' if text.vertical else ""
    return (
        f'<text x="{text.x:.2f}" y="{text.y:.2f}" font-size="{text.size}" fill="{text.colour}" '
        f'text-anchor="{text.anchor}" dominant-baseline="central"{rotation}>{escape(text.text)}</text>'
    )


def to_png(shapes: Sequence[Shape]) -> bytes:
    """The shapes as the bytes of a PNG file."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    anchors = {"start": "lm", "middle": "mm", "end": "rm"}
    for shape in shapes:
        if isinstance(shape, Box):
            draw.rectangle((shape.x, shape.y, shape.x + shape.width, shape.y + shape.height), shape.colour, shape.edge)
            continue
        font = ImageFont.load_default(shape.size)
        if shape.vertical:
            length, height = round(draw.textlength(shape.text, font)) + 2, shape.size + 4
            mask = Image.new("L", (length, height), 0)
            ImageDraw.Draw(mask).text((length / 2, height / 2), shape.text, 255, font, anchor="mm")
            mask = mask.rotate(90, expand=True)
            image.paste(shape.colour, (round(shape.x - height / 2), round(shape.y - length / 2)), mask)
        else:
            draw.text((shape.x, shape.y), shape.text, shape.colour, font, anchor=anchors[shape.anchor])
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def save(path: str | os.PathLike[str], model: Model, size: tuple[int, int] | None = None) -> None:
    """Write the plot as PNG or SVG, depending on the file name's ending.

    Raises:
        UsageError: the name has another ending.
        RuleError: see `draw`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise UsageError(f"{os.fspath(path)}: unknown file ending.", "Choose a name that ends in .png or .svg.")
    shapes = draw(model, size)
    write_bytes(path, to_svg(shapes).encode() if suffix == ".svg" else to_png(shapes))
