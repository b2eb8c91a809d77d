"""The demo: the main job on a drawn data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirilla import console
from mirilla.data import toy
from mirilla.errors import UsageError
from mirilla.job import parts
from mirilla.job.options import JobOptions
from mirilla.job.run import Outcome, work
from mirilla.job.workspace import Done, Workspace, fingerprint

# Fitted so that the whole takes some minutes on two cores: at half the usual side a step costs a third.
DEFAULT_STEPS, SIZE_PX = 3000, 128
TRAIN_PICTURES, EVAL_PICTURES = 600, 80
_DRAWING = 3  # counts up when the drawing changes, so that old pictures are drawn again


@dataclass(frozen=True)
class DemoOptions:
    """Options of `mirilla demo`.

    pictures: how many are drawn for training.
    """

    out: Path
    steps: int = DEFAULT_STEPS
    seed: int = 1
    pictures: int = TRAIN_PICTURES
    device: str | None = None
    restart: bool = False

    def __post_init__(self):
        if self.pictures < 24:
            raise UsageError(f"--pictures {self.pictures}: one step takes 24 pictures, so draw at least 24.")


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
    with Workspace.open(options.out, console.say, restart=options.restart) as workspace:
        folder = options.out / "toy"

        def draw() -> Done:
            with console.progress("drawing", options.pictures + EVAL_PICTURES, "pictures") as bar:
                toy.write(
                    folder, train=options.pictures, val=EVAL_PICTURES, seed=options.seed, drawn=bar.advance
                )
            return Done(sorted(p for p in folder.rglob("*") if p.is_file()))

        workspace.stage("draw", fingerprint(_DRAWING, options.seed, options.pictures, EVAL_PICTURES), draw)
        return work(job, workspace)
