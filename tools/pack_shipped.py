"""Pack a trained detector into the package: the folder `mirilla.shipped.FOLDER`, with its model card.

    python tools/pack_shipped.py EXPORT --provenance data/provenance.json --figures figures.json --steps 100000

EXPORT is a folder of `mirilla export` (or a run's export/). --provenance is the file that
tools/shipped_data.py wrote. --figures is a JSON list of measurements, {"set": ..., "what": ..., "value": ...,
"protocol": ...}, for the card and model.json. --threshold replaces the minimum score of the detections that are shown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from mirilla import files, shipped
from mirilla.errors import MirillaError
from mirilla.model import card as cards
from mirilla.model.layers import architecture
from mirilla.weights import load as weights

LICENCE = "Apache-2.0"
CARD = Path(__file__).with_name("model_card.md")  # a template
CREDITS = Path(__file__).with_name("shipped_credits.json")  # part -> licence, credit and content
EARLIER_PICTURES = 3430


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--provenance", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    parser.add_argument("--steps", default="")
    parser.add_argument("--threshold", type=float)
    parser.add_argument("--out", type=Path, default=shipped.FOLDER)
    args = parser.parse_args()
    pack(
        args.export,
        json.loads(args.provenance.read_text()),
        json.loads(args.figures.read_text()),
        args.out,
        steps=args.steps,
        threshold=args.threshold,
    )
    for path in sorted(args.out.iterdir()):
        print(f"{path}: {path.stat().st_size:,} bytes")


def pack(
    export: Path,
    provenance: dict,
    figures: list[dict],
    out: Path,
    *,
    steps: str = "",
    threshold: float | None = None,
) -> None:
    """Write the shipped folder, whole or not at all.

    Raises:
        MirillaError: the export is broken, or the folder would be larger than shipped.MAX_BYTES.
    """
    card = cards.load(export / cards.FILE_NAME, export / shipped.FROZEN_GRAPH)
    used = {name: part for name, part in provenance["train"].items() if part["pictures"]}
    training = {"data": [f"{name}: {part['pictures']} pictures" for name, part in used.items()]}
    training |= {"steps": card.training.get("steps"), "train_sha256": provenance["train_sha256"]}
    card = replace(
        card,
        name="mirilla-face",
        licence=LICENCE,
        metrics=tuple(figures),
        training=training,
        threshold=card.threshold if threshold is None else threshold,
    )
    found = weights.load_weights(export / shipped.FROZEN_GRAPH)
    with tempfile.TemporaryDirectory(dir=out.parent) as name:
        stage = Path(name)
        shutil.copyfile(export / shipped.FROZEN_GRAPH, stage / shipped.FROZEN_GRAPH)
        card = cards.save(card, stage / shipped.FROZEN_GRAPH)
        text = model_card(card, found, provenance, figures, stage, steps)
        files.write_text(stage / shipped.MODEL_CARD, text)
        size = sum(path.stat().st_size for path in stage.iterdir())
        if size >= shipped.MAX_BYTES:
            raise MirillaError(f"The folder would have {size:,} bytes; at most {shipped.MAX_BYTES:,} may ship.")
        out.mkdir(parents=True, exist_ok=True)
        for path in out.iterdir():
            path.unlink()
        for path in stage.iterdir():
            shutil.move(path, out / path.name)


def model_card(
    card: cards.ModelCard, found: weights.Weights, made: dict, figures: list[dict], stage: Path, steps: str
) -> str:
    """The text of MODEL_CARD.md."""
    spec = card.spec
    trained = [n for n, _, is_trained in architecture(spec).variables() if is_trained]
    count = sum(found.variables[n].size for n in trained)
    used = {name: part for name, part in made["train"].items() if part["pictures"]}
    credits = json.loads(CREDITS.read_text("utf-8"))
    rows = {
        "hashes": [(f"`{path.name}`", f"`{files.sha256(path)}`") for path in sorted(stage.iterdir())],
        "parts": [(n, f"{part['pictures']:,}", f"{part['faces']:,}", credits[n]) for n, part in used.items()],
        "figures": [(f["set"], f["what"], f["value"], f["protocol"]) for f in figures],
    }
    return CARD.read_text("utf-8").format(
        network=f"SSD on MobileNet v1 x {spec.depth_multiplier:g} with {len(card.anchors_yxyx):,} anchors",
        parameters=count,
        width=spec.width_px,
        height=spec.height_px,
        licence=card.licence,
        total=sum(part["pictures"] for part in used.values()),
        faces=sum(part["faces"] for part in used.values()),
        earlier_total=EARLIER_PICTURES,
        coco=", ".join(made["coco_backgrounds"]),
        steps=steps or f"{card.training.get('steps') or 'an unknown number of'} steps",
        threshold=card.threshold,
        **{key: "\n".join("| " + " | ".join(map(str, row)) + " |" for row in table) for key, table in rows.items()},
    )


if __name__ == "__main__":
    main()
