"""Generated recordings -> triplets: written in the exported TRUMANS form, then built as anybody's recordings are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flows.build_trumans import BuildTrumansParameters, build_trumans
from manifests.schema import Source
from sources.synthetic.recording import RecordingPlan
from sources.trumans_build import BuildReport
from tasks.building import generate_recording_chunk

LICENCE = "CC0-1.0"
"""Licence of generated data."""


def build_generated(
    raw: Path, dataset: Path, plans: Sequence[RecordingPlan], profile: str, *, a_task: int, workers: int = 1
) -> BuildReport:
    """Generate the recordings that are missing, ``a_task`` in each task, and build those clips that are missing."""
    for start in range(0, len(plans), a_task):
        generate_recording_chunk(raw, list(plans[start : start + a_task]))
    return build_trumans(
        BuildTrumansParameters(
            raw=raw, dataset=dataset, profile=profile, source=Source.SYNTHETIC, licence=LICENCE, workers=workers
        )
    )
