"""The demo: the main job on a synthetic data set."""

from __future__ import annotations

from pathlib import Path

from mirilla import files, shipped
from mirilla.console import echo, progress
from mirilla.data.images import decode_rgb
from mirilla.detect.detector import Detector
from mirilla.errors import ModelError
from mirilla.job import training
from mirilla.job.options import DemoOptions, JobOptions
from mirilla.job.run import Outcome, run_stages
from mirilla.job.workspace import Done, NoFacts, Workspace, fingerprint
from mirilla.report import pictures
from mirilla.toy import dataset as toy

SIZE_PX = 128  # a step takes a third of the time of one at 256 px
EVAL_PICTURES = 80
_DRAWING_VERSION = 4  # of the drawing code; increase it to have the pictures drawn again


def run_demo(options: DemoOptions) -> Outcome:
    """Draw the data set, then run the main job on it.

    Raises:
        MirillaError: as `run_job`.
    """
    training.require_training()
    folder = options.out / "toy"
    job = JobOptions(
        (str(folder),),
        options.out,
        steps=options.steps,
        size_px=SIZE_PX,
        seed=options.seed,
        device=options.device,
        name="toy faces",
    )
    with Workspace.open(options.out, echo, restart=options.restart) as workspace:

        def draw() -> Done[NoFacts]:
            with progress("drawing", options.pictures + EVAL_PICTURES, "pictures") as bar:
                toy.write(folder, train=options.pictures, val=EVAL_PICTURES, seed=options.seed, drawn=bar.advance)
            return Done(sorted(path for path in folder.rglob("*") if path.is_file()), NoFacts())

        key = fingerprint(_DRAWING_VERSION, options.seed, options.pictures, EVAL_PICTURES)
        workspace.stage("draw", key, NoFacts, draw)
        outcome = run_stages(job, workspace)
    detect_shipped_photo(options.out / "photo.jpg")
    return outcome


def detect_shipped_photo(path: Path) -> None:
    """Run the shipped detector, which was trained on real photos, on the photo that ships with it; draw the boxes.

    Does nothing if the installation has no weights.

    Raises:
        MirillaError: the file cannot be written.
    """
    try:
        detector = Detector.load()
    except ModelError:
        return
    image = decode_rgb(shipped.PHOTO)
    found = detector(image).above(detector.card.threshold)
    with files.writing(path) as file:
        pictures.draw(image, found, detector.labels).save(file, "JPEG", quality=90)
    scores = ", ".join(f"{score:.2f}" for score in found.scores)
    echo(f"The detector that ships with Mirilla, on a real photo ({shipped.PHOTO_SOURCE}):")
    echo(f"  faces found: {len(found)}, scores: {scores or 'none'}; {path}")
