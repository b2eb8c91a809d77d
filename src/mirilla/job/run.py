"""The main job, stage by stage.

    read  ->  check  ->  convert  ->  configure  ->  train  ->  evaluate  ->  export  ->  detect  ->  report

Every stage but the first, which only reads annotations, is skipped when what it was made from has not changed
and what it made is still there (see `workspace`). Training goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mirilla import config, console
from mirilla.data import Dataset
from mirilla.data.check import check
from mirilla.data.images import decode_rgb
from mirilla.data.tfrecord import write_tfrecords
from mirilla.errors import DataError, TrainingError, UsageError
from mirilla.files import explaining, write_text, writing
from mirilla.job import configure, measure
from mirilla.job import inputs as reading
from mirilla.job import run_report as closing
from mirilla.job import steps as parts
from mirilla.job.inputs import Inputs
from mirilla.job.options import JobOptions
from mirilla.job.workspace import Done, Workspace, fingerprint, samples_fingerprint
from mirilla.labels import label_map_text, save_label_map
from mirilla.report import tables
from mirilla.report.pictures import Shown, contact_sheet

SHEET_PICTURES = 24
_SHARD_PICTURES = 2000
_USELESS = ("unreadable-picture", "size-mismatch")


@dataclass(frozen=True)
class Outcome:
    """What a job made: its files by name with sizes, the figures, and the threshold for showing boxes."""

    out: Path
    files: tuple[tuple[str, int], ...]
    results: tuple[Mapping[str, Any], ...]
    threshold: float


def run_job(options: JobOptions) -> Outcome:
    """Do the job, or what is left of it.

    Raises:
        MirillaError: one of its classes, for whatever the user can mend.
    """
    parts.require_training()
    with Workspace.open(options.out, console.echo, restart=options.restart) as workspace:
        return work(options, workspace)


def work(options: JobOptions, workspace: Workspace) -> Outcome:
    """The stages, in a workspace that is open."""
    out = workspace.out
    configure.require(options)
    console.echo("[read]")
    with console.progress("reading", unit="pictures") as bar:
        found = reading.read_inputs(options, bar.advance)
    if options.teacher is not None:
        found = _taught(workspace, found, options.teacher)
    for line in (*found.sources, *found.notes):
        console.echo(f"  {line}")
    checked = _check(workspace, found)
    found = _without_useless(found, checked["useless"])
    data_print = fingerprint(samples_fingerprint(found.train.samples, times=False), label_map_text(found.labels))
    lasting = fingerprint(data_print, configure.lasting_options(options))
    _require_same_training(workspace, lasting, options)
    converted = _convert(workspace, found, data_print)
    steps = configure.steps_of(workspace, options, found, converted, lasting)
    pipeline = configure.configure(workspace, options, found, converted, steps, lasting)
    trained = _train(workspace, options, found, pipeline, steps, lasting)
    measured = _evaluate(workspace, found, pipeline, trained)
    _export(workspace, options, found, pipeline, trained, measured)
    _detect(workspace, found, trained, measured)
    closing.report(workspace, options, found, pipeline, checked, steps, measured)
    files = [("report.html", (out / "report.html").stat().st_size), *closing.all_files(workspace)]
    outcome = Outcome(out, tuple(files), tuple(measured["results"]), measured["threshold"])
    closing.finish(outcome.out, outcome.files)
    return outcome


def _taught(workspace: Workspace, found: Inputs, teacher: Path) -> Inputs:
    """With the faces that a teacher finds in the training pictures and the labels miss."""
    from mirilla.data.teacher import teach

    with console.progress("asking the teacher", len(found.train), "pictures") as bar:
        train = teach(found.train, teacher, cache=workspace.out / "teacher.json", advance=bar.advance)
    return replace(found, train=train, notes=(*found.notes, *train.notes[-1:]))


def _check(workspace: Workspace, found: Inputs) -> Mapping[str, Any]:
    path = workspace.out / "findings.txt"
    both = (*found.train.samples, *found.evaluation.samples)
    key = fingerprint(samples_fingerprint(both), [str(f) for f in found.findings], found.labels.names)

    def stage() -> Done:
        findings = list(found.findings)
        with console.progress("checking", len(both), "pictures") as bar:
            for dataset in (found.train, found.evaluation):
                bare = replace(dataset, problems=())  # the readers' own findings are there already
                findings += check(bare, labels=found.labels.names, advance=bar.advance)
        write_text(path, reading.findings_text(findings, found.notes))
        useless = sorted({f.where for f in findings if f.code in _USELESS})
        return Done((path,), {"summary": reading.findings_summary(findings), "useless": useless})

    facts = workspace.stage("check", key, stage)
    for severity, code, count, first in facts["summary"][:8]:
        console.echo(f"  {severity}: {count} x {code}, such as {first}")
    if facts["summary"]:
        console.echo(f"  all findings: {path}")
    return facts


def _without_useless(found: Inputs, useless: Sequence[str]) -> Inputs:
    """Without the pictures that cannot be decoded; each is named in findings.txt."""
    if not useless:
        return found
    gone = set(useless)

    def rest(dataset: Dataset) -> Dataset:
        samples = tuple(s for s in dataset.samples if (s.where or s.filename) not in gone)
        if not samples:
            raise DataError(
                f"Not one picture of {dataset.source} can be decoded.",
                "See findings.txt in the --out folder.",
            )
        return replace(dataset, samples=samples)

    console.echo(f"  {len(useless)} pictures that cannot be decoded are left out")
    return replace(found, train=rest(found.train), evaluation=rest(found.evaluation))


def _require_same_training(workspace: Workspace, lasting: str, options: JobOptions) -> None:
    """A trained model is never thrown away, nor trained on with other data or another network, silently."""
    before = workspace.state.get("training")
    if before is None or before["lasting"] == lasting or parts.trained_step(workspace.out / "train") is None:
        return
    then, now = before["options"], configure.lasting_options(options)
    changed = [f"{k}: {then[k]} then, {now[k]} now" for k in now if then.get(k) != now[k]]
    raise UsageError(
        f"{workspace.out / 'train'} holds a model that was trained on other data or as another network "
        f"({'; '.join(changed) or 'pictures, boxes or labels of the data sets have changed'}).",
        "Name another --out, or throw the old model away with --restart.",
    )


def _convert(workspace: Workspace, found: Inputs, data_print: str) -> Mapping[str, Any]:
    folder = workspace.out / "data"
    both = (*found.train.samples, *found.evaluation.samples)
    key = fingerprint(data_print, samples_fingerprint(both), len(found.evaluation))

    def stage() -> Done:
        with explaining(folder):
            if folder.exists():
                shutil.rmtree(folder)  # shards of an earlier conversion
        label_map = workspace.out / "label_map.pbtxt"
        save_label_map(label_map, found.labels)
        sets = {"train": found.train.samples, "eval": found.evaluation.samples}
        made: dict[str, list[str]] = {}
        with console.progress("writing records", sum(map(len, sets.values())), "pictures") as bar:
            for part, samples in sets.items():
                shards = max(1, round(len(samples) / _SHARD_PICTURES))
                paths = write_tfrecords(samples, found.labels, folder / f"{part}.tfrecord", shards, bar.advance)
                made[part] = [p.name for p in paths]
        outputs = [label_map, *(folder / n for names in made.values() for n in names)]
        return Done(outputs, made)

    return workspace.stage("convert", key, stage)


def _train(
    workspace: Workspace,
    options: JobOptions,
    found: Inputs,
    pipeline: config.Pipeline,
    steps: int,
    lasting: str,
) -> parts.Trained:
    folder = workspace.out / "train"
    workspace.state["training"] = {"lasting": lasting, "options": configure.lasting_options(options)}
    workspace.save()

    def stage() -> Done:
        before = parts.trained_step(folder)
        if before:
            console.echo(f"  goes on from step {before}")
        parts.train(pipeline, folder, steps, options.device)
        reached = parts.trained_step(folder)
        if reached is None or reached < steps:
            raise TrainingError(
                f"Training stopped at step {reached or 0} of {steps}.",
                "Run the same command again: it goes on from the last checkpoint.",
            )
        files = [parts.newest_checkpoint(folder), folder / "log.jsonl"]
        return Done([p for p in files if p is not None and p.is_file()], {"step": reached})

    key = fingerprint(lasting, samples_fingerprint(found.train.samples), steps, options.batch_size)
    workspace.stage("train", key, stage)
    return parts.trained(folder, pipeline.eval_config.use_moving_averages)


def _evaluate(
    workspace: Workspace, found: Inputs, pipeline: config.Pipeline, trained: parts.Trained
) -> Mapping[str, Any]:
    from mirilla.evaluation.measure import detect_all
    from mirilla.evaluation.measure import measure as figures

    path = workspace.out / "metrics.json"
    samples = found.evaluation.samples
    key = fingerprint(samples_fingerprint(samples), label_map_text(found.labels), _weights_print(trained))

    def stage() -> Done:
        detector = parts.detector(pipeline, trained.weights, found.labels)
        with console.progress("detecting", len(samples), "pictures") as bar:
            detections = detect_all(detector, samples, progress=bar)
        protocol = {
            "model": f"frozen graph, {trained.step} steps",
            "detector": detector.protocol,
            "set": found.evaluation.name,
        }
        metrics = ("faces", "coco", "pascal") if len(found.labels) == 1 else ("coco", "pascal")
        results = [
            measure.result_json(r) for r in figures(detections, samples, found.labels, metrics, protocol=protocol)
        ]
        names = {item.id: item.name for item in found.labels}
        threshold = measure.best_threshold(samples, detections, names)
        write_text(path, json.dumps({"threshold": threshold, "results": results}, indent=1) + "\n")
        return Done((path,), {"threshold": threshold, "results": results})

    facts = workspace.stage("evaluate", key, stage)
    first = facts["results"][0]
    console.print_table(
        f"  {first['metric']}: {found.evaluation.name}",
        ("figure", "value"),
        [(name, tables.value_text(value)) for name, value in first["figures"].items()],
    )
    return facts


def _export(
    workspace: Workspace,
    options: JobOptions,
    found: Inputs,
    pipeline: config.Pipeline,
    trained: parts.Trained,
    measured: Mapping[str, Any],
) -> None:
    folder = workspace.out / "export"
    name = options.name or workspace.out.resolve().name
    metrics = [
        {"name": figure, "value": value, "data": found.evaluation.name, "protocol": result["protocol"]}
        for result in measured["results"]
        for figure, value in result["figures"].items()
    ]
    training = {
        "steps": trained.step,
        "batch_size": options.batch_size,
        "pictures": len(found.train),
        "data": [Path(path).name for path in options.datasets],
    }
    key = fingerprint(_weights_print(trained), config.dump(pipeline), metrics, training, name, measured["threshold"])

    def stage() -> Done:
        files = parts.export(
            pipeline, trained.weights, found.labels, folder, metrics, training, name, measured["threshold"]
        )
        return Done(tuple(files))

    workspace.stage("export", key, stage)


def _detect(workspace: Workspace, found: Inputs, trained: parts.Trained, measured: Mapping[str, Any]) -> None:
    path = workspace.out / "contact_sheet.jpg"
    samples = measure.examples(found.evaluation.samples, SHEET_PICTURES)
    key = fingerprint(samples_fingerprint(samples), _weights_print(trained), measured["threshold"])

    def stage() -> Done:
        detector = parts.load_detector(workspace.out / "export")
        photos = [decode_rgb(s.image) for s in samples]
        names = {item.id: item.name for item in found.labels}
        shown = [
            Shown(photo, detections.above(measured["threshold"]), s.boxes_yxyx, s.ignore, s.labels, s.filename)
            for s, photo, detections in zip(samples, photos, detector.batch(photos), strict=True)
        ]
        heading = f"Held-out pictures of {found.evaluation.name}, scores of at least {measured['threshold']:g}"
        with writing(path) as file:
            contact_sheet(shown, names, heading=heading).save(file, "JPEG", quality=88)
        return Done((path,))

    workspace.stage("detect", key, stage)


def _weights_print(trained: parts.Trained) -> str:
    import hashlib

    digest = hashlib.sha256()
    for name in sorted(trained.weights):
        digest.update(name.encode() + trained.weights[name].tobytes())
    return digest.hexdigest()[:32]
