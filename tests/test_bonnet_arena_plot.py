"""The plot of the arena over time."""

from __future__ import annotations

import io
from xml.etree import ElementTree

from PIL import Image

from helpers_graph import small_network
from mirilla.bonnet import arena_plot
from mirilla.bonnet import compile as bonnet
from mirilla.bonnet import format as bf


def test_plots_show_every_block(tmp_path):
    model, _ = bonnet.build(small_network().graph_def)
    arena_plot.save(tmp_path / "arena.svg", model)
    root = ElementTree.fromstring((tmp_path / "arena.svg").read_text())
    titles = [title.text or "" for title in root.iter("{http://www.w3.org/2000/svg}title")]
    for op in model.ops:
        assert any(title.startswith(f"{op.output}: {op.plan.address} + ") for title in titles)
    arena_plot.save(tmp_path / "arena.png", model)
    image = Image.open(tmp_path / "arena.png")
    assert image.size == (arena_plot.WIDTH, arena_plot.HEIGHT)
    assert len(image.convert("RGB").getcolors(1 << 20)) > 8
    assert arena_plot.to_png(arena_plot.draw(model)) == (tmp_path / "arena.png").read_bytes()


def test_blocks_are_drawn_inside_the_plot(shared):
    model = bf.read(shared / "data/bonnet/rps_160.binaryproto")
    for shape in arena_plot.draw(model):
        assert 0 <= shape.x <= arena_plot.WIDTH
        assert 0 <= shape.y <= arena_plot.HEIGHT
        if isinstance(shape, arena_plot.Box):
            assert shape.x + shape.width <= arena_plot.WIDTH
            assert shape.y + shape.height <= arena_plot.HEIGHT
    assert io.StringIO(arena_plot.to_svg(arena_plot.draw(model))).readline().startswith("<svg")
