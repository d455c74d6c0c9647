"""Events that tell of finished datasets, trainings and benchmarks, with ids that link them.

A dataset is the resource ``dwm.dataset.<id of its folder>``, a run ``dwm.run.<run id>``. Each event names both where it
knows both, and Prefect adds the flow run that it comes from: the event feed of either shows the whole way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.events import emit_event

from dwm_model.checkpoints import read_identity
from dwm_model.results import BenchmarkResult
from dwm_model.training import TrainSummary
from manifests.commits import DatasetCommit
from manifests.hashing import short_id

DATASET_BUILT, RUN_TRAINED, RUN_MEASURED = "dataset.build.completed", "run.train.completed", "run.benchmark.completed"


def dataset_resource(dataset: Path) -> dict[str, str]:
    """A dataset as a resource; its id depends on where the folder is."""
    path = dataset.resolve()
    return {
        "prefect.resource.id": f"dwm.dataset.{short_id(str(path))}",
        "prefect.resource.name": path.name,
        "dwm.dataset.path": str(path),
    }


def run_resource(run_id: str, folder: Path) -> dict[str, str]:
    """A training run as a resource."""
    return {
        "prefect.resource.id": f"dwm.run.{run_id}",
        "prefect.resource.name": folder.name,
        "dwm.run.path": str(folder.resolve()),
    }


def announce_dataset(dataset: Path, commit: DatasetCommit, base: Path | None, profile: str) -> None:
    """Tell that a dataset is built, checked and, where there is a base, encoded: what training waits for."""
    resource = dataset_resource(dataset) | {"dwm.dataset.is_encoded": "true" if base else "false"}
    payload = {
        "dataset": str(dataset.resolve()),
        "dataset_hash": commit.dataset_hash,
        "ready_clips": {split.value: count for split, count in commit.ready_clips.items()},
        "base": str(base.resolve()) if base else None,
        "profile": profile,
    }
    emit_event(DATASET_BUILT, resource, payload=payload)


def announce_training(dataset: Path, run: Path, summary: TrainSummary) -> None:
    """Tell that a run is trained."""
    resource = run_resource(summary.run_id, run)
    emit_event(RUN_TRAINED, resource, related=[_related(dataset)], payload=summary.model_dump(mode="json"))


def announce_benchmark(dataset: Path, run: Path, result: BenchmarkResult) -> None:
    """Tell that a run is measured."""
    payload = {"benchmark": result.benchmark_name, "benchmark_hash": result.benchmark_hash, "clips": result.num_clips}
    resource = run_resource(read_identity(run).run_id, run)
    emit_event(RUN_MEASURED, resource, related=[_related(dataset)], payload=payload)


def _related(dataset: Path) -> dict[str, Any]:
    return dataset_resource(dataset) | {"prefect.resource.role": "dataset"}
