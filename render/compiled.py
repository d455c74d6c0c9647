"""Numba functions of the renderers: compiled once a machine, quiet about nothing that takes long.

The machine code is kept beside the source (``__pycache__``) or, where that cannot be written, in the user's cache
folder; ``NUMBA_CACHE_DIR`` names another place. Only the first process on a machine compiles, the others load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar, cast

from manifests.errors import UsageError

logger = logging.getLogger(__name__)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
"""What lets sums use vector units; unlike ``fastmath=True`` it keeps infinities and NaN as they are."""

PARTS_A_THREAD = 8
"""Parts that a thread does on average: threads that are done early take what others have not begun."""


def compiled(*, inline: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Decorator: compile a function of arrays and numbers with Numba at its first call, and keep the result.

    Args:
        inline: it is written into its callers, so that their loops can use vector units.
    """
    import numba

    options: dict[str, Any] = {"nogil": True, "fastmath": _FAST_MATH, "error_model": "numpy"}
    if inline:
        options["inline"] = "always"

    def decorate(function: FunctionT) -> FunctionT:
        try:
            return cast(FunctionT, numba.njit(cache=True, **options)(function))
        except RuntimeError as error:  # no folder for the cache can be written
            logger.warning("%s is compiled in every process: %s", function.__name__, str(error).splitlines()[0])
            return cast(FunctionT, numba.njit(**options)(function))

    return decorate


class Share(NamedTuple):
    """A thread's part of some work: every ``parts``-th piece, from number ``part`` on."""

    part: int
    parts: int


def in_parts(work: Callable[[Share], None], threads: int | None) -> None:
    """Have all parts of some work done.

    Numba's own parallel loops are not used: one that has just been compiled and the same one read from the cache may
    differ in the last bits, and starting its threads changes the number that torch uses.

    Args:
        work: does a part; compiled code runs beside other parts, since `compiled` functions let other threads run.
        threads: at once; None for as many as torch uses (``torch.set_num_threads``, ``OMP_NUM_THREADS``).

    Raises:
        UsageError: the number is below 1.
    """
    import torch

    count = torch.get_num_threads() if threads is None else threads
    if count < 1:
        raise UsageError(f"threads {count}: must be 1 or more")
    if count == 1:
        work(Share(0, 1))
        return
    parts = count * PARTS_A_THREAD
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work, Share(part, parts)) for part in range(parts)]:
            done.result()
