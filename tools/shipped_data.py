"""Build the data set that the shipped weights are trained on, from sources with free licences only.

    pip download --no-deps -d wheels scikit-image==0.26.0 scikit-learn==1.9.1 scipy==1.9.3 matplotlib==3.10.0 \\
        --python-version 3.11 --only-binary :all:
    python tools/shipped_data.py --gray roboflow_gray --wheels wheels --teacher yunet.onnx --out data

Needs mirilla[train,onnx]. `--gray` is Roboflow's "Face Detection" (CC BY 4.0) with a split.csv; its eval part is
written as eval.tfrecord and never trained on. train.tfrecord has:

  gray      its train part, boxes tightened and missed faces added by the teacher (YuNet)
  tinted    the same photos coloured, so that the network also sees colours
  mounted   heads cut out of these photos, pasted at all sizes on backgrounds without faces
  drawn     Mirilla's own drawn scenes
  photos    photos in the public domain, CC0 or CC BY that Python packages ship, most without a face

Everything follows from --seed. provenance.json lists the sources with counts and SHA-256. The shipped weights were
trained with an earlier version of the drawn scenes (mirilla.toy), so the SHA-256 of train.tfrecord differs from the one
in their model.json.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import io
import json
import re
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mirilla.data import images, read_dataset, teacher, tfrecord
from mirilla.data.sample import Sample
from mirilla.data.yunet import YuNet
from mirilla.toy.backgrounds import background
from mirilla.toy.scene import draw_scene

# What the data set's authors filmed themselves, by the first words of the file names. The rest (stock photos, a
# magazine's cover, frames of others' films) may be under its owners' rights and is left out.
FILMED = re.compile(
    r"^(IMG|gravitate-faces|mask-wearing-\d{6}|mask-no-mask|Mask|Inside-merge|PXL|mo-justin|face-detection|no-mask_mov"
    r"|no-mask-?\d*_mov|ashton-video|hand-signs-for-alex|Mat-Hand|WIN|Screen-Recording|Mohamed-Image|Photo-on"
    r"|mask_mov|mask-?\d*_mov|Image-from-iOS|video_|mohamed-headshot|MTraore-photo|Movie-on)"
)


@dataclass(frozen=True)
class Photo:
    """A photo in a package's wheel. Its faces are detected by the teacher and were checked by eye."""

    wheel: str
    path: str
    licence: str
    credit: str


_SK, _PD = "scikit_image", "public domain"
PHOTOS = (
    Photo("matplotlib", "grace_hopper.jpg", _PD, "Grace Hopper; official portrait by the United States Navy"),
    Photo(_SK, "camera.png", "CC0 1.0", "Lav Varshney"),
    Photo(_SK, "chelsea.png", "CC0 1.0", "Stefan van der Walt"),
    Photo(_SK, "coffee.png", "CC0 1.0", "Rachel Michetti"),
    Photo(_SK, "rocket.jpg", _PD, "SpaceX"),
    Photo(_SK, "brick.png", "CC0 1.0", "CC0Textures"),
    Photo(_SK, "grass.png", "CC0 1.0", "linolafett"),
    Photo(_SK, "gravel.png", "CC0 1.0", "CC0Textures"),
    Photo(_SK, "clock_motion.png", _PD, "Stefan van der Walt"),
    Photo(_SK, "hubble_deep_field.jpg", _PD, "NASA"),
    Photo(_SK, "retina.jpg", "CC0 1.0", "Mikael Haeggstroem"),
    Photo(_SK, "horse.png", "CC0 1.0", "Andreas Preuss"),
    Photo("scikit_learn", "china.jpg", "CC BY 2.0", "danielbuechele, flickr.com/photos/danielbuechele/6061409035"),
    Photo("scikit_learn", "flower.jpg", "CC BY 2.0", "vultilion, flickr.com/photos/vultilion/6056698931"),
    Photo("scipy", "face.dat", _PD, "public-domain-image.com (a raccoon)"),
)
LONGEST_PX = 512
BACKDROPS = 150
HEAD_PX = 320  # longer side of a cut-out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gray", type=Path, required=True)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mounted", type=int, default=1000)
    parser.add_argument("--drawn", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    yunet = YuNet.load(args.teacher)

    gray, left_out = filmed(args.gray, yunet, args.out / "teacher.jsonl")
    photos, sources = package_photos(args.wheels, yunet)
    seed = args.seed
    with ProcessPoolExecutor(args.processes, mp_context=get_context("fork")) as pool:
        parts = {
            "gray": gray,
            "tinted": list(pool.map(tinted, gray, [[seed, 1, i] for i in range(len(gray))], chunksize=20)),
            "photos": [variant(s, k, [seed, 2, i, k]) for i, s in enumerate(photos) for k in range(6)],
            "drawn": list(pool.map(drawn, [seed] * args.drawn, range(args.drawn), chunksize=10)),
        }
        print("cutting heads", flush=True)
        heads = cut_heads(gray, seed, pool)
    drops = [np.asarray(background(np.random.default_rng([seed, 5, i]), 640, 640)[0]) for i in range(BACKDROPS)]
    bare = [s for s in gray + photos if not len(s)]
    global _MATERIAL
    _MATERIAL = heads, bare, drops
    print("mounting", len(heads), "heads", flush=True)
    with ProcessPoolExecutor(args.processes, mp_context=get_context("fork")) as pool:  # these inherit _MATERIAL
        parts["mounted"] = list(pool.map(mounted, [seed] * args.mounted, range(args.mounted), chunksize=10))
    samples = [s for part in parts.values() for s in part]
    np.random.default_rng(args.seed).shuffle(samples)  # type: ignore[arg-type]
    tfrecord.write_tfrecords(samples, [teacher.FACE], args.out / "train.tfrecord")
    held_out = read_dataset(args.gray, split="eval")
    tfrecord.write_tfrecords(held_out.samples, [teacher.FACE], args.out / "eval.tfrecord")
    (args.out / "label_map.pbtxt").write_text("item {\n  id: 1\n  name: 'face'\n}\n")
    report = {
        "seed": args.seed,
        "pictures": {n: len(p) for n, p in parts.items()},
        "faces": {n: sum(int((~s.ignore).sum()) for s in p) for n, p in parts.items()},
        "ignored": {n: sum(int(s.ignore.sum()) for s in p) for n, p in parts.items()},
        "people": "about a dozen",
        "left_out": left_out,
        "heads": len(heads),
        "teacher_sha256": yunet.digest,
        "gray_sha256": hashlib.sha256(b"".join(s.encoded() for s in gray)).hexdigest(),
        "photos": sources,
        "train_sha256": hashlib.sha256((args.out / "train.tfrecord").read_bytes()).hexdigest(),
    }
    (args.out / "provenance.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: report[k] for k in ("pictures", "faces", "ignored", "left_out", "heads")}, indent=1))


def filmed(folder: Path, yunet: YuNet, cache: Path) -> tuple[list[Sample], dict[str, int]]:
    """The train part that its authors filmed, with the teacher's faces; and counts of what is left out, by name."""
    dataset = read_dataset(folder, split="train")
    kept = [s for s in dataset.samples if FILMED.match(s.filename)]
    others = [s.filename for s in dataset.samples if not FILMED.match(s.filename)]
    out = Counter(re.split(r"[\d_.]", name)[0] or "number" for name in others)
    taught = teacher.teach(dataset.with_samples(kept), yunet, tighten=True, cache=cache)
    print(taught.notes[-1])
    return [replace(s, image=s.encoded(), filename=f"gray/{s.filename}") for s in taught.samples], dict(out)


def package_photos(wheels: Path, yunet: YuNet) -> tuple[list[Sample], list[dict]]:
    samples, sources = [], []
    for photo in PHOTOS:
        (wheel,) = sorted(wheels.glob(f"{photo.wheel}-*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [n for n in archive.namelist() if n.rsplit("/", 1)[-1] == photo.path]
            content = archive.read(name)
        digest = hashlib.sha256(content).hexdigest()
        if photo.path == "face.dat":
            pixels = np.frombuffer(bz2.decompress(content), np.uint8).reshape(768, 1024, 3)
        else:
            pixels = images.decode_rgb(content)
        sample = encoded(f"photos/{photo.path.split('.')[0]}.jpg", shrunk(pixels))
        if photo.path in ("grace_hopper.jpg", "camera.png"):  # the only photos with a person
            found = yunet(images.decode_rgb(sample.image))
            sample, _ = teacher.add(sample, found)
        samples.append(sample)
        facts = {"wheel": wheel.name, "file": name, "sha256": digest}
        sources.append({**facts, "licence": photo.licence, "credit": photo.credit, "faces": len(sample)})
    return samples, sources


def drawn(seed: int, index: int) -> Sample:
    scene = draw_scene(seed, "train", index)
    rows = [(f.top_px, f.left_px, f.top_px + f.height_px, f.left_px + f.width_px) for f in scene.faces]
    size = np.array([scene.picture.height, scene.picture.width] * 2)
    boxes = np.array(rows, float).reshape(-1, 4) / size
    sample = encoded(f"drawn/{index}.jpg", np.asarray(scene.picture), boxes, scene.jpeg_quality)
    return replace(sample, ignore=np.array([bool(f.invalid) for f in scene.faces], bool))


def tinted(sample: Sample, seed: list[int]) -> Sample:
    pixels = tint(images.decode_rgb(sample.image), sample.boxes_yxyx, np.random.default_rng(seed))
    new = encoded(sample.filename.replace("gray/", "tinted/"), pixels, sample.boxes_yxyx)
    return replace(new, labels=sample.labels, ignore=sample.ignore, weight=sample.weight)


def variant(sample: Sample, k: int, seed: list[int]) -> Sample:
    """The photo (k = 0), a random part of a photo without faces, or a photo with faces in grey or tinted."""
    if k == 0:
        return sample
    rng = np.random.default_rng(seed)
    pixels = images.decode_rgb(sample.image)
    name = sample.filename.replace(".jpg", f"-{k}.jpg")
    if len(sample):
        grey = np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, 2)
        pixels = grey if k == 1 else tint(grey, sample.boxes_yxyx, rng)
        return replace(encoded(name, pixels, sample.boxes_yxyx), ignore=sample.ignore, weight=sample.weight)
    side = int(min(pixels.shape[:2]) * rng.uniform(0.4, 0.9))
    y, x = (int(rng.integers(n - side + 1)) for n in pixels.shape[:2])
    return encoded(name, np.rot90(pixels[y : y + side, x : x + side], int(rng.integers(4))).copy())


def tint(pixels: np.ndarray, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour a grey picture by place and lightness, so that colours change at edges, with skin tones on faces."""
    height, width = pixels.shape[:2]
    light = cv2.GaussianBlur(pixels[..., 0], (0, 0), 1.2).astype(np.float32)
    strength = rng.uniform(2, 14)
    chroma = np.stack([_field(rng, height, width, 4) for _ in range(2)], -1) * strength  # (H, W, 2): Cb, Cr
    knots = rng.normal(0, strength, (7, 2))
    for c in range(2):  # cloth, walls and wood usually differ in lightness
        chroma[..., c] += np.interp(light, np.linspace(0, 255, 7), knots[:, c])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for ymin, xmin, ymax, xmax in boxes * [height, width, height, width]:
        cy, cx, h, w = (ymin + ymax) / 2, (xmin + xmax) / 2, ymax - ymin, xmax - xmin
        tone = np.array([rng.uniform(-24, -8), rng.uniform(15, 30)])
        far = ((x - cx) / (0.62 * w)) ** 2 + ((y - cy - 0.06 * h) / (0.68 * h)) ** 2
        neck = (np.abs(x - cx) < 0.33 * w) & (y > cy) & (y < ymax + 0.35 * h)
        mask = np.clip((1.25 - far) / 0.35, 0, 1) * np.clip(light / 60, 0.3, 1)
        mask = cv2.GaussianBlur(np.maximum(mask, 0.8 * neck), (0, 0), max(1.0, 0.03 * w))[..., None]
        chroma = chroma * (1 - mask) + tone * mask
    chroma *= (np.minimum(light, 255 - 0.6 * light) / 110).clip(0.15, 1)[..., None]  # no colour in black and white
    cast = rng.normal(0, 4, 2)
    ycc = np.concatenate([pixels[..., :1].astype(np.float32), chroma[..., ::-1] + cast + 128], -1)
    return cv2.cvtColor(ycc.clip(0, 255).astype(np.uint8), cv2.COLOR_YCrCb2RGB)


def _field(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@dataclass(frozen=True, eq=False)
class Head:
    """A cut-out person: grey pixels (H, W, 3), opacity of each pixel (H, W), the face's box in pixels."""

    pixels: np.ndarray
    alpha: np.ndarray
    box: np.ndarray


def cut_heads(samples: list[Sample], seed: int, pool: ProcessPoolExecutor, max_per_film: int = 30) -> list[Head]:
    """Heads of the faces without doubt that are large enough, at most `max_per_film` per film."""
    tasks, films = [], Counter()
    for i in np.random.default_rng([seed, 4]).permutation(len(samples)):
        sample = samples[i]
        film = re.split(r"_(?:mov|mp4)|-\d|_\d{4}|\.", sample.filename, maxsplit=1)[0]
        if films[film] >= max_per_film or sample.ignore.any():
            continue
        for box in sample.boxes_yxyx:
            if (box[2] - box[0]) * sample.height_px >= 40 and box.min() >= 0.01 and box.max() <= 0.95:
                tasks.append((sample.image, box))
                films[film] += 1
    found = pool.map(cut, *zip(*tasks, strict=True), chunksize=5)
    return [head for head in found if head is not None]


def cut(picture: bytes, box_yxyx: np.ndarray) -> Head | None:
    """Cut out a head with its shoulders by GrabCut; None if that fails."""
    pixels = images.decode_rgb(picture)
    box = box_yxyx * [*pixels.shape[:2], *pixels.shape[:2]]
    shrink = HEAD_PX / max(4.0 * (box[2] - box[0]), 3.6 * (box[3] - box[1]))
    if shrink < 1:
        pixels, box = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA), box * shrink
    h, w = box[2] - box[0], box[3] - box[1]
    y0, y1 = int(max(0, box[0] - 0.8 * h)), int(min(pixels.shape[0], box[2] + 2.2 * h))
    x0, x1 = int(max(0, box[1] - 1.3 * w)), int(min(pixels.shape[1], box[3] + 1.3 * w))
    crop = pixels[y0:y1, x0:x1]
    scale = min(1.0, 200 / max(crop.shape[:2]))
    small = cv2.resize(crop, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    at = (box - [y0, x0, y0, x0]) * scale
    cy, cx, h, w = (at[0] + at[2]) / 2, (at[1] + at[3]) / 2, at[2] - at[0], at[3] - at[1]
    y, x = np.mgrid[: small.shape[0], : small.shape[1]].astype(np.float32)
    head = ((x - cx) / (0.8 * w)) ** 2 + ((y - cy + 0.08 * h) / (0.85 * h)) ** 2 < 1
    body = (y > at[2] - 0.1 * h) & (np.abs(x - cx) < 0.45 * w + 1.0 * (y - at[2] + 0.1 * h))
    core = ((x - cx) / (0.48 * w)) ** 2 + ((y - cy) / (0.5 * h)) ** 2 < 1
    mask = np.where(head | body, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    mask[core | ((y > at[2] + 0.35 * h) & (np.abs(x - cx) < 0.4 * w))] = cv2.GC_FGD
    cv2.setRNGSeed(1)
    try:
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(np.ascontiguousarray(small), mask, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return None
    alpha = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(alpha)
    alpha = (parts == parts[int(cy), int(cx)]).astype(np.float32)
    if not 0.5 < alpha[head].mean() <= 1 or len(stats) < 2:
        return None
    alpha = cv2.GaussianBlur(cv2.erode(alpha, np.ones((3, 3))), (0, 0), 1.0)
    alpha = cv2.resize(alpha, crop.shape[1::-1])
    return Head(crop, alpha, box - [y0, x0, y0, x0])


_MATERIAL: tuple[list[Head], list[Sample], list[np.ndarray]] = [], [], []


def mounted(seed: int, index: int) -> Sample:
    """Paste heads, the smallest first, on a drawn or real background without faces."""
    heads, bare, drops = _MATERIAL
    rng = np.random.default_rng([seed, 3, index])
    width, height = [(512, 384), (384, 512), (448, 448), (512, 288)][rng.integers(4)]
    kind = rng.random()
    if kind < 0.55:
        canvas = part_of(drops[rng.integers(len(drops))], height, width, rng)
    else:
        canvas = part_of(images.decode_rgb(bare[rng.integers(len(bare))].image), height, width, rng)
    grey = rng.random() < 0.3
    canvas = canvas.astype(np.float32)
    count = int(rng.choice([0, 1, 2, 3, 5, 8], p=[0.05, 0.25, 0.25, 0.2, 0.15, 0.1]))
    top = {0: 30, 1: 200, 2: 120, 3: 90, 5: 60, 8: 40}[count]
    sizes = np.sort(np.exp(rng.uniform(np.log(10 if count > 1 else 24), np.log(top), count)))
    sizes *= max(height, width) / 256
    boxes: list[np.ndarray] = []
    for size in sizes:
        head = heads[rng.integers(len(heads))]
        pixels, alpha, box = head.pixels, head.alpha, head.box
        if not grey:
            pixels = tint(pixels, (box / [*alpha.shape, *alpha.shape])[None], rng)
        scale = size / (box[2] - box[0])
        angle = float(rng.normal(0, 8))
        flip = rng.random() < 0.5
        for _ in range(12):
            cx, cy = rng.uniform(0.04, 0.96) * width, rng.uniform(0.05, 0.8) * height
            box_w = (box[3] - box[1]) * scale
            new = np.array([cy - size / 2, cx - box_w / 2, cy + size / 2, cx + box_w / 2])
            inside = (new[:2] > -0.1 * size).all() and new[2] < height and new[3] < width + 0.1 * size
            if inside and all(_share(new, b) < 0.1 for b in boxes):
                break
        else:
            continue
        paste(canvas, pixels, alpha, box, (cx, cy), scale, angle, flip, rng)
        boxes.append(new)
    out = canvas.clip(0, 255).astype(np.uint8)
    if grey:
        out = np.repeat(np.asarray(Image.fromarray(out).convert("L"))[..., None], 3, 2)
    if rng.random() < 0.25:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.2))
    found = np.array(boxes).reshape(-1, 4) / [height, width, height, width]
    return encoded(f"mounted/{index}.jpg", out, found, int(rng.integers(60, 95)))


def _share(a: np.ndarray, b: np.ndarray) -> float:
    """The part of the smaller box that is inside the other."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    return float(np.prod(np.maximum(high - low, 0)) / min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])))


def paste(canvas, pixels, alpha, box, centre, scale, angle, flip, rng) -> None:
    """Paste a head on the canvas, turned and scaled, with another exposure."""
    cy, cx = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    turn = cv2.getRotationMatrix2D((cx, cy), angle, scale)
    if flip:
        turn[0] *= -1
        turn[0, 2] += 2 * cx
    turn[:, 2] += np.array(centre) - [cx, cy]
    if scale < 0.7:  # avoid aliasing
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.4 / scale)
        alpha = cv2.GaussianBlur(alpha, (0, 0), 0.3 / scale)
    size = canvas.shape[1::-1]
    warped = cv2.warpAffine(pixels, turn, size, flags=cv2.INTER_LINEAR).astype(np.float32)
    mask = cv2.warpAffine(alpha, turn, size, flags=cv2.INTER_LINEAR)[..., None]
    gamma, gain = np.exp(rng.normal(0, 0.2)), np.exp(rng.normal(0, 0.15))
    warped = 255 * gain * (warped / 255) ** gamma
    canvas *= 1 - mask
    canvas += warped * mask


def part_of(pixels: np.ndarray, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A random part of a picture, resized; grey pictures are usually coloured."""
    share = rng.uniform(0.5, 1.0)
    scale = min(pixels.shape[0] / height, pixels.shape[1] / width) * share
    h, w = max(1, int(height * scale)), max(1, int(width * scale))
    y, x = int(rng.integers(pixels.shape[0] - h + 1)), int(rng.integers(pixels.shape[1] - w + 1))
    crop = cv2.resize(pixels[y : y + h, x : x + w], (width, height), interpolation=cv2.INTER_LINEAR)
    if (crop[..., 0] == crop[..., 2]).mean() > 0.9 and rng.random() < 0.7:
        crop = tint(crop, np.zeros((0, 4)), rng)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def shrunk(pixels: np.ndarray) -> np.ndarray:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_PX, LONGEST_PX), Image.Resampling.LANCZOS)
    return np.asarray(image)


def encoded(name: str, pixels: np.ndarray, boxes: np.ndarray | None = None, quality: int = 90) -> Sample:
    boxes = np.zeros((0, 4)) if boxes is None else np.clip(boxes, 0, 1)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return Sample(
        out.getvalue(), name, pixels.shape[0], pixels.shape[1], boxes, (teacher.FACE,) * len(boxes), where=name
    )


if __name__ == "__main__":
    main()
