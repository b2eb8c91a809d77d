"""A page that detects in a browser, from a camera or in photos, without a network.

The file has everything: the weights in 16-bit floats, kernels for WebAssembly's SIMD (kernels.c), the network
(network.js) and the page (page.html, page.css, page.js). It works from a disk. Its content security policy forbids
every request.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np

from mirilla.errors import ModelError
from mirilla.findings import ERROR, Finding
from mirilla.model.box_coder import centre_size
from mirilla.model.card import ModelCard
from mirilla.targets.ssd_head import without_background
from mirilla.targets.target import Network, Pixels, Source, Target
from mirilla.targets.web import plan as plans
from mirilla.targets.web.node import open_page
from mirilla.targets.web.plan import Plan

FILE = "model.html"
SNIPPET = """\
import pathlib, webbrowser

page = pathlib.Path("model.html").resolve()
webbrowser.open(page.as_uri())  # or open it by hand; no server is needed
print(page)
"""


def check(source: Source) -> list[Finding]:
    """What the page cannot compute."""
    found = [
        Finding(ERROR, "web", layer.name, *plans.unsupported(layer))
        for layer in source.graph
        if not plans.is_supported(layer)
    ]
    if not found:
        try:
            plan = Plan(without_background(source))
        except ModelError as error:
            return [Finding(ERROR, "web", source.card.name, error.what, error.remedy or "")]
        if np.abs(plan.halves).max() > np.finfo(np.float16).max:
            what = "A weight is larger than 65504, the largest 16-bit float."
            found.append(Finding(ERROR, "web", source.card.name, what, "Use the target 'onnx' for this model."))
    return found


def build(source: Source, pictures: Pixels) -> dict[str, bytes]:
    """The page.

    Raises:
        ModelError: a layer cannot be computed in the page.
    """
    card = source.card
    plan = Plan(without_background(source))
    scripts = {"network": _text("network.js"), "page": _text("page.js")}
    style = _text("page.css")
    parts = {
        "title": html.escape(card.name),
        "policy": _policy(scripts.values(), style),
        "style": style,
        "model": _json(_model(card, plan, source.graph.input_shape)),
        "kernels": _base64(files("mirilla.targets.web").joinpath("kernels.wasm").read_bytes()),
        "halves": _base64(plan.halves.astype("<f2").tobytes()),
        "singles": _base64(plan.singles.astype("<f4").tobytes()),
        "anchors": _base64(np.stack(centre_size(card.anchors_yxyx), -1).astype("<f4").tobytes()),
        **scripts,
    }
    return {FILE: _filled(_text("page.html"), parts).encode()}


def _model(card: ModelCard, plan: Plan, input_shape: tuple[int, int, int]) -> dict[str, object]:
    """What network.js reads: the plan, and the numbers of the card."""
    coder, post = card.spec.box_coder, card.spec.post_processing
    names = {label.id: label.shown for label in card.labels}
    return {
        "input": {
            "start": plan.input.start,
            "row": plan.input.row,
            "height": input_shape[0],
            "width": input_shape[1],
        },
        "keep_aspect_ratio": card.spec.keep_aspect_ratio,
        "classes": card.spec.num_classes,
        "labels": [names.get(i) for i in range(1, card.spec.num_classes + 1)],
        "coder": [coder.y_scale, coder.x_scale, coder.height_scale, coder.width_scale],
        "converter": post.score_converter,
        "least": post.score_threshold,
        "iou": post.iou_threshold,
        "per_class": post.max_detections_per_class,
        "most": post.max_total_detections,
        "threshold": card.threshold,
        "codes": plan.codes,
        "logits": plan.logits,
        "halves_start": plan.halves_start,
        "singles_start": plan.singles_start,
        "pages": plan.pages,
        "steps": plan.steps,
    }


def _filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with {name} replaced once; what is put in is not searched again."""
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], template)


def _policy(scripts: Iterable[str], style: str) -> str:
    """A content security policy that runs these scripts and loads nothing."""
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed} 'wasm-unsafe-eval'; style-src {_hash(style)}; "
        "img-src blob: data:; media-src blob: mediastream:; form-action 'none'; base-uri 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'"


def _json(value: object) -> str:
    """JSON that is safe inside a script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _text(name: str) -> str:
    return files("mirilla.targets.web").joinpath(name).read_text("utf-8")


def run(path: Path, card: ModelCard) -> Network:
    """The page's network in Node.js; see `open_page`."""
    return open_page(path, card)


WEB = Target("web", FILE, "one HTML file: camera and photos in a browser, offline", check, build, run, SNIPPET)
