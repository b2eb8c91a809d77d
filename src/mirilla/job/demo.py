"""The demo: the main job on a drawn data set."""

from __future__ import annotations

from pathlib import Path

from mirilla import console, files, shipped
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.errors import ModelError
from mirilla.job import steps as parts
from mirilla.job.options import DemoOptions, JobOptions
from mirilla.job.run import Outcome, work
from mirilla.job.workspace import Done, Workspace, fingerprint
from mirilla.report import pictures
from mirilla.toy import dataset as toy

SIZE_PX, EVAL_PICTURES = 128, 80  # at half the usual side a step costs a third
_DRAWING_VERSION = 4  # of the drawing code: a new version draws the pictures again


def run_demo(options: DemoOptions) -> Outcome:
    """Draw the data set, then do what `mirilla run` does.

    Raises:
        MirillaError: as `run_job`.
    """
    parts.require_training()
    job = JobOptions(
        (str(options.out / "toy"),),
        options.out,
        steps=options.steps,
        size_px=SIZE_PX,
        seed=options.seed,
        device=options.device,
        name="toy faces",
    )
    with Workspace.open(options.out, console.echo, restart=options.restart) as workspace:
        folder = options.out / "toy"

        def draw() -> Done:
            with console.progress("drawing", options.pictures + EVAL_PICTURES, "pictures") as bar:
                toy.write(folder, train=options.pictures, val=EVAL_PICTURES, seed=options.seed, drawn=bar.advance)
            return Done(sorted(p for p in folder.rglob("*") if p.is_file()))

        workspace.stage("draw", fingerprint(_DRAWING_VERSION, options.seed, options.pictures, EVAL_PICTURES), draw)
        outcome = work(job, workspace)
    detect_a_photo(options.out / "photo.jpg")
    return outcome


def detect_a_photo(path: Path) -> None:
    """Draw what the shipped detector, which saw real photos, finds on the photo that ships with it.

    Raises:
        MirillaError: the file cannot be written.
    """
    try:
        detector = Detector.load()
    except ModelError:  # an installation without weights: the demo is whole without them
        return
    image = decode_rgb(shipped.PHOTO)
    found = detector(image).above(detector.card.threshold)
    with files.writing(path) as file:
        pictures.draw(image, found, detector.labels).save(file, "JPEG", quality=90)
    scores = ", ".join(f"{score:.2f}" for score in found.scores)
    console.echo(f"The detector that ships with Mirilla, on a real photo ({shipped.PHOTO_SOURCE}):")
    console.echo(f"  {len(found)} found, score {scores or 'none'}: {path}")
