"""The processes that train together ("ranks"): who they are, what they agree on, and what happens when one is lost.

A rank that meets a problem never leaves the others waiting: before each step that needs all of them, the ranks exchange
whether anybody has failed or was asked to stop, and all act alike. A rank that dies without a word closes its
connections; the others notice in the exchange they are in and stop with that reason.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from dwm_model.base_model import default_device
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

ResultT = TypeVar("ResultT")

LOST_RANK = "another process of this training ended without a word (killed, out of memory, or crashed)"
"""What the surviving ranks say when one is gone."""

MEETING_VARIABLE = "DWM_RANKS_MEET_AT"
"""Environment variable with the address where ranks of `dwm_model.launcher` meet; torchrun's own variables without."""

_SIGNS_OF_A_LOST_RANK = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "socket", "store")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: number of this process, from 0.
        count: processes in all.
        device: where this process computes.
    """

    rank: int
    count: int
    device: str

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def agree(self, *, stop: bool = False, error: DwmError | None = None) -> bool:
        """Exchange whether any rank was asked to stop or has failed; every rank calls it.

        Returns:
            Whether any rank was asked to stop.

        Raises:
            DwmError: any rank has failed: its own error there, the same reason on the others.
        """
        if self.count == 1:
            if error is not None:
                raise error
            return stop
        import torch
        from torch import distributed

        flags = torch.tensor([float(stop), float(error is not None)])
        distributed.all_reduce(flags, op=distributed.ReduceOp.MAX)
        if not flags[1]:
            return bool(flags[0])
        reasons = self.gather(None if error is None else str(error))
        if error is not None:
            raise error
        first = next(rank for rank, reason in enumerate(reasons) if reason is not None)
        raise DwmError(f"process {first}: {reasons[first]}")

    def all_do(self, function: Callable[[], ResultT]) -> ResultT:
        """Call ``function`` in every process, each for itself; every rank calls it.

        Raises:
            DwmError: it failed in any of them; all raise.
        """
        result, error = attempt(function)
        self.agree(error=error)
        return result  # type: ignore[return-value]  # `agree` raises where there is none

    def on_main(self, function: Callable[[], ResultT]) -> ResultT:
        """Call ``function`` in the main process and give its result to all; every rank calls it.

        Raises:
            DwmError: it failed; all ranks raise.
        """
        result, error = attempt(function) if self.is_main else (None, None)
        self.agree(error=error)
        if self.count > 1:
            from torch import distributed

            holder = [result]
            distributed.broadcast_object_list(holder, src=0)
            result = holder[0]
        return result  # type: ignore[return-value]  # the main process's result, on every rank

    def mean(self, value: float) -> float:
        """Mean over the ranks, which each hold a mean over equally many clips."""
        if self.count == 1:
            return value
        import torch
        from torch import distributed

        total = torch.tensor([value], dtype=torch.float64)
        distributed.all_reduce(total)
        return float(total) / self.count

    def gather(self, value: ResultT) -> list[ResultT]:
        """What each rank holds, in the order of ranks, on every rank."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[ResultT | None] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # every place is filled

    def gather_states(self, state: torch.Tensor) -> list[torch.Tensor]:
        """Equally shaped CPU tensors of all ranks, on every rank."""
        if self.count == 1:
            return [state]
        import torch
        from torch import distributed

        states = [torch.empty_like(state) for _ in range(self.count)]
        distributed.all_gather(states, state.contiguous())
        return states


def attempt(function: Callable[[], ResultT]) -> tuple[ResultT | None, DwmError | None]:
    """Call a function whose failure is to be agreed on; returns its result or its error."""
    try:
        return function(), None
    except DwmError as error:
        return None, error


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that `torchrun` or `dwm_model.launcher` started (their environment says so), or be alone.

    Yields:
        This process among them. Tensors on the CPU go through gloo, those on a GPU through NCCL.

    Raises:
        DwmError: another rank ended while this one waited for it, or the environment is incomplete.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(rank=0, count=1, device=default_device())
        return
    import torch
    from torch import distributed

    device = default_device()
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    with lost_rank_as_error():
        try:
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if device != "cpu" else "gloo",
                init_method=os.environ.get(MEETING_VARIABLE, "env://"),
                rank=int(os.environ.get("RANK", "0")),
                world_size=count,
            )
        except ValueError as error:
            raise DwmError(f"WORLD_SIZE is {count} but {error}; start it with torchrun or --processes") from error
        try:
            yield Ranks(rank=distributed.get_rank(), count=count, device=device)
            distributed.barrier()  # nobody hangs up while another still listens
        finally:
            distributed.destroy_process_group()


@contextmanager
def lost_rank_as_error() -> Iterator[None]:
    """Turn what torch says of a lost connection into one line.

    Raises:
        DwmError: a rank is gone.
    """
    try:
        yield
    except RuntimeError as error:
        from torch import distributed

        text = str(error).lower()
        if isinstance(error, distributed.DistError) or any(sign in text for sign in _SIGNS_OF_A_LOST_RANK):
            raise DwmError(f"{LOST_RANK}; continue from the newest checkpoint with --resume") from error
        raise
