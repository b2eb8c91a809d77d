"""Picture files as a source of frames."""

import collections
import io
import math
import os
from collections.abc import Callable

from .bonnet import Bonnet, Frame
from .errors import KitError, explain
from .model import Classifier, Model

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
MAX_JPEG_BYTES = 6 << 20  # larger ones overload the driver's buffer
FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 40000000  # of a picture; the kit has 512 MB
MAX_SIDE_PX = 1640  # of pictures that are sent as pixels

# Pillow's transpositions (Image.FLIP_LEFT_RIGHT is 0) that undo an EXIF orientation.
TRANSPOSITIONS = {2: (0,), 3: (3,), 4: (1,), 5: (0, 2), 6: (4,), 7: (0, 4), 8: (2,)}

# content: JPEG bytes or a Pillow image, as sent to the bonnet. scale_yx: the part of the network's input that the
# picture covers. size_px: (height, width), None if it is not known.
Picture = collections.namedtuple("Picture", "content scale_yx size_px")


class Pictures:
    """The pictures of a file or folder, by name, repeatedly unless `once`."""

    def __init__(self, source: str, model: "Model | Classifier", once: bool, log: "Callable[[str], None]"):
        self._source, self._model, self._once, self._log = source, model, once, log
        self._paths = find_pictures(source)
        self._next = 0
        self._failed = -1  # the picture of the last fault

    @property
    def ends(self) -> bool:
        """Whether every picture has been read."""
        return self._next >= len(self._paths)

    def open(self) -> None:
        pass

    def start(self, bonnet: Bonnet) -> None:
        pass

    def read(self, bonnet: Bonnet, live: "Callable[[bytes], None] | None") -> "Frame | None":
        """The next frame; None for a file that is not a picture, and after the last one with `once`.

        Args:
            live: receives the picture as JPEG, unless it is None.
        """
        if self.ends:
            if self._once:
                return None
            self._next = 0
        path = self._paths[self._next]
        try:
            picture = read_picture(path, self._model.letterbox, self._model.height, self._model.width)
        except (OSError, ValueError) as error:
            self._log("%s: %s; skipped" % (path, explain(error)))
            self._paths = [other for other in self._paths if other != path]
            if not self._paths:
                raise KitError("No picture of %s can be read." % self._source)
            return None
        frame = bonnet.image_frame(picture.content, picture.scale_yx)
        self._next += 1
        if live is not None:
            live(to_jpeg(picture.content))
        height, width = picture.size_px or (frame.height, frame.width)
        return frame._replace(name=os.path.basename(path), height=height, width=width)

    def skip_after_fault(self, connected: bool) -> None:
        """Skip a picture that has failed twice in a row: the bonnet may not be able to read it."""
        if connected and self._next == self._failed:
            self._next += 1
        self._failed = self._next if connected else -1

    def jpeg(self, frame: Frame) -> bytes:
        """The frame's picture."""
        return to_jpeg(frame.picture)

    def close(self) -> None:
        pass


def find_pictures(source: str) -> "list[str]":
    """The paths of the pictures of --source FILE or FOLDER, by name."""
    if os.path.isdir(source):
        paths = [os.path.join(source, name) for name in sorted(os.listdir(source)) if name.lower().endswith(SUFFIXES)]
        if not paths:
            raise KitError("%s: no pictures in this folder. Give one with JPEG or PNG files." % source)
        return paths
    if not os.path.isfile(source):
        raise KitError("%s: no such file or folder. Give --source camera, a picture or a folder." % source)
    return [source]


def read_picture(path: str, letterbox: bool, height: int, width: int) -> Picture:
    """Read a picture for a network input of height x width pixels.

    Raises:
        ValueError: it is not a picture, or reading it needs Pillow, which is not installed.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        from PIL import Image
    except ImportError:
        if letterbox or not content.startswith(b"\xff\xd8"):
            raise ValueError("only JPEG can be read without Pillow (sudo apt-get install python3-pil)")
        return Picture(content, (1.0, 1.0), None)
    try:
        image = Image.open(io.BytesIO(content))
        if image.format not in FORMATS:  # Pillow would run Ghostscript for PostScript
            raise ValueError("%s is not read" % image.format)
        if image.size[0] * image.size[1] > MAX_PIXELS:
            raise ValueError("%d x %d pixels are too many" % image.size)
        orientation = _orientation(image)
        size = image.size
        if image.format == "JPEG" and orientation == 1 and not letterbox and len(content) <= MAX_JPEG_BYTES:
            return Picture(content, (1.0, 1.0), (size[1], size[0]))
        image = image.convert("RGB")
        for transposition in TRANSPOSITIONS.get(orientation, ()):
            image = image.transpose(transposition)
        size = image.size
        if max(size) > MAX_SIDE_PX:
            bilinear = Image.BILINEAR  # pyright: ignore[reportAttributeAccessIssue]: the kit's Pillow has this name only
            image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), bilinear)
    except Exception as error:  # Pillow raises many kinds of exceptions for broken files
        raise ValueError("cannot be read as a picture (%s)" % error)
    scale_yx = (1.0, 1.0)
    if letterbox:
        image, scale_yx = _letterboxed(image, height, width)
    return Picture(image, scale_yx, (size[1], size[0]))


def _letterboxed(image, height: int, width: int) -> "tuple[object, tuple[float, float]]":
    """The image at the top left of a black canvas with the network input's aspect ratio, and the part it covers.

    The bonnet resizes the canvas without regard to its aspect ratio, so that the image keeps its own.
    """
    from PIL import Image

    image_w, image_h = image.size
    canvas_w = max(image_w, math.ceil(image_h * width / height))
    canvas_h = max(image_h, math.ceil(image_w * height / width))
    canvas = Image.new("RGB", (canvas_w, canvas_h))
    canvas.paste(image, (0, 0))
    return canvas, (image_h / canvas_h, image_w / canvas_w)


def _orientation(image) -> int:
    """The EXIF orientation, 1 to 8; 1 is upright."""
    try:
        return int((image._getexif() or {}).get(0x0112, 1))
    except Exception:
        return 1


def to_jpeg(picture) -> bytes:
    """JPEG bytes of JPEG bytes or a Pillow image."""
    if isinstance(picture, (bytes, bytearray)):
        return bytes(picture)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
