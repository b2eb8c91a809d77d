"""The report of a run: one HTML page that carries everything in itself and can be mailed or kept."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mirilla.errors import DataError
from mirilla.files import explaining
from mirilla.report.charts import Series, line_chart, smoothed
from mirilla.report.tables import value_text

LOSSES = (
    ("loss", "total"),
    ("localization_loss", "localisation"),
    ("classification_loss", "classification"),
    ("regularization_loss", "regularisation"),
)


@dataclass(frozen=True)
class Page:
    """What the page tells.

    title: its heading. lead: a sentence or two below it.
    about: (what, value) rows: network, training, machine.
    data: (what, value) rows on the data sets. findings: (severity, kind, count, the first of them).
    results: what `Result.as_json` gives, each with 'figures', 'protocol' and, if there are, 'curves'
        (name, recall, precision, ap).
    headline: up to three (name, value) to be set large.
    log: the lines of the trainer's log.
    contact_sheet: a picture file, or None.
    files: (name, size, what it is). commands: (what for, command).
    notes: sentences on choices that were made.
    """

    title: str
    lead: str = ""
    about: Sequence[tuple[str, str]] = ()
    data: Sequence[tuple[str, str]] = ()
    findings: Sequence[tuple[str, str, int, str]] = ()
    results: Sequence[Mapping[str, Any]] = ()
    headline: Sequence[tuple[str, str]] = ()
    log: Sequence[Mapping[str, Any]] = ()
    contact_sheet: Path | None = None
    files: Sequence[tuple[str, str, str]] = ()
    commands: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The trainer's log.jsonl; where training was taken up again, later lines replace earlier ones of a step.

    Raises:
        DataError: a line (other than a last one cut short) is not JSON; names it.
    """
    with explaining(path):
        lines = path.read_text("utf-8", "replace").splitlines()
    kept: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise DataError(
                f"{path}, line {number}: this is no line of a training log.",
                "Delete the line; the model is not touched by it.",
            ) from error
        while (kept and kept[-1]["step"] > step) or (
            kept and kept[-1]["step"] == step and "loss" in entry and "loss" in kept[-1]
        ):
            kept.pop()
        kept.append(entry)
    return kept


def render(page: Page) -> str:
    """The page as HTML text."""
    parts = [f"<h1>{html.escape(page.title)}</h1>"]
    if page.lead:
        parts.append(f'<p class="lead">{html.escape(page.lead)}</p>')
    if page.headline:
        tiles = "".join(
            f'<div class="tile"><b>{html.escape(v)}</b><span>{html.escape(n)}</span></div>' for n, v in page.headline
        )
        parts.append(f'<div class="tiles">{tiles}</div>')
    if page.contact_sheet is not None:
        parts += ["<h2>What it finds on held-out pictures</h2>", _picture(page.contact_sheet)]
    if page.results:
        parts += ["<h2>Figures</h2>", *(_result(r) for r in page.results)]
        parts.append(_curves(page.results))
    parts += _training(page.log)
    if page.about:
        parts += ["<h2>What was trained</h2>", _pairs(page.about)]
    if page.data:
        parts += ["<h2>Data</h2>", _pairs(page.data)]
    if page.findings:
        parts += ["<h3>Found in the data</h3>", _table(("", "kind", "count", "the first"), page.findings)]
    if page.notes:
        parts.append("<ul>" + "".join(f"<li>{html.escape(n)}</li>" for n in page.notes) + "</ul>")
    if page.files:
        parts += ["<h2>Files made</h2>", _table(("file", "size", "what it is"), page.files)]
    if page.commands:
        parts.append("<h2>What to do next</h2>")
        parts += [f"<p>{html.escape(what)}</p><pre>{html.escape(command)}</pre>" for what, command in page.commands]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(page.title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n"
        "</main></body></html>\n"
    )


def _result(result: Mapping[str, Any]) -> str:
    rows = [(name, value_text(value)) for name, value in result["figures"].items()]
    protocol = "; ".join(f"{key}: {value}" for key, value in result["protocol"].items())
    return (
        f"<h3>{html.escape(str(result['metric']))}</h3>{_table(('figure', 'value'), rows)}"
        f'<p class="protocol">Protocol: {html.escape(protocol)}.</p>'
    )


def _curves(results: Sequence[Mapping[str, Any]]) -> str:
    charts = []
    for result in results:
        lines = [
            Series(
                f"{c['name']} (AP {value_text(c['ap'])})",
                np.array(c["recall"], float),
                np.array(c["precision"], float),
            )
            for c in result.get("curves", ())
            if c["recall"]
        ]
        charts.append(
            line_chart(
                f"Precision and recall: {result['metric']}",
                lines,
                "recall",
                "precision",
                x_range=(0, 1),
                y_range=(0, 1),
            )
        )
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _training(log: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [entry for entry in log if "loss" in entry]
    if len(lines) < 2:
        return []
    steps = [float(entry["step"]) for entry in lines]
    charts = []
    losses = [
        s
        for key, name in LOSSES
        if key in lines[0]
        for s in smoothed(name, steps, [float(entry.get(key, "nan")) for entry in lines])
    ]
    charts.append(line_chart("Loss", losses, "step", "loss"))
    for key, title, label in (
        ("learning_rate", "Learning rate", "rate"),
        ("images_per_s", "Speed", "pictures/s"),
    ):
        if key in lines[0]:
            values = np.array([float(entry.get(key, "nan")) for entry in lines])
            charts.append(line_chart(title, [Series(title, np.array(steps), values)], "step", label))
    measured = [entry for entry in log if isinstance(entry.get("eval"), dict)]
    names = list(dict.fromkeys(n for e in measured for n, v in e["eval"].items() if isinstance(v, int | float)))
    if len(measured) > 1:
        at = np.array([float(e["step"]) for e in measured])
        charts.append(
            line_chart(
                "Measured while training",
                [Series(n, at, np.array([float(e["eval"].get(n, "nan")) for e in measured])) for n in names[:5]],
                "step",
                "value",
            )
        )
    return ["<h2>Training</h2>", f'<div class="charts">{"".join(charts)}</div>']


def _picture(path: Path) -> str:
    with explaining(path):
        data = base64.b64encode(path.read_bytes()).decode()
    kind = "png" if path.suffix == ".png" else "jpeg"
    source = f"data:image/{kind};base64,{data}"
    return f'<img class="sheet" alt="Detections on held-out pictures" src="{source}">'


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in rows) + "</dl>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(c)}</th>" for c in columns)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


_STYLE = """
:root { color-scheme: light dark; --ground:#fff; --ink:#1c2126; --soft:#5c6670; --line:#dfe3e7;
 --panel:#f5f7f8;
 --c0:#0b6fb8; --c1:#c25a00; --c2:#00805c; --c3:#a8437c; --c4:#7a6a00; }
@media (prefers-color-scheme: dark) { :root { --ground:#16191d; --ink:#e6e9ec; --soft:#9aa4ae;
 --line:#30363d;
 --panel:#1e2328; --c0:#5bb4f0; --c1:#f0974a; --c2:#3ecf9f; --c3:#e38fbf; --c4:#d9c84a; } }
* { box-sizing:border-box; }
body { margin:0; background:var(--ground); color:var(--ink); font:16px/1.5 system-ui,sans-serif; }
main { max-width:1100px; margin:0 auto; padding:1.2rem 1rem 4rem; }
h1 { font-size:1.7rem; line-height:1.2; margin:.4rem 0; overflow-wrap:anywhere; }
h2 { font-size:1.25rem; margin:2.2rem 0 .7rem; padding-top:.9rem; border-top:1px solid var(--line); }
h3 { font-size:1.02rem; margin:1.3rem 0 .4rem; }
.lead, .protocol { color:var(--soft); } .protocol { font-size:.86rem; }
.tiles { display:flex; flex-wrap:wrap; gap:.7rem; margin:1rem 0; }
.tile { background:var(--panel); border:1px solid var(--line); border-radius:8px; padding:.6rem 1rem;
 min-width:9rem; }
.tile b { display:block; font-size:1.6rem; line-height:1.3; } .tile span { color:var(--soft);
 font-size:.86rem; }
.sheet { display:block; width:100%; height:auto; border-radius:8px; }
.scroll { overflow-x:auto; } table { border-collapse:collapse; font-size:.92rem; min-width:20rem; }
th { text-align:left; color:var(--soft); font-weight:600; } td, th { padding:.28rem .9rem .28rem 0;
 vertical-align:top;
 border-bottom:1px solid var(--line); font-variant-numeric:tabular-nums; overflow-wrap:anywhere; }
dl { display:grid; grid-template-columns:minmax(7rem,max-content) 1fr; gap:.25rem 1.1rem; margin:0; }
dt { color:var(--soft); } dd { margin:0; overflow-wrap:anywhere; }
pre { background:var(--panel); border:1px solid var(--line); border-radius:8px; padding:.6rem .8rem;
 overflow-x:auto;
 font-size:.88rem; margin:.2rem 0 1rem; } p { margin:.5rem 0; } li { margin:.2rem 0;
 overflow-wrap:anywhere; }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr)); gap:1.4rem;
 margin:1rem 0; }
figure { margin:0; } figcaption { font-weight:600; font-size:.95rem; }
svg { width:100%; height:auto; display:block; } svg text { fill:var(--soft); font-size:12px; }
svg .grid { stroke:var(--line); stroke-width:1; } polyline { fill:none; stroke-width:2;
 stroke-linejoin:round; }
polyline.faint { stroke-width:1; opacity:.28; }
.legend { display:flex; flex-wrap:wrap; gap:.1rem 1rem; font-size:.84rem; color:var(--soft); }
.legend i { display:inline-block; width:1.1em; height:3px; vertical-align:middle; margin-right:.4em; }
polyline.s0 { stroke:var(--c0); } polyline.s1 { stroke:var(--c1); } polyline.s2 { stroke:var(--c2); }
polyline.s3 { stroke:var(--c3); } polyline.s4 { stroke:var(--c4); }
i.s0 { background:var(--c0); } i.s1 { background:var(--c1); } i.s2 { background:var(--c2); }
i.s3 { background:var(--c3); } i.s4 { background:var(--c4); }
"""
