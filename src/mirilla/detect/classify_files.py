"""Classification of photos and folders: what `mirilla detect` does with a classifier.

The result is one JSON object per photo: source, height and width in pixels, seconds, and the best classes with label,
class and score.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from mirilla import console
from mirilla.data.images import EXTENSIONS
from mirilla.detect.classifier import Classified, Classifier
from mirilla.detect.sources import Photo, decoded, find_sources
from mirilla.errors import DataError, UsageError


def classify_files(
    classifier: Classifier, sources: Sequence[str], *, json_lines: bool = False, threshold: float | None = None
) -> int:
    """Classify and print.

    Args:
        sources: photos and folders.
        threshold: classes with lower scores are not shown; None for the card's.

    Returns:
        How many sources could not be read; standard error names them.

    Raises:
        UsageError: a video, a camera, or a threshold out of range.
        DataError: there is no photo.
    """
    least = classifier.card.threshold if threshold is None else threshold
    if not 0 <= least <= 1:
        raise UsageError(f"--threshold {least}: must be between 0 and 1.")
    found = find_sources(sources)
    if found.videos:
        raise UsageError(f"{found.videos[0]}: a classifier takes photos and folders only.")
    if not (found.photos or found.missing):
        raise DataError("No photo found.", f"Photos end in {', '.join(sorted(EXTENSIONS))}.")
    for note in classifier.notes:
        console.warn(note)
    for reason in found.missing:
        console.warn(reason)
    failed = len(found.missing)
    for photo in found.photos:
        try:
            _classify(classifier, photo, least, json_lines)
        except (DataError, OSError) as error:
            console.warn(str(error))
            failed += 1
    return failed


def _classify(classifier: Classifier, photo: Photo, least: float, json_lines: bool) -> None:
    image = decoded(photo)
    start = time.perf_counter()
    classes = [one for one in classifier(image) if one.score >= least]
    seconds = time.perf_counter() - start
    if not json_lines:
        texts = [f"{one.label} {one.score:.2f}" for one in classes]
        console.echo(f"{photo.source}: {', '.join(texts) or f'nothing with a score of {least:g}'}")
        return
    content = {
        "source": photo.source,
        "height_px": image.shape[0],
        "width_px": image.shape[1],
        "seconds": round(seconds, 4),
        "classes": [_json(one) for one in classes],
    }
    print(json.dumps(content, ensure_ascii=False), flush=True)


def _json(found: Classified) -> dict[str, object]:
    return {"label": found.label, "class": found.class_id, "score": round(found.score, 5)}
