"""The report of a run: one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np

from mirilla.files import explaining
from mirilla.report.charts import Series, line_chart, smoothed
from mirilla.report.tables import value_text
from mirilla.report.training_log import LogEntry, evaluations, series

LOSSES = (
    ("loss", "total"),
    ("localization_loss", "localisation"),
    ("classification_loss", "classification"),
    ("regularization_loss", "regularisation"),
)
_MAX_EVALUATION_LINES = 5


class CurveJson(TypedDict):
    """A precision-recall curve."""

    name: str
    recall: list[float]
    precision: list[float]
    ap: float


class ResultJson(TypedDict):
    """The result of one metric, as metrics.json has it; an undefined figure is None."""

    metric: str
    figures: dict[str, float | None]
    protocol: dict[str, str]
    curves: NotRequired[list[CurveJson]]


@dataclass(frozen=True)
class Page:
    """The content of the page.

    Attributes:
        title: its heading. lead: a sentence or two below it.
        about: (name, value) rows on network, training and machine.
        data: (name, value) rows on the data sets. findings: (severity, kind, count, first finding).
        results: one per metric.
        headline: up to three (name, value), shown in large type.
        log: entries of the trainer's log.
        contact_sheet: a picture file, or None.
        files: (name, size, content). commands: (purpose, command).
        notes: sentences on choices that were made.
    """

    title: str
    lead: str = ""
    about: Sequence[tuple[str, str]] = ()
    data: Sequence[tuple[str, str]] = ()
    findings: Sequence[Sequence[object]] = ()
    results: Sequence[ResultJson] = ()
    headline: Sequence[tuple[str, str]] = ()
    log: Sequence[LogEntry] = ()
    contact_sheet: Path | None = None
    files: Sequence[tuple[str, str, str]] = ()
    commands: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def render(page: Page) -> str:
    """The page as HTML text; a section without content is left out."""
    sections = (
        f"<h1>{html.escape(page.title)}</h1>",
        _paragraph(page.lead, "lead"),
        _tiles(page.headline),
        _section("Detections on held-out pictures", _picture(page.contact_sheet)),
        _section("Figures", *map(_result, page.results), _precision_recall_charts(page.results)),
        _section("Training", _training_charts(page.log)),
        _section("Model", _pairs(page.about)),
        _section(
            "Data",
            _pairs(page.data),
            _table(("severity", "kind", "count", "first"), page.findings, "Findings in the data"),
            _bullets(page.notes),
        ),
        _section("Files", _table(("file", "size", "content"), page.files)),
        _section("Next steps", *(_command(purpose, command) for purpose, command in page.commands)),
    )
    body = "\n".join(filter(None, sections))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(page.title)}</title><style>{_STYLE}</style></head>\n<body><main>\n{body}\n"
        "</main></body></html>\n"
    )


def _section(heading: str, *parts: str) -> str:
    content = "\n".join(filter(None, parts))
    return f"<h2>{html.escape(heading)}</h2>\n{content}" if content else ""


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>' if text else ""


def _tiles(rows: Sequence[tuple[str, str]]) -> str:
    tiles = "".join(
        f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>' for name, value in rows
    )
    return f'<div class="tiles">{tiles}</div>' if tiles else ""


def _bullets(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>" if lines else ""


def _command(purpose: str, command: str) -> str:
    return f"<p>{html.escape(purpose)}</p><pre>{html.escape(command)}</pre>"


def _result(result: ResultJson) -> str:
    rows = [(name, value_text(value)) for name, value in result["figures"].items()]
    protocol = "; ".join(f"{key}: {value}" for key, value in result["protocol"].items())
    return _table(("figure", "value"), rows, result["metric"]) + _paragraph(f"Protocol: {protocol}.", "protocol")


def _precision_recall_charts(results: Sequence[ResultJson]) -> str:
    charts = []
    for result in results:
        lines = [
            Series(
                f"{curve['name']} (AP {value_text(curve['ap'])})",
                np.array(curve["recall"], float),
                np.array(curve["precision"], float),
            )
            for curve in result.get("curves", ())
            if curve["recall"]
        ]
        title = f"Precision and recall: {result['metric']}"
        charts.append(line_chart(title, lines, "recall", "precision", x_range=(0, 1), y_range=(0, 1)))
    return _charts(charts)


def _training_charts(log: Sequence[LogEntry]) -> str:
    if len(series(log, "loss")[0]) < 2:
        return ""
    losses = [line for key, name in LOSSES for line in smoothed(name, *series(log, key))]
    charts = [line_chart("Loss", losses, "step", "loss")]
    for key, title, unit in (("learning_rate", "Learning rate", "rate"), ("images_per_s", "Speed", "pictures/s")):
        charts.append(line_chart(title, [Series(title, *series(log, key))], "step", unit))
    lines = [Series(name, *points) for name, points in evaluations(log).items() if len(points[0]) > 1]
    charts.append(line_chart("Evaluations during training", lines[:_MAX_EVALUATION_LINES], "step", "value"))
    return _charts(charts)


def _charts(charts: Sequence[str]) -> str:
    return f'<div class="charts">{"".join(charts)}</div>' if any(charts) else ""


def _picture(path: Path | None) -> str:
    if path is None:
        return ""
    with explaining(path):
        data = base64.b64encode(path.read_bytes()).decode()
    kind = "png" if path.suffix == ".png" else "jpeg"
    source = f"data:image/{kind};base64,{data}"
    return f'<img class="sheet" alt="Detections on held-out pictures" src="{source}">'


def _pairs(rows: Sequence[tuple[str, str]]) -> str:
    pairs = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in rows)
    return f"<dl>{pairs}</dl>" if pairs else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]], heading: str = "") -> str:
    if not rows:
        return ""
    title = f"<h3>{html.escape(heading)}</h3>" if heading else ""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'{title}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


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
