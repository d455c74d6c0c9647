"""Notices a training that has diverged: losses that are not finite, or far above where they began."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

WINDOW = 50
"""Steps over which losses are averaged."""


class LossWatch:
    """Compares the latest losses with the first ones.

    What it knows follows from the losses alone, so that a resumed run stops at the same step as an uninterrupted one.

    Args:
        ratio: how far above the beginning the mean may rise; None lets it rise.
        losses: losses of the steps already done.
    """

    def __init__(self, ratio: float | None, losses: Iterable[float] = ()) -> None:
        self._ratio = ratio
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=WINDOW)
        for loss in losses:
            self._add(loss)

    def problem(self, loss: float, grad_norm: float) -> str | None:
        """What is wrong with a step, before its update is made; None when nothing is."""
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return f"loss {loss}, gradient norm {grad_norm}"
        self._add(loss)
        if self._ratio is None or len(self._first) < WINDOW or len(self._last) < WINDOW:
            return None
        begun, now = math.fsum(self._first) / WINDOW, math.fsum(self._last) / WINDOW
        if now > self._ratio * begun:
            return f"mean loss {now:.4g} of {WINDOW} steps is over {self._ratio:g} times the first ({begun:.4g})"
        return None

    def _add(self, loss: float) -> None:
        if len(self._first) < WINDOW:
            self._first.append(loss)
        self._last.append(loss)
