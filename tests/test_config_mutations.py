"""Mutated label maps and pipeline.configs: read, or refused with a message."""

from __future__ import annotations

import random
import re
from pathlib import Path

import mutations
from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.labels import load_label_map

LABEL_MAP = b"""item {
  id: 1
  name: 'face'
  display_name: 'Face'
}
item {
  id: 2
  name: "mask"  # worn
}
"""
NUMBERS = ("0", "-1", "1", "2", "7", "100", "2147483647", "0.0", "0.5", "1e-30", "1e30", "3e38", "nan", "inf", "-inf")


@mutations.counts(200, 10000)
def test_label_maps(count, tmp_path):
    path = tmp_path / "label_map.pbtxt"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        load_label_map(path)

    mutations.survive("label map", LABEL_MAP, mutations.of_text, read, count)


def _of_numbers(content: bytes, drawn: random.Random) -> bytes:
    text = content.decode()
    for _ in range(drawn.choice((1, 1, 2))):
        match = drawn.choice(list(re.finditer(r"(?<=: )[-+]?\d[\d.e-]*", text)))
        text = text[: match.start()] + drawn.choice(NUMBERS) + text[match.end() :]
    return text.encode()


@mutations.counts(300, 10000)
def test_pipeline_configs(count, tmp_path):
    """Also the checks, and the network that a config describes."""
    path = tmp_path / "pipeline.config"
    config.save(path, config.sample(2, Path("train.tfrecord"), Path("eval.tfrecord"), Path("label_map.pbtxt")))

    def read(content: bytes) -> None:
        path.write_bytes(content)
        pipeline = config.load(path)
        config.require(pipeline, path=path)
        model_spec(pipeline)

    def mutate(content: bytes, drawn: random.Random) -> bytes:
        return drawn.choice((mutations.of_text, _of_numbers))(content, drawn)

    result = mutations.survive("pipeline.config", path.read_bytes(), mutate, read, count)
    assert min(result["read"], result["refused"]) > count * 0.1
