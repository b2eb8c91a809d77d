"""Data sets: one sample type, a reader and a writer per format, checks, statistics, and fetching."""

from mirilla.data.dataset import Dataset, combine
from mirilla.data.read import FORMATS, read_dataset
from mirilla.data.sample import Sample

__all__ = ["FORMATS", "Dataset", "Sample", "combine", "read_dataset"]
