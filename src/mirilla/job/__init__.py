"""The main job: from labelled photos to a measured detector, in stages that go on where they stopped."""

from mirilla.job.options import JobOptions
from mirilla.job.run import Outcome, run_job

__all__ = ["JobOptions", "Outcome", "run_job"]
