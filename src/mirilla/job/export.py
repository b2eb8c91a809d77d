"""The stages that write the detector's folder, and a contact sheet of its detections on held-out pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mirilla import config
from mirilla.config.to_spec import model_spec
from mirilla.data.images import decode_rgb
from mirilla.data.sample import Sample
from mirilla.data.split import share_of
from mirilla.detect.detector import Detector
from mirilla.files import writing
from mirilla.job.evaluate import Measured, weights_fingerprint
from mirilla.job.inputs import Inputs
from mirilla.job.options import JobOptions
from mirilla.job.training import Trained
from mirilla.job.workspace import Done, NoFacts, Workspace, fingerprint, samples_fingerprint
from mirilla.report.pictures import Shown, contact_sheet
from mirilla.weights.export import export_model

_SHEET_PICTURES = 24


def export(
    workspace: Workspace,
    options: JobOptions,
    inputs: Inputs,
    pipeline: config.Pipeline,
    trained: Trained,
    measured: Measured,
) -> None:
    """Write the folder `export`."""
    name = model_name(workspace, options)
    metrics = [
        {"name": figure, "value": value, "data": inputs.evaluation.name, "protocol": result["protocol"]}
        for result in measured.results
        for figure, value in result["figures"].items()
    ]
    training = {
        "steps": trained.step,
        "batch_size": options.batch_size,
        "pictures": len(inputs.train),
        "data": [Path(path).name for path in options.datasets],
    }
    key = fingerprint(weights_fingerprint(trained), config.dump(pipeline), metrics, training, name, measured.threshold)

    def work() -> Done[NoFacts]:
        exported = export_model(
            model_spec(pipeline),
            trained.weights,
            inputs.labels,
            workspace.out / "export",
            step=trained.step,
            pipeline=pipeline,
            metrics=metrics,
            training=training,
            name=name,
            threshold=measured.threshold,
        )
        return Done(exported.files, NoFacts())

    workspace.stage("export", key, NoFacts, work)


def draw_contact_sheet(workspace: Workspace, inputs: Inputs, trained: Trained, measured: Measured) -> None:
    """Run the exported detector on some held-out pictures, and draw right, wrong and missed boxes."""
    path = workspace.out / "contact_sheet.jpg"
    samples = choose_examples(inputs.evaluation.samples, _SHEET_PICTURES)
    key = fingerprint(samples_fingerprint(samples), weights_fingerprint(trained), measured.threshold)

    def work() -> Done[NoFacts]:
        detector = Detector.load(workspace.out / "export")
        photos = [decode_rgb(sample.image) for sample in samples]
        shown = [
            Shown(
                photo,
                detections.above(measured.threshold),
                sample.boxes_yxyx,
                sample.ignore,
                sample.labels,
                sample.filename,
            )
            for sample, photo, detections in zip(samples, photos, detector.batch(photos), strict=True)
        ]
        names = {item.id: item.name for item in inputs.labels}
        heading = f"Held-out pictures of {inputs.evaluation.name}, scores of at least {measured.threshold:g}"
        with writing(path) as file:
            contact_sheet(shown, names, heading=heading).save(file, "JPEG", quality=88)
        return Done([path], NoFacts())

    workspace.stage("detect", key, NoFacts, work)


def model_name(workspace: Workspace, options: JobOptions) -> str:
    """The name given, or else the folder's."""
    return options.name or workspace.out.resolve().name


def choose_examples(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Pictures for the contact sheet, chosen by a hash of their names; at most one in eight has no objects."""
    shuffled = sorted(samples, key=lambda sample: share_of(sample.filename, 1))
    with_objects = [sample for sample in shuffled if (~sample.ignore).any()]
    without = [sample for sample in shuffled if not len(sample)][: max(1, count // 8)]
    return [*with_objects[: count - len(without)], *without][:count]
