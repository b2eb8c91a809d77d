"""The memory planner: an arena address for every tensor and scratch buffer, as the ops run one after another.

The rules are those that reproduce every number of the known files (docs/bonnet-format.md, Memory).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mirilla.bonnet.format import ARENA_BYTES, IN_DDR, Model, Op, Plan
from mirilla.bonnet.shapes import ConstantDims, FeatureMap, constant_dims, infer, input_map
from mirilla.findings import ERROR, Finding, RuleError, breach

ALIGNMENT = 8
MAX_SCRATCH_BYTES = 262144  # of a 1x1 convolution; larger kernels have no limit
DDR_SCRATCH_BYTES = 512000  # of a reorder whose output lies outside the arena
_CONVOLUTIONS = ("Conv", "DepthwiseConv")
_RELUS = ("Relu", "Relu6")
_PLAIN_LAYOUT_OPS = ("PadMyriad", "ReorderBrcdToBdrcMyriad", "ReorderBdrcToBrcdMyriad")
_LAYOUT_OPS = (*_PLAIN_LAYOUT_OPS, *(f"{kind}2" for kind in _PLAIN_LAYOUT_OPS), "CropMyriad", "Move")


@dataclass(frozen=True)
class Block:
    """A tensor or scratch buffer in the arena: its name, address and size in bytes, not rounded."""

    name: str
    address: int
    bytes: int

    @property
    def end(self) -> int:
        """The address after it, rounded up to the alignment."""
        return self.address + rounded(self.bytes)


class ArenaOverflow(RuleError):
    """A tensor or scratch buffer does not fit into the arena.

    Attributes:
        index, op: the op that needs it.
        name, needed: the tensor or scratch buffer, and its bytes.
        alive: the live blocks, by address.
        gap: the largest free interval in bytes.
    """

    def __init__(self, index: int, op: Op, needed: Block, alive: Sequence[Block], gap: int):
        self.index, self.op, self.name, self.needed = index, op, needed.name, needed.bytes
        self.alive, self.gap = tuple(alive), gap
        beside = ", ".join(f"'{block.name}' {block.bytes}" for block in alive)
        total = needed.bytes + sum(block.bytes for block in alive)
        super().__init__(
            [
                Finding(
                    ERROR,
                    "arena-overflow",
                    op.output or "",
                    f"Op {index} '{op.output}' ({op.kind}) needs {needed.bytes} bytes for '{needed.name}' beside "
                    f"{beside} ({total} in all); the rule is {ARENA_BYTES} bytes together, and the largest gap is "
                    f"{gap}.",
                    "Make that layer smaller: fewer channels there, a smaller input, or a stride earlier.",
                    op=op.kind,
                )
            ]
        )


def rounded(size: int) -> int:
    """The bytes that a block of `size` bytes occupies."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def gaps(blocks: Sequence[Block], arena: int = ARENA_BYTES) -> list[tuple[int, int]]:
    """Maximal free intervals (start, end) of the arena, by address."""
    free, at = [], 0
    for block in sorted(blocks, key=lambda block: block.address):
        if block.address > at:
            free.append((at, block.address))
        at = max(at, block.end)
    if at < arena:
        free.append((at, arena))
    return free


def place(size: int, blocks: Sequence[Block], arena: int = ARENA_BYTES) -> int | None:
    """An address for `size` bytes: the bottom if it fits there, else the top, else the smallest gap that fits.

    None if it fits nowhere.
    """
    size = rounded(size)
    free = gaps(blocks, arena)
    if free and free[0][0] == 0 and free[0][1] >= size:
        return 0
    if free and free[-1][1] == arena and free[-1][1] - free[-1][0] >= size:
        return arena - size
    fitting = [(end - start, start) for start, end in free if end - start >= size]
    return min(fitting)[1] if fitting else None


def is_planar(op: Op, x: FeatureMap) -> bool:
    """Whether a convolution runs on the planar kernel: it does if its input is planar."""
    return op.kind in _CONVOLUTIONS and x.planar


def in_place(op: Op, x: FeatureMap) -> bool:
    """Whether the output takes over the first input's memory."""
    return op.kind in _RELUS or (op.kind == "DepthwiseConv" and is_planar(op, x))


def in_ddr(op: Op) -> bool:
    """Whether the output lies outside the arena, from where a Move brings it back."""
    return (op.output or "").endswith(IN_DDR)


def scratch_bytes(op: Op, x: FeatureMap, y: FeatureMap, dims: ConstantDims) -> int | None:
    """Working memory of an op besides its output; None if it needs none."""
    if in_ddr(op):
        return DDR_SCRATCH_BYTES
    if op.kind not in _CONVOLUTIONS:
        return None
    out, kh, kw, depth = dims[op.inputs[1]]
    if is_planar(op, x):
        return 4 * x.plane_elements  # two planes
    if op.kind == "DepthwiseConv":
        return 2 * kh * kw * depth
    if (kh, kw) == (1, 1):
        return min(2 * depth * out, MAX_SCRATCH_BYTES)
    return 2 * kh * kw * depth * (out + y.cols)


class _Arena:
    """The live blocks while the planner steps through the ops."""

    def __init__(self, size: int):
        self.size = size
        self.blocks: dict[str, Block] = {}

    def allocate(self, index: int, op: Op, name: str, size: int) -> Block:
        blocks = list(self.blocks.values())
        address = place(size, blocks, self.size)
        if address is None:
            largest = max((end - start for start, end in gaps(blocks, self.size)), default=0)
            alive = sorted(blocks, key=lambda block: block.address)
            raise ArenaOverflow(index, op, Block(name, 0, size), alive, largest)
        self.blocks[name] = Block(name, address, size)
        return self.blocks[name]

    def rename(self, name: str, to: str) -> Block:
        """Hand the memory of the tensor `name` to the tensor `to`."""
        self.blocks[to] = replace(self.blocks.pop(name), name=to)
        return self.blocks[to]

    def free(self, name: str) -> None:
        self.blocks.pop(name, None)

    @property
    def in_use(self) -> int:
        return sum(block.bytes for block in self.blocks.values())


def plan_ops(
    ops: Sequence[Op],
    dims: ConstantDims,
    input_name: str,
    source: FeatureMap,
    outputs: Sequence[str],
    arena_bytes: int = ARENA_BYTES,
) -> tuple[Op, ...]:
    """The ops with their memory plans.

    Args:
        ops: in execution order; of an existing plan only the fused post-operation is used.
        dims: {constant: dims}.
        input_name, source: the graph's input.
        outputs: the graph's outputs, which are never freed.
        arena_bytes: size of the arena.

    Raises:
        ArenaOverflow: a tensor or scratch buffer does not fit.
        RuleError: an op does not fit its inputs.
    """
    maps = infer(ops, dims, input_name, source)
    last_use = {name: index for index, op in enumerate(ops) for name in op.inputs}
    arena = _Arena(arena_bytes)
    arena.allocate(0, ops[0], input_name, source.bytes)
    planned = []
    for index, op in enumerate(ops):
        first, name = op.inputs[0], op.output or ""
        x, y = maps[first], maps[name]
        if in_place(op, x):
            if last_use[first] != index or first in outputs:
                raise _overwritten(index, op)
            output = arena.rename(first, name)
        elif in_ddr(op):
            output = Block(name, 0, 2**64 - y.bytes)
        else:
            output = arena.allocate(index, op, name, y.bytes)
        size = scratch_bytes(op, x, y, dims)
        scratch = None if size is None else arena.allocate(index, op, f"scratch of {name}", size)
        planned.append(replace(op, plan=_plan(op, x, output, scratch, arena.in_use)))
        if scratch is not None:
            arena.free(scratch.name)
        for tensor in op.inputs:
            if last_use[tensor] == index and tensor not in outputs:
                arena.free(tensor)
    return tuple(planned)


def _overwritten(index: int, op: Op) -> RuleError:
    return breach(
        "in-place",
        op.output or "",
        f"Op {index} '{op.output}' ({op.kind}) works in place on '{op.inputs[0]}', which is read again later.",
        "Make this op the only reader of its input.",
        op=op.kind,
    )


def _plan(op: Op, x: FeatureMap, output: Block, scratch: Block | None, in_use: int) -> Plan:
    """The plan message with the fields that ops of this type carry."""
    convolution = op.kind in _CONVOLUTIONS
    return Plan(
        address=output.address,
        scratch_address=None if scratch is None else scratch.address,
        scratch_bytes=None if scratch is None else scratch.bytes,
        output_bytes=output.bytes,
        planar=int(is_planar(op, x)) if convolution else None,
        input_planar=int(x.planar or op.kind == "Move") if convolution or op.kind in _LAYOUT_OPS else None,
        in_place=int(in_place(op, x)),
        post=op.plan.post if op.plan is not None else None,
        field13=0 if op.kind == "Conv" and x.planar and not x.border else None,
        in_use=in_use,
    )


def replan(model: Model, size: tuple[int, int] | None = None) -> Model:
    """The same model with its whole memory plan computed again.

    Args:
        size: rows and columns of the input; inferred from the first op's plan if None.

    Raises:
        ArenaOverflow, RuleError: see `plan_ops` and `shapes.input_map`.
    """
    arena = (model.arena.bytes if model.arena else None) or ARENA_BYTES
    ops = plan_ops(model.ops, constant_dims(model), model.input or "", input_map(model, size), model.outputs, arena)
    return replace(model, ops=ops)


@dataclass(frozen=True)
class LiveRange:
    """A block of the arena that is live while ops first..last (both included) run."""

    block: Block
    first: int
    last: int
    kind: str  # 'input', 'tensor', 'output' or 'scratch'


def live_ranges(model: Model, size: tuple[int, int] | None = None) -> list[LiveRange]:
    """All blocks and their live ranges according to the file's own plan; ops without a plan are left out.

    Raises:
        RuleError: the shapes cannot be inferred.
    """
    name = model.input or ""
    maps = infer(model.ops, constant_dims(model), name, input_map(model, size))
    last_use = _last_uses(model)
    ranges = [LiveRange(Block(name, 0, maps[name].bytes), 0, last_use.get(name, len(model.ops) - 1), "input")]
    for index, op in enumerate(model.ops):
        ranges += _live_ranges_of(index, op, maps, last_use, model.outputs)
    return ranges


def _last_uses(model: Model) -> dict[str, int]:
    """{tensor: index of the last op during which its memory holds it}."""
    last_use = {name: index for index, op in enumerate(model.ops) for name in op.inputs}
    last_use.update(dict.fromkeys(model.outputs, len(model.ops) - 1))
    for index, op in enumerate(model.ops):
        if op.plan is not None and op.plan.in_place:  # from here on, the output owns the memory
            last_use[op.inputs[0]] = index - 1
    return last_use


def _live_ranges_of(
    index: int, op: Op, maps: dict[str, FeatureMap], last_use: dict[str, int], outputs: Sequence[str]
) -> Iterator[LiveRange]:
    """The live ranges of an op's output and scratch."""
    name, plan = op.output or "", op.plan
    if plan is None or plan.address is None:
        return
    if in_ddr(op):
        if plan.scratch_address is not None:
            yield LiveRange(
                Block(f"scratch of {name}", plan.scratch_address, plan.scratch_bytes or 0), index, index, "scratch"
            )
        return
    kind = "output" if name in outputs else "tensor"
    size = maps[name].bytes if plan.output_bytes is None else plan.output_bytes
    yield LiveRange(Block(name, plan.address, size), index, last_use.get(name, index), kind)
    if plan.scratch_address is not None:
        scratch = Block(f"scratch of {name}", plan.scratch_address, plan.scratch_bytes or 0)
        yield LiveRange(scratch, index, index, "scratch")
