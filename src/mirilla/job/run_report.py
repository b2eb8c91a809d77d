"""How the main job ends: the report, and what it says of the files made and of what to do next."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirilla import config, console
from mirilla.files import write_text
from mirilla.job import recipe
from mirilla.job.inputs import Inputs
from mirilla.job.options import JobOptions
from mirilla.job.workspace import Done, Workspace, fingerprint
from mirilla.report import tables
from mirilla.report.page import Page, read_log, render
from mirilla.version import __version__


def report(
    workspace: Workspace,
    options: JobOptions,
    found: Inputs,
    pipeline: config.Pipeline,
    checked: Mapping[str, Any],
    steps: int,
    measured: Mapping[str, Any],
) -> None:
    """The stage that writes report.html."""
    path = workspace.out / "report.html"
    name = options.name or workspace.out.resolve().name
    log_path = workspace.out / "train" / "log.jsonl"
    log = read_log(log_path) if log_path.is_file() else []
    extractor = pipeline.model.ssd.feature_extractor
    first = measured["results"][0]
    headline = [(f"{n}, {found.evaluation.name}", tables.value_text(v)) for n, v in list(first["figures"].items())[:3]]
    page = Page(
        title=f"{name}: finds {', '.join(found.labels.names[:6])}",
        lead=f"Trained for {steps} steps on {len(found.train)} pictures, measured on {len(found.evaluation)} held out.",
        about=[
            (
                "network",
                f"{options.model}: embedded SSD MobileNet v1, width {extractor.depth_multiplier:g}, input "
                f"{options.size_px}x{options.size_px}, {options.resize}",
            ),
            (
                "training",
                f"{steps} steps of {options.batch_size} pictures from seed {options.seed}; "
                f"{recipe.for_steps(steps, options.batch_size, options.recipe).describe()}",
            ),
            (
                "time",
                f"{tables.duration_text(workspace.seconds('train'))} in the last training session on "
                f"{platform.machine()}",
            ),
            ("show scores from", f"{measured['threshold']:g} (the best F1 on the held-out pictures)"),
            ("made by", f"mirilla {__version__}"),
        ],
        data=[
            ("data sets", "; ".join(found.sources)),
            ("training", f"{len(found.train)} pictures, {found.train.boxes} boxes"),
            ("evaluation", f"{len(found.evaluation)} pictures, {found.evaluation.boxes} boxes"),
            ("classes", ", ".join(found.labels.names)),
        ],
        findings=[tuple(row) for row in checked["summary"]],
        results=measured["results"],
        headline=headline,
        log=log,
        contact_sheet=workspace.out / "contact_sheet.jpg",
        files=tables.file_rows(all_files(workspace)),
        commands=next_commands(workspace.out),
        notes=found.notes,
    )
    text = render(page)

    def stage() -> Done:
        write_text(path, text)
        return Done((path,))

    workspace.stage("report", fingerprint(text), stage)


def next_commands(out: Path) -> list[tuple[str, str]]:
    """(what for, command) for someone whose job has ended."""
    model, config_path = shlex.quote(str(out / "export")), shlex.quote(str(out / "pipeline.config"))
    train = shlex.quote(str(out / "train"))
    return [
        ("Find objects in your own photos:", f"mirilla detect {model} PHOTO... --out detected"),
        ("Measure it on another labelled data set:", f"mirilla eval {model} DATASET"),
        (
            "Train on with the same settings, step by step:",
            f"mirilla train --pipeline-config {config_path} --model-dir {train} --num-train-steps N",
        ),
    ]


def all_files(workspace: Workspace) -> list[tuple[str, int]]:
    """(name, size) of every file that a stage has made, what people look at first before the rest."""
    order = ("detect", "evaluate", "export", "configure", "train", "convert", "check")
    stages = [*order, *(s for s in workspace.stages if s not in (*order, "report"))]
    return [
        (name, size)
        for stage in stages
        if stage in workspace.stages
        for name, size in workspace.stages[stage]["outputs"].items()
    ]


def finish(out: Path, files: Sequence[tuple[str, int]]) -> None:
    """Say what was made and what to do next."""
    console.echo()
    rows = [(str(out / name), size, what) for name, size, what in tables.file_rows(files)]
    console.print_table("Files made", ("file", "size", "what it is"), rows)
    console.echo()
    console.echo("What to do next")
    for what, command in (
        ("Look at the report:", str(out / "report.html")),
        *next_commands(out),
    ):
        console.echo(f"  {what}\n      {command}")
