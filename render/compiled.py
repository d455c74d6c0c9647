"""Numba functions of the renderers: compiled once a machine, quiet about nothing that takes long.

The machine code is kept beside the source (``__pycache__``) or, where that cannot be written, in the user's cache
folder; ``NUMBA_CACHE_DIR`` names another place. Only the first process on a machine compiles, the others load.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from manifests.errors import UsageError

logger = logging.getLogger(__name__)

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
"""What lets sums use vector units; unlike ``fastmath=True`` it keeps infinities and NaN as they are."""


def compiled(*, parallel: bool = False, inline: bool = False) -> Callable[[FunctionT], FunctionT]:
    """Decorator: compile a function of arrays and numbers with Numba at its first call, and keep the result.

    Args:
        parallel: its `numba.prange` loops use `worker_threads`.
        inline: it is written into its callers, so that their loops can use vector units.
    """
    import numba

    options: dict[str, Any] = {"parallel": parallel, "fastmath": _FAST_MATH, "error_model": "numpy"}
    if inline:
        options["inline"] = "always"

    def decorate(function: FunctionT) -> FunctionT:
        try:
            return cast(FunctionT, numba.njit(cache=True, **options)(function))
        except RuntimeError as error:  # no folder for the cache can be written
            logger.warning("%s is compiled in every process: %s", function.__name__, str(error).splitlines()[0])
            return cast(FunctionT, numba.njit(**options)(function))

    return decorate


@contextmanager
def worker_threads(count: int | None) -> Iterator[int]:
    """Let compiled loops use a number of threads within the block; gives that number.

    Args:
        count: threads; None for as many as torch uses (``torch.set_num_threads``, ``OMP_NUM_THREADS``), at most as
            many as Numba has (``NUMBA_NUM_THREADS``, by default one a core).

    Raises:
        UsageError: the number is below 1, or beyond what Numba has.
    """
    import numba
    import torch

    available: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set at run time
    if count is not None and not 1 <= count <= available:
        raise UsageError(f"threads {count}: must lie between 1 and {available} (NUMBA_NUM_THREADS)")
    chosen = min(torch.get_num_threads(), available) if count is None else count
    before = numba.get_num_threads()
    numba.set_num_threads(chosen)
    try:
        yield chosen
    finally:
        numba.set_num_threads(before)
