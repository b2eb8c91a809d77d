"""The last stage of the main job: report.html, and the list of files and next steps that the command line prints."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from dataclasses import replace

from mirilla import config, console
from mirilla.files import write_text
from mirilla.job.configure import describe_recipe
from mirilla.job.evaluate import Measured
from mirilla.job.export import model_name
from mirilla.job.inputs import Inputs
from mirilla.job.option_fields import words_of
from mirilla.job.options import JobOptions
from mirilla.job.prepare import Checked
from mirilla.job.workspace import Done, NoFacts, Workspace, fingerprint
from mirilla.report import tables
from mirilla.report.page import Page, render
from mirilla.report.training_log import LOG_FILE, read_log
from mirilla.version import __version__
from mirilla.weights.export import FROZEN_GRAPH

_REPORT = "report.html"
# Files of these stages are listed first, in this order.
_STAGES_FIRST = ("report", "detect", "evaluate", "export", "configure", "train", "convert", "check")
_HEADLINE_FIGURES = 3


def write_report(
    workspace: Workspace,
    options: JobOptions,
    inputs: Inputs,
    pipeline: config.Pipeline,
    checked: Checked,
    measured: Measured,
) -> None:
    """The stage that writes report.html."""
    path = workspace.out / _REPORT
    log_path = workspace.out / "train" / LOG_FILE
    steps = pipeline.train_config.num_steps
    figures = list(measured.results[0]["figures"].items())[:_HEADLINE_FIGURES]
    text = render(
        Page(
            title=f"{model_name(workspace, options)}: detects {', '.join(inputs.labels.names[:6])}",
            lead=f"Trained for {steps} steps on {len(inputs.train)} pictures; measured on {len(inputs.evaluation)} "
            "held-out pictures.",
            about=_about(workspace, options, pipeline, measured),
            data=[
                ("data sets", "; ".join(inputs.sources)),
                ("training", f"{len(inputs.train)} pictures, {inputs.train.boxes} boxes"),
                ("evaluation", f"{len(inputs.evaluation)} pictures, {inputs.evaluation.boxes} boxes"),
                ("classes", ", ".join(inputs.labels.names)),
            ],
            findings=checked.summary,
            results=measured.results,
            headline=[(f"{name}, {inputs.evaluation.name}", tables.value_text(value)) for name, value in figures],
            log=read_log(log_path) if log_path.is_file() else [],
            contact_sheet=workspace.out / "contact_sheet.jpg",
            files=tables.file_rows([file for file in all_files(workspace) if file[0] != _REPORT]),
            commands=next_commands(options, steps),
            notes=inputs.notes,
        )
    )

    def work() -> Done[NoFacts]:
        write_text(path, text)
        return Done([path], NoFacts())

    workspace.stage("report", fingerprint(text), NoFacts, work)


def next_commands(options: JobOptions, steps: int) -> list[tuple[str, str]]:
    """(purpose, command) of every suggested next step.

    Args:
        steps: of this run.
    """
    model = shlex.quote(str(options.out / "export"))
    kit = shlex.quote(str(options.out / "kit.binaryproto"))
    graph = shlex.quote(str(options.out / "export" / FROZEN_GRAPH))
    longer = replace(options, steps=2 * steps, minutes=None, restart=False)
    return [
        ("Detect objects in your own photos:", f"mirilla detect {model} PHOTO... --out detected"),
        ("Measure the model on another labelled data set:", f"mirilla eval {model} DATASET"),
        ("Compile it for the Vision Kit, and run it there:", f"mirilla compile {graph} --out {kit}"),
        ("", f"mirilla deploy {kit} pi@raspberrypi.local --run"),
        ("Make files for other boards and browsers:", f"mirilla export {model} --to all --out exports"),
        ("Train on, twice as long in all:", shlex.join(["mirilla", "run", *words_of(longer)])),
    ]


def all_files(workspace: Workspace) -> list[tuple[str, int]]:
    """(name, size in bytes) of every file of the stages, the most important files first."""
    others = [stage for stage in workspace.stages if stage not in _STAGES_FIRST]
    return [file for stage in (*_STAGES_FIRST, *others) for file in workspace.outputs(stage).items()]


def print_summary(options: JobOptions, steps: int, files: Sequence[tuple[str, int]]) -> None:
    """Print the files and the next steps; `steps`: of this run."""
    out = options.out
    console.echo()
    rows = [(str(out / name), size, what) for name, size, what in tables.file_rows(files)]
    console.print_table("Files", ("file", "size", "content"), rows)
    console.echo()
    console.echo("Next steps")
    for what, command in (("Open the report in a browser:", str(out / _REPORT)), *next_commands(options, steps)):
        if what:
            console.echo(f"  {what}")
        console.echo(f"      {command}")


def _about(
    workspace: Workspace, options: JobOptions, pipeline: config.Pipeline, measured: Measured
) -> list[tuple[str, str]]:
    steps, width = pipeline.train_config.num_steps, pipeline.model.ssd.feature_extractor.depth_multiplier
    return [
        (
            "network",
            f"{options.model}: embedded SSD MobileNet v1, width {width:g}, input {options.size_px}x{options.size_px}, "
            f"{options.resize}",
        ),
        (
            "training",
            f"{steps} steps of {options.batch_size} pictures, seed {options.seed}; {describe_recipe(options, steps)}",
        ),
        (
            "wall time",
            f"{tables.duration_text(workspace.seconds('train'))} in the last training session, on {platform.machine()}",
        ),
        ("score threshold", f"{measured.threshold:g} (best F1 on the held-out pictures)"),
        ("made by", f"mirilla {__version__}"),
    ]
