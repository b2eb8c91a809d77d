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
CARD = """\
# Model card: the face detector that ships with Mirilla

A detector of human faces: {network}, {parameters:,} parameters, input {width} x {height} px RGB. It runs on the AIY
Vision Kit's bonnet, and on any computer with numpy. It is meant as a starting point for training on photos of your own.

## Files

| file | SHA-256 |
|---|---|
{hashes}

Weights: {licence}. The training data has its own licences, listed below. If you redistribute the weights, redistribute
this file with them.

## Training data

{total:,} pictures with {faces:,} faces, {steps}.

| part | pictures | faces | content |
|---|---|---|---|
{parts}

The grey photos are **"Face Detection" by Mohamed Traore and Justin Brady, published on Roboflow Universe under
CC BY 4.0** (<https://universe.roboflow.com/ece342/face-detection-mik1i-4zino>, export of 2025-03-23; licence:
<https://creativecommons.org/licenses/by/4.0/>). Changes: only its train part and only pictures that its authors filmed
(stock and web pictures in it, {left_out} of the train part, were left out: their rights are unclear); boxes tightened
and missed faces added by YuNet (github.com/ShiqiYu/libfacedetection, MIT); coloured, cut out and pasted as in the
table. The photos from packages:

| photo | from | licence | by |
|---|---|---|---|
{photos}

Nothing else was used: no WIDER FACE, no ImageNet, no photos scraped from the web. The teacher YuNet was trained on
WIDER FACE by its authors; only its boxes were used. `tools/shipped_data.py` rebuilds the data set from these sources.

## Figures

| set | metric | value | protocol |
|---|---|---|---|
{figures}

None of these photos was used for training. Detections with a score of {threshold:g} or more are shown by default.

## Limits

- Trained on photos of about a dozen people, most of them men, filmed indoors in grey with phones and webcams. Other
  skin tones, ages, hair, headwear, light and places are under-represented, and errors will be more frequent there.
  Figures per group of people were not measured.
- Colours come from artificially coloured photos and drawn scenes, not from colour photos.
- Small faces (under 16 px if the long side is 256 px), profiles, crowds and occluded faces are often missed.
- Round objects with dark spots are sometimes detected as faces.

It is **not for** identifying people, for surveillance, for judging people, or for any use in which a missed or false
detection does harm. A detector trained on photos of your own place and people will be better:
`mirilla run PHOTOS --out DIR` starts from these weights.
"""
WHAT = {
    "gray": "grey photos by the authors of the CC BY 4.0 set",
    "tinted": "the same photos coloured by rule: skin tones on faces, random colours elsewhere",
    "mounted": "heads cut out of these photos, pasted at all sizes on drawn backgrounds or photos without faces",
    "drawn": "drawn scenes (mirilla.toy), made by Mirilla",
    "photos": "photos from Python packages and parts of them, see below",
}


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
    training = {"data": [f"{n}: {c} pictures" for n, c in provenance["pictures"].items()]}
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
    rows = {
        "hashes": [(f"`{path.name}`", f"`{files.sha256(path)}`") for path in sorted(stage.iterdir())],
        "parts": [(n, f"{c:,}", f"{made['faces'][n]:,}", WHAT[n]) for n, c in made["pictures"].items()],
        "photos": [
            (Path(p["file"]).name, p["wheel"].split("-cp")[0], p["licence"], p["credit"]) for p in made["photos"]
        ],
        "figures": [(f["set"], f["what"], f["value"], f["protocol"]) for f in figures],
    }
    return CARD.format(
        network=f"SSD on MobileNet v1 x {spec.depth_multiplier:g} with {len(card.anchors_yxyx):,} anchors",
        parameters=count,
        width=spec.width_px,
        height=spec.height_px,
        licence=card.licence,
        total=sum(made["pictures"].values()),
        faces=sum(made["faces"].values()),
        steps=steps or f"{card.training.get('steps') or 'an unknown number of'} steps",
        left_out=sum(made["left_out"].values()),
        threshold=card.threshold,
        **{key: "\n".join("| " + " | ".join(map(str, row)) + " |" for row in table) for key, table in rows.items()},
    )


if __name__ == "__main__":
    main()
