"""The main job, stage by stage.

    read  ->  check  ->  convert  ->  configure  ->  train  ->  evaluate  ->  export  ->  detect  ->  report

Every stage but the first, which only reads annotations, is skipped if its inputs and its files are unchanged
(see `workspace`). Training resumes from its last checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirilla import console
from mirilla.job import configure, export, prepare, run_report, training
from mirilla.job.configure import TrainingIdentity
from mirilla.job.evaluate import evaluate
from mirilla.job.options import JobOptions
from mirilla.job.workspace import Workspace
from mirilla.report.page import ResultJson


@dataclass(frozen=True)
class Outcome:
    """The result of a job: its files with sizes in bytes, the figures, and the score threshold for showing boxes."""

    out: Path
    files: tuple[tuple[str, int], ...]
    results: tuple[ResultJson, ...]
    threshold: float


def run_job(options: JobOptions) -> Outcome:
    """Run those stages of the job that are not up to date.

    Raises:
        MirillaError: one of its subclasses, for everything that the user can fix.
    """
    training.require_training()
    with Workspace.open(options.out, console.echo, restart=options.restart) as workspace:
        return run_stages(options, workspace)


def run_stages(options: JobOptions, workspace: Workspace) -> Outcome:
    """The stages, in an open workspace."""
    configure.require_available(options)
    inputs = prepare.read(workspace, options)
    checked = prepare.check_data(workspace, inputs)
    inputs = prepare.without_unusable(inputs, checked.unusable)
    identity = TrainingIdentity.of(options, inputs)
    training.refuse_other_training(workspace, identity)
    records = prepare.convert(workspace, inputs)
    steps = training.choose_steps(workspace, identity, options, inputs, records)
    pipeline = configure.write_pipeline(workspace, identity, options, inputs, records, steps)
    trained = training.train_stage(workspace, identity, inputs, pipeline, options.device)
    measured = evaluate(workspace, inputs, pipeline, trained)
    export.export(workspace, options, inputs, pipeline, trained, measured)
    export.draw_contact_sheet(workspace, inputs, trained, measured)
    run_report.write_report(workspace, options, inputs, pipeline, checked, measured)
    files = run_report.all_files(workspace)
    run_report.print_summary(options, steps, files)
    return Outcome(workspace.out, tuple(files), tuple(measured.results), measured.threshold)
