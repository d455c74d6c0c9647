"""gsplat's CUDA kernels: found or compiled before their first use, never in silence.

gsplat compiles its kernels on the first use after installation, which takes minutes, and says nothing in logs. Never
run on a GPU here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from manifests.errors import DwmError

logger = logging.getLogger(__name__)

HEARTBEAT_S = 30.0
"""Seconds between messages while the kernels compile."""

_REMEDY = "install a CUDA toolkit whose nvcc fits torch, or gsplat's wheel for this torch and CUDA, or use the CPU"


@cache
def require_cuda_kernels() -> None:
    """Load gsplat's kernels; the first call on a machine may compile them, with a message every half minute.

    Raises:
        DwmError: there is no CUDA device, no compiler, or the compilation fails.
    """
    import torch

    if not torch.cuda.is_available():
        raise DwmError("device 'cuda': torch finds no CUDA device here; use the device 'cpu'")
    load_kernels(_import_kernels)


def load_kernels(importer: Callable[[], Any]) -> None:
    """Run what imports (and so compiles) the kernels, with messages; see `require_cuda_kernels`.

    Args:
        importer: gives gsplat's extension module, or None where it has none.

    Raises:
        DwmError: it gives None or fails.
    """
    with _heartbeat():
        try:
            kernels = importer()
        # What torch's extension builder raises when nvcc, ninja or the linker fails, and a broken binary when loaded.
        except (RuntimeError, OSError, ImportError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise DwmError(f"gsplat: its CUDA kernels do not compile or load ({reason}); {_REMEDY}") from error
    if kernels is None:
        raise DwmError(f"gsplat: has no CUDA kernels and finds no CUDA toolkit to compile them; {_REMEDY}")


def _import_kernels() -> Any:
    from gsplat.cuda._backend import _C

    return _C


@contextmanager
def _heartbeat() -> Iterator[None]:
    """Say that the kernels are being loaded, and say so again for as long as it takes."""
    is_done = threading.Event()
    began = time.monotonic()

    def speak() -> None:
        while not is_done.wait(HEARTBEAT_S):
            logger.warning("gsplat: still compiling its CUDA kernels (%.0f s)", time.monotonic() - began)

    logger.info("gsplat: loading its CUDA kernels; the first time on a machine they are compiled, which takes minutes")
    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        is_done.set()
        speaker.join()
    logger.info("gsplat: CUDA kernels ready after %.0f s", time.monotonic() - began)
