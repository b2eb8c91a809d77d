"""The memory planner: where in the arena every tensor and scratch lies while the ops run one after another.

The rules are those that reproduce every number of the known files (docs/bonnet-format.md, memory plan).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mirilla.bonnet.format import ARENA_BYTES, POST_PAD, Model, Op, Plan
from mirilla.bonnet.shapes import Dims, Map, constant_dims, infer, input_map
from mirilla.findings import ERROR, Finding, RuleError, breach

ALIGNMENT = 8
SCRATCH_LIMIT = 262144  # proven for 1x1 convolutions, taken over for larger kernels


@dataclass(frozen=True)
class Block:
    """Something in the arena: a tensor (or an op's scratch), where, and its size without rounding."""

    name: str
    address: int
    bytes: int

    @property
    def end(self) -> int:
        """The address after it, rounded up to the alignment."""
        return self.address + rounded(self.bytes)


class ArenaOverflow(RuleError):
    """A tensor finds no gap in the arena.

    Attributes:
        index, op: the op that needs it.
        name, needed: the tensor or scratch that found no place, and its bytes.
        alive: what lies in the arena then, by address.
        gap: the largest free interval.
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
                    f"{beside} "
                    f"({total} in all); the rule is {ARENA_BYTES} bytes together, and the largest gap is {gap}.",
                    "Make that layer smaller: fewer channels there, a smaller input, or a stride earlier.",
                    op=op.kind,
                )
            ]
        )


def rounded(size: int) -> int:
    """The size a block takes for placement."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def gaps(blocks: Sequence[Block], arena: int = ARENA_BYTES) -> list[tuple[int, int]]:
    """Maximal free intervals (start, end) of the arena, by address."""
    found, at = [], 0
    for block in sorted(blocks, key=lambda one: one.address):
        if block.address > at:
            found.append((at, block.address))
        at = max(at, block.end)
    if at < arena:
        found.append((at, arena))
    return found


def place(size: int, blocks: Sequence[Block], arena: int = ARENA_BYTES) -> int | None:
    """An address for `size` bytes: the bottom if it fits there, else the top, else the smallest fitting gap.

    None when there is no such gap.
    """
    size = rounded(size)
    free = gaps(blocks, arena)
    if free and free[0][0] == 0 and free[0][1] >= size:
        return 0
    if free and free[-1][1] == arena and free[-1][1] - free[-1][0] >= size:
        return arena - size
    fitting = [(end - start, start) for start, end in free if end - start >= size]
    return min(fitting)[1] if fitting else None


def is_planar(op: Op, x: Map) -> bool:
    """Whether a convolution runs on the planar kernel: when its input is planar."""
    return op.kind in ("Conv", "DepthwiseConv") and x.planar


def in_place(op: Op, x: Map) -> bool:
    """Whether the output takes over the first input's memory."""
    return op.kind == "Relu6" or (op.kind == "DepthwiseConv" and is_planar(op, x))


def scratch_bytes(op: Op, x: Map, y: Map, dims: Dims) -> int | None:
    """Working memory of an op besides its output; None when it has none."""
    if op.kind not in ("Conv", "DepthwiseConv"):
        return None
    out, kh, kw, depth = dims[op.inputs[1]]
    if is_planar(op, x):
        return 4 * (x.rows + 2 * x.border) * (x.cols + 2 * x.border)  # two planes
    if op.kind == "DepthwiseConv":
        return 2 * kh * kw * depth
    window = kh * kw * depth
    columns = 0 if (kh, kw) == (1, 1) else y.cols
    return min(2 * window * (out + columns), SCRATCH_LIMIT)


def plan_ops(
    ops: Sequence[Op], dims: Dims, input_name: str, source: Map, outputs: Sequence[str], arena: int = ARENA_BYTES
) -> tuple[Op, ...]:
    """Give every op its memory plan.

    Args:
        ops: in execution order; of an existing plan only the fused post-operation is read.
        dims: {constant: dims}.
        input_name, source: the graph's input.
        outputs: the graph's outputs, which are never freed.
        arena: its size in bytes.

    Raises:
        ArenaOverflow: a tensor or scratch finds no place.
        RuleError: an op that does not fit its inputs.
    """
    maps = infer(tuple(ops), dims, input_name, source)
    last = {name: index for index, op in enumerate(ops) for name in op.inputs}
    blocks: dict[str, Block] = {}

    def put(index: int, op: Op, name: str, size: int) -> Block:
        address = place(size, list(blocks.values()), arena)
        if address is None:
            free = gaps(list(blocks.values()), arena)
            alive = sorted(blocks.values(), key=lambda block: block.address)
            raise ArenaOverflow(
                index, op, Block(name, 0, size), alive, max((end - start for start, end in free), default=0)
            )
        blocks[name] = Block(name, address, size)
        return blocks[name]

    put(0, ops[0], input_name, source.bytes)
    planned = []
    for index, op in enumerate(ops):
        x, y, name = maps[op.inputs[0]], maps[op.output or ""], op.output or ""
        taken = in_place(op, x)
        if taken:
            if last[op.inputs[0]] != index or op.inputs[0] in outputs:
                raise breach(
                    "in-place",
                    name,
                    f"Op {index} '{name}' ({op.kind}) works in place on '{op.inputs[0]}', which is needed afterwards.",
                    "Let nothing else read what such an op reads.",
                    op=op.kind,
                )
            output = replace(blocks.pop(op.inputs[0]), name=name)
            blocks[name] = output
        else:
            output = put(index, op, name, y.bytes)
        scratch = None
        size = scratch_bytes(op, x, y, dims)
        if size is not None:
            scratch = put(index, op, f"scratch of {name}", size)
        in_use = sum(block.bytes for block in blocks.values())
        planned.append(replace(op, plan=_plan(op, x, taken, output, scratch, in_use)))
        if scratch is not None:
            del blocks[scratch.name]
        for read in dict.fromkeys(op.inputs):
            if last.get(read) == index and read not in outputs:
                blocks.pop(read, None)
    return tuple(planned)


def _plan(op: Op, x: Map, taken: bool, output: Block, scratch: Block | None, in_use: int) -> Plan:
    """The plan message with the fields that ops of this type carry."""
    convolution = op.kind in ("Conv", "DepthwiseConv")
    layout = convolution or op.kind in ("PadMyriad", "ReorderBrcdToBdrcMyriad", "ReorderBdrcToBrcdMyriad")
    post = op.plan.post if op.plan is not None else None
    return Plan(
        address=output.address,
        scratch_address=None if scratch is None else scratch.address,
        scratch_bytes=None if scratch is None else scratch.bytes,
        output_bytes=output.bytes,
        planar=int(is_planar(op, x)) if convolution else None,
        input_planar=int(x.planar) if layout else None,
        in_place=int(taken),
        post=POST_PAD if op.kind == "ReorderBrcdToBdrcMyriad" else post,
        field13=0 if op.kind == "Conv" and x.planar else None,
        in_use=in_use,
    )


def replan(model: Model, size: tuple[int, int] | None = None) -> Model:
    """The same model with its whole memory plan computed afresh.

    Args:
        size: rows and columns of the input; told from the first op's plan when None.

    Raises:
        ArenaOverflow, RuleError: see `plan_ops` and `shapes.input_map`.
    """
    arena = (model.arena.bytes if model.arena else None) or ARENA_BYTES
    ops = plan_ops(model.ops, constant_dims(model), model.input or "", input_map(model, size), model.outputs, arena)
    return replace(model, ops=ops)


@dataclass(frozen=True)
class Lifetime:
    """A block of the arena while ops first..last (both included) run."""

    block: Block
    first: int
    last: int
    kind: str  # 'input', 'tensor', 'output' or 'scratch'


def lifetimes(model: Model, size: tuple[int, int] | None = None) -> list[Lifetime]:
    """What lies where and when, as the file's own plan says; ops without a plan are left out.

    Raises:
        RuleError: shapes that cannot be told.
    """
    maps = infer(model.ops, constant_dims(model), model.input or "", input_map(model, size))
    end = len(model.ops) - 1
    last = {name: index for index, op in enumerate(model.ops) for name in op.inputs}
    last.update(dict.fromkeys(model.outputs, end))
    for index, op in enumerate(model.ops):
        if op.plan is not None and op.plan.in_place:  # from here on the memory is the output's
            last[op.inputs[0]] = index - 1
    name = model.input or ""
    found = [Lifetime(Block(name, 0, maps[name].bytes), 0, last.get(name, end), "input")]
    for index, op in enumerate(model.ops):
        name, plan = op.output or "", op.plan
        if plan is None or plan.address is None:
            continue
        kind = "output" if name in model.outputs else "tensor"
        size_bytes = maps[name].bytes if plan.output_bytes is None else plan.output_bytes
        found.append(Lifetime(Block(name, plan.address, size_bytes), index, last.get(name, index), kind))
        if plan.scratch_address is not None:
            found.append(
                Lifetime(
                    Block(f"scratch of {name}", plan.scratch_address, plan.scratch_bytes or 0), index, index, "scratch"
                )
            )
    return found
