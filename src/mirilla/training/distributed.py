"""Several processes that train one network together, as torchrun starts them.

Each makes its part of every batch; sums over all parts (of the batch norm, the losses' normaliser, the gradient) are
what a single process would have found, so the losses are, too. The first process, the leader, alone writes and speaks.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mirilla.errors import TrainingError, UsageError

TIMEOUT = datetime.timedelta(hours=2)  # the others wait while the leader reads the records
TURNS = 3  # the leader, the first process of each other machine, the rest


@dataclass(frozen=True)
class Group:
    """The processes, from one's point of view; alone, everything here does nothing."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """The tensor, replaced by the sum of everybody's."""
        if self.size > 1:
            with _together():
                torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is true for anybody."""
        if self.size == 1:
            return flag
        return bool(self.sum_(torch.tensor(float(flag), device=device)) > 0)

    def copy_leaders_(self, tensors: Iterable[Tensor]) -> None:
        """Every tensor, replaced by the leader's."""
        if self.size > 1:
            with _together():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            with _together():
                torch.distributed.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """What the leader does first, so that the others find its files, or end with it where it fails."""
        turn = 0 if self.leads else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        yield
        for _ in range(TURNS - 1 - turn):
            self.wait()

    def part(self, batch_size: int) -> slice:
        """The places of a batch that are this process's.

        Raises:
            UsageError: there are more processes than examples.
        """
        if batch_size < self.size:
            raise UsageError(
                f"train_config.batch_size is {batch_size}, too few for {self.size} processes.",
                "Start fewer processes, or raise batch_size: it counts the examples of all of them.",
            )
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)


ALONE = Group()


@contextmanager
def joined(device_name: str) -> Iterator[Group]:
    """The group that torchrun's variables in the environment speak of; without them, this process alone.

    Args:
        device_name: what this process trains on: 'cpu' makes the processes talk through gloo, others through NCCL.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    group = Group(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    cuda = device_name.startswith("cuda")
    if cuda:
        torch.cuda.set_device(torch.device(device_name))
    with _together():
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", timeout=TIMEOUT, store=_store(size), rank=group.rank, world_size=size
        )
    try:
        yield group
    finally:
        torch.distributed.destroy_process_group()


def _store(size: int) -> torch.distributed.Store:
    """Where the processes find each other, under keys of this start's own.

    torchrun keeps one store over all starts, and torch's own way to it finds the addresses of those who have ended.
    """
    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = torch.distributed.TCPStore(host, port, size, not agents and os.environ["RANK"] == "0", timeout=TIMEOUT)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return torch.distributed.PrefixStore(f"mirilla/{start}/{size}", store)


def own_device(name: str) -> str:
    """The device of this process: of several on a machine, each takes a GPU of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return name
    if name in ("", "auto"):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0].encode("ascii", "ignore").decode()
        raise TrainingError(
            f"Another process of this training does not answer ({reason}).",
            "Its own message says why. 'torchrun --max-restarts N' starts all of them again, from the last checkpoint.",
        ) from error
