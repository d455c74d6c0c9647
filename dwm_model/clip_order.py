"""Which clip training visits when: one endless sequence that any number of processes share.

The clip at a position depends on seed and position only, so a position is all that resuming needs, and ranks take
positions in turn: together they visit every clip once an epoch whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from manifests.errors import DwmError
from manifests.hashing import short_id

MIX_LENGTH = 1000
"""Positions after which a mixture of sources repeats: weights are exact to a thousandth."""


def stable_seed(*parts: str | int) -> int:
    """Seed of a generator from what defines it; the same on every machine."""
    return int(short_id(*parts), 16) % 2**63


class ClipOrder:
    """The sequence of clips: a new seeded permutation each epoch, of all clips or of each source's own.

    Args:
        clip_ids: the clips.
        seed: seed of the permutations.
        sources: source of each clip; needed with weights only.
        weights: share of each source, any scale, 0 leaves a source out; None visits all clips equally often. A
            source's clips are each visited once before any of them comes again.

    Raises:
        DwmError: a weight names a source without clips, a source has no weight, or all weights are zero.
    """

    def __init__(
        self,
        clip_ids: Sequence[str],
        seed: int,
        sources: Mapping[str, str] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self._seed = seed
        self._permutation = lru_cache(maxsize=8)(self._make_permutation)
        if weights is None:
            self._groups: dict[str, list[str]] = {"": list(clip_ids)}
            self._slots = [("", 0)]
            self._quotas = {"": 1}
            return
        self._groups = {}
        for clip_id in clip_ids:
            self._groups.setdefault((sources or {}).get(clip_id, ""), []).append(clip_id)
        _check_weights(weights, self._groups)
        self._quotas = _quotas(weights, MIX_LENGTH)
        self._slots = _spread(self._quotas)

    def at(self, position: int) -> str:
        """Clip at a position (from 0)."""
        cycle, slot = divmod(position, len(self._slots))
        source, before = self._slots[slot]
        clips = self._groups[source]
        epoch, index = divmod(cycle * self._quotas[source] + before, len(clips))
        return clips[self._permutation(source, epoch)[index]]

    def _make_permutation(self, source: str, epoch: int) -> list[int]:
        import torch

        name: tuple[str, ...] = (source,) if source else ()
        generator = torch.Generator().manual_seed(stable_seed("order", *name, self._seed, epoch))
        return [int(index) for index in torch.randperm(len(self._groups[source]), generator=generator)]


def positions_of_rank(start: int, *, rank: int, ranks: int, batch_size: int, accumulation_steps: int) -> list[range]:
    """Positions that a rank takes in one optimizer step, a range for each forward pass.

    All ranks together take ``ranks * batch_size * accumulation_steps`` positions from ``start``, each once.
    """
    starts = (start + (forward * ranks + rank) * batch_size for forward in range(accumulation_steps))
    return [range(first, first + batch_size) for first in starts]


def _check_weights(weights: Mapping[str, float], groups: Mapping[str, Sequence[str]]) -> None:
    for source, weight in weights.items():
        if weight > 0 and source not in groups:
            known = ", ".join(sorted(groups))
            raise DwmError(f"source_weights: no train clip has the source '{source}'; there are clips of {known}")
    for source in sorted(groups):
        if source not in weights:
            raise DwmError(f"source_weights: source '{source}' has no weight; give it one (0 leaves it out)")
    if sum(weights.values()) <= 0:
        raise DwmError("source_weights: all weights are zero; give at least one source a weight")


def _quotas(weights: Mapping[str, float], length: int) -> dict[str, int]:
    """Positions of each source in a cycle of ``length``: the largest remainders get what rounding leaves."""
    total = sum(weights.values())
    exact = {source: weight * length / total for source, weight in sorted(weights.items()) if weight > 0}
    quotas = {source: int(share) for source, share in exact.items()}
    by_remainder = sorted(exact, key=lambda source: (quotas[source] - exact[source], source))
    for source in by_remainder[: length - sum(quotas.values())]:
        quotas[source] += 1
    for source, quota in quotas.items():
        if quota == 0:
            raise DwmError(f"source_weights: '{source}' has less than 1/{length} of the weight; raise it, or give it 0")
    return quotas


def _spread(quotas: Mapping[str, int]) -> list[tuple[str, int]]:
    """Sources of a cycle, evenly mixed: (source, how many of it came before) at each position."""
    length = sum(quotas.values())
    taken = dict.fromkeys(quotas, 0)
    slots: list[tuple[str, int]] = []
    for position in range(length):
        due = max(quotas, key=lambda source: (quotas[source] * (position + 1) / length - taken[source], source))
        slots.append((due, taken[due]))
        taken[due] += 1
    return slots
