"""Data-parallel training: several processes, started by torchrun, train one network.

Each process makes its shard of every batch. Batch-norm statistics, the losses' normaliser and the gradient are summed
over all processes, so the losses equal those of a single process. Only rank 0, the main process, writes files and
prints.
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

TIMEOUT = datetime.timedelta(hours=2)  # the other processes wait while the main process reads the records
TURNS = 3  # number of turns in `Group.main_process_first`


@dataclass(frozen=True)
class Group:
    """The process group, as seen by one process. With a single process no method communicates."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def all_reduce_(self, tensor: Tensor) -> Tensor:
        """Replace the tensor by its sum over all processes, and return it."""
        if self.size > 1:
            with _explaining_failures():
                torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is true in any process."""
        if self.size == 1:
            return flag
        return bool(self.all_reduce_(torch.tensor(float(flag), device=device)) > 0)

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor by the main process's."""
        if self.size > 1:
            with _explaining_failures():
                for tensor in tensors:
                    torch.distributed.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.size > 1:
            with _explaining_failures():
                torch.distributed.barrier()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in turns: the main process, the first process of each other machine, the rest.

        Later processes find the files that earlier ones have written. If an earlier one fails, all stop.
        """
        turn = 0 if self.is_main else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.barrier()
        yield
        for _ in range(TURNS - 1 - turn):
            self.barrier()

    def shard(self, batch_size: int) -> slice:
        """The range of each batch's examples that this process makes.

        Raises:
            UsageError: there are more processes than examples.
        """
        if batch_size < self.size:
            raise UsageError(
                f"train_config.batch_size is {batch_size}, too few for {self.size} processes.",
                "Start fewer processes, or raise batch_size, which is the total over all processes.",
            )
        return slice(batch_size * self.rank // self.size, batch_size * (self.rank + 1) // self.size)


SINGLE_PROCESS = Group()


@contextmanager
def process_group(device_name: str) -> Iterator[Group]:
    """The group that torchrun's environment variables describe; a single process if they are not set.

    Args:
        device_name: the device of this process. CUDA devices communicate through NCCL, others through Gloo.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield SINGLE_PROCESS
        return
    group = Group(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    cuda = device_name.startswith("cuda")
    if cuda:
        torch.cuda.set_device(torch.device(device_name))
    with _explaining_failures():
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", timeout=TIMEOUT, store=_store(size), rank=group.rank, world_size=size
        )
    try:
        yield group
    finally:
        torch.distributed.destroy_process_group()


def _store(size: int):
    """The key-value store through which the processes connect, with a key prefix for every restart.

    torchrun keeps one store over all restarts. Without the prefix a restarted process would find the addresses of
    processes that have ended.
    """
    from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

    agents = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, size, not agents and os.environ["RANK"] == "0", timeout=TIMEOUT)
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"mirilla/{restart}/{size}", store)


def device_of_rank(name: str) -> str:
    """The name of this process's device: if several processes share a machine, each takes its own GPU."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        return name
    if name in ("", "auto"):
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if name == "cuda" else name


@contextmanager
def _explaining_failures() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0].partition(". ")[0].encode("ascii", "ignore").decode()
        raise TrainingError(
            f"Another training process does not respond ({reason}).",
            "See its own message for the reason. 'torchrun --max-restarts N' restarts all of them from the last "
            "checkpoint.",
        ) from error
