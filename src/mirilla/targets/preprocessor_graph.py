"""The first part of the frozen graph: read the pictures, resize and normalise them.

    image_tensor (N, H, W, 3) uint8 RGB
    encoded_image_string_tensor (N,)     JPEG or PNG files, or
    tf_example (N,)                      serialised tf.train.Examples with a file in 'image/encoded'
      -> Preprocessor/sub (N, height, width, 3), (2 / 255) x - 1

Placeholders have the names of the API's exporter. `image_tensor` is the batch of pixels in every graph. The pictures of
a batch must have one size after decoding. DecodeJpeg decodes PNG too; unlike DecodeImage, it is an op that TensorFlow
1.4 knew.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirilla.errors import UsageError
from mirilla.model.spec import INPUT_OFFSET, INPUT_SCALE, ModelSpec
from mirilla.targets.graph_builder import FLOAT, INT32, STRING, UINT8, GraphBuilder, Shape

NORMALISED = "Preprocessor/sub"
PIXELS, ENCODED, EXAMPLE = "image_tensor", "encoded_image_string_tensor", "tf_example"
INPUT_TYPES = (PIXELS, ENCODED, EXAMPLE)
SCALE, OFFSET = INPUT_SCALE, -INPUT_OFFSET  # Preprocessor/mul and Preprocessor/sub


@dataclass(frozen=True)
class InputType:
    """What a graph takes.

    name: of INPUT_TYPES; also the placeholder's name.
    shape: (N, H, W, 3) of image_tensor; None is any size.
    """

    name: str = PIXELS
    shape: tuple[int | None, ...] = (None, None, None, 3)


IMAGE_TENSOR = InputType()


def input_type(name: str, shape: str | None = None) -> InputType:
    """The input type that a command line describes.

    Args:
        name: of INPUT_TYPES.
        shape: '1,-1,-1,3', four numbers of which -1 or None is any size; only for image_tensor.

    Raises:
        UsageError: an unknown name, or a shape that is not one.
    """
    if name not in INPUT_TYPES:
        raise UsageError(f"Unknown input type '{name}'.", f"Choose from: {', '.join(INPUT_TYPES)}.")
    if shape is None:
        return InputType(name)
    if name != PIXELS:
        raise UsageError(f"--input_shape: only {PIXELS} has a shape, {name} has not.", "Remove --input_shape.")
    remedy = "Give batch, height, width and 3, such as 1,-1,-1,3, where -1 is any size."
    try:
        sides = [int(side) for side in shape.replace("None", "-1").split(",")]
    except ValueError:
        raise UsageError(f"--input_shape {shape}: not a list of numbers.", remedy) from None
    if len(sides) != 4 or sides[3] not in (3, -1) or not all(side == -1 or side > 0 for side in sides):
        raise UsageError(f"--input_shape {shape}: not the shape of a batch of RGB pictures.", remedy)
    return InputType(name, (*(None if side == -1 else side for side in sides[:3]), 3))


def add_preprocessor(g: GraphBuilder, spec: ModelSpec, source: InputType) -> str:
    """Read, resize and normalise each picture; returns the tensor (N, 3) of the sizes before padding."""
    pixels = g.op("Cast", _add_source(g, source), SrcT=UINT8, DstT=FLOAT)
    size = (spec.height_px, spec.width_px, 3)
    body = _letterboxed if spec.keep_aspect_ratio else _squashed
    with g.scope("Preprocessor"):
        images, true_shapes = g.map_over(
            [(pixels, FLOAT)], lambda elements: body(g, spec, elements[0]), [(FLOAT, size), (INT32, (3,))]
        )
        scaled = g.op("Mul", g.const(SCALE, "mul/x"), images, name="mul", T=FLOAT)
        g.op("Sub", scaled, g.const(OFFSET, "sub/y"), name="sub", T=FLOAT)
    return true_shapes


def _add_source(g: GraphBuilder, source: InputType) -> str:
    """Add the placeholder; returns the pictures (N, H, W, 3) uint8."""
    if source.name == PIXELS:
        return g.placeholder(PIXELS, source.shape, UINT8)
    files = g.placeholder(source.name, (None,), STRING)
    if source.name == EXAMPLE:
        files = _encoded_images(g, files)
    (pictures,) = g.map_over(
        [(files, STRING)],
        lambda elements: [g.op("DecodeJpeg", elements[0], channels=3)],
        [(UINT8, (None, None, 3))],
    )
    return g.op("Identity", pictures, name=PIXELS, T=UINT8)


def _encoded_images(g: GraphBuilder, examples: str) -> str:
    """The files (N,) in the examples (N,). An example without one is an error."""
    with g.scope("ParseExample"):
        return g.op(
            "ParseExample",
            examples,
            g.strings([], "names"),
            g.strings(b"image/encoded", "dense_keys_0"),
            g.strings([], "required"),
            Nsparse=0,
            Ndense=1,
            sparse_types=[],
            Tdense=[STRING],
            dense_shapes=[Shape(())],
        )


def _squashed(g: GraphBuilder, spec: ModelSpec, image: str) -> list[str]:
    with g.scope("ResizeImage"):
        size = g.const([spec.height_px, spec.width_px], "stack")
        resized = _resize(g, image, size)
        return [resized, g.const([spec.height_px, spec.width_px, 3], "stack_1")]


def _letterboxed(g: GraphBuilder, spec: ModelSpec, image: str) -> list[str]:
    """The largest copy that fits, at the top left; the rest is zero (black)."""
    height, width = spec.height_px, spec.width_px
    with g.scope("ResizeToRange"):
        shape = g.op("Shape", image, T=FLOAT, out_type=INT32)
        sides = g.first_of_shape(shape), g.first_of_shape(shape, 1)
        taller = g.op(
            "GreaterEqual",
            g.op("Mul", sides[0], g.const(width, "width"), T=INT32),
            g.op("Mul", sides[1], g.const(height, "height"), T=INT32),
            T=INT32,
        )
        rows, columns = (g.op("Cast", side, SrcT=INT32, DstT=FLOAT) for side in sides)
        by_height = [g.const(float(height), "full_height"), _scaled_side(g, columns, height, rows)]
        by_width = [_scaled_side(g, rows, width, columns), g.const(float(width), "full_width")]
        both = [g.op("Pack", *pair, name="stack", N=2, T=FLOAT, axis=0) for pair in (by_height, by_width)]
        size = g.op("Cast", g.op("Select", taller, *both, T=FLOAT), SrcT=FLOAT, DstT=INT32)
        resized = _resize(g, image, size)
        rest = g.op("Sub", g.const([height, width], "input_size"), size, T=INT32)
        after = g.op("ConcatV2", rest, g.const([0], "no_channels"), g.const(0, "axis"), N=2, T=INT32, Tidx=INT32)
        paddings = g.op("Pack", g.const([0, 0, 0], "before"), after, name="paddings", N=2, T=INT32, axis=1)
        padded = g.op("Pad", resized, paddings, T=FLOAT, Tpaddings=INT32)
        true_shape = g.op("ConcatV2", size, g.const([3], "channels"), g.const(0, "axis"), N=2, T=INT32, Tidx=INT32)
    return [padded, true_shape]


def _scaled_side(g: GraphBuilder, side: str, input_side_px: int, other: str) -> str:
    """max(1, round(side * input_side / other)), the product first, so that exact halves stay exact."""
    product = g.op("Mul", side, g.const(float(input_side_px), "input_side"), T=FLOAT)
    rounded = g.op("Round", g.op("RealDiv", product, other, T=FLOAT), T=FLOAT)
    return g.op("Maximum", rounded, g.const(1.0, "one"), T=FLOAT)


def _resize(g: GraphBuilder, image: str, size: str) -> str:
    """TensorFlow's legacy bilinear resize, as in `mirilla.resize`."""
    with g.scope("resize"):
        batch = g.op("ExpandDims", image, g.const(0, "ExpandDims/dim"), T=FLOAT, Tdim=INT32)
        resized = g.op("ResizeBilinear", batch, size, T=FLOAT, align_corners=False)
        return g.op("Squeeze", resized, T=FLOAT, squeeze_dims=[0])
