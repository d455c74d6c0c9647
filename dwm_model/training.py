"""Fine-tuning from cached latents, step by step (paper section 3.2 "Training", Appendix A).

Only the transformer is in memory; autoencoder and text encoder have done their work before. A run resumes exactly:
on the CPU a run that was killed and continued has the same losses, bit for bit, as one that was not, in one process or
two. Several processes (see `ranks`) take the clips of a step in turn; since noise, timestep and dropout of a clip
depend on its position alone, they learn what one process with the same clips a step learns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow.dataset as ds
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import BaseDescription, describe_base
from dwm_model.checkpoints import RUN_FILE, RunIdentity, checkpoint_steps, read_identity
from dwm_model.conditioning import get_conditioning
from dwm_model.latents import LatentStore
from dwm_model.ranks import joined_ranks, lost_rank_as_error
from dwm_model.run_log import StepRecord
from dwm_model.train_config import OPERATIONAL_FIELDS, PRESETS, TrainConfig, get_preset
from dwm_model.trainer import RunPlace, Trainer
from dwm_model.training_data import ClipSelection, select_clips
from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import code_version, hash_json, short_id
from manifests.locks import exclusive_lock
from manifests.schema import Run, RunStatus

__all__ = ["PRESETS", "TrainConfig", "TrainSummary", "get_preset", "train"]

LOCK_FILE = ".lock"
"""Held in the run's folder by the process that trains there."""

LOCK_PATIENCE_S = 60.0
"""How long to wait for a trainer whose parent was killed: it still finishes its step and writes a checkpoint."""


class TrainSummary(BaseModel):
    """Outcome of a call of `train`."""

    model_config = ConfigDict(frozen=True)

    run_id: str = Field(description="Key of the run's row.")
    steps: int = Field(description="Optimizer steps done in all.")
    clips: int = Field(description="Clips that are trained on.")
    refused_clips: int = Field(description="Clips left out because the conditioning lacks data of them, such as poses.")
    is_complete: bool = Field(description="False when it was asked to stop before the last step.")
    loss_last: float | None = Field(description="Loss of the last step.")
    validation_loss_first: float | None = Field(description="Validation loss at step 0; null without validation clips.")
    validation_loss_last: float | None = Field(description="Validation loss at the last validation.")
    checkpoints: tuple[int, ...] = Field(description="Steps whose checkpoints are kept.")
    seconds: float = Field(description="Wall-clock seconds of this call.")


def train(
    dataset: Dataset,
    base_path: Path,
    run_folder: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepRecord], None] = lambda _: None,
) -> TrainSummary:
    """Fine-tune a base model on a dataset's train split, or continue a run.

    Writes into the run's folder: ``run.json``, ``losses.jsonl``, ``validation.jsonl`` and ``checkpoints/``; and the
    run's row in the dataset's ``runs`` table at start and end.

    Args:
        dataset: dataset with latents and prompt embeddings for base and geometry.
        base_path: base model's folder.
        run_folder: folder of the run.
        config: settings.
        resume: continue from the newest checkpoint, or begin where there is none. A run is only continued with the
            base, dataset and settings that it began with; ``max_steps`` too, since the learning rate depends on it.
        should_stop: asked after each step; True writes a checkpoint and returns.
        on_step: told of each step.

    Returns:
        What was reached.

    Raises:
        DwmError: no train clips, latents or prompts are missing, the folder holds a run and ``resume`` is false, the
            run differs from what is asked, another process trains in the folder, or the loss is not finite (the
            newest checkpoint is kept).
    """
    began = time.monotonic()
    with joined_ranks() as ranks, lost_rank_as_error(), _own_random_state(), ExitStack() as held:
        identity, selection, store = ranks.all_do(lambda: _prepare(dataset, base_path, config))
        run = ranks.on_main(lambda: _begin(dataset, run_folder, identity, held, resume=resume))
        trainer: Trainer | None = None
        try:
            trainer = Trainer(RunPlace(base_path, run_folder, identity.run_id), config, selection, store, ranks)
            with lost_rank_as_error():
                trainer.run(should_stop, on_step)
        except DwmError as error:
            if ranks.is_main:
                row = _described(run, trainer) if trainer is not None else run
                dataset.runs.upsert([row.updated(status=RunStatus.FAILED, reason=str(error))])
            raise
        finished, summary = _described(run, trainer), _summary(trainer, identity.run_id, time.monotonic() - began)
        ranks.on_main(lambda: dataset.runs.upsert([finished]))
        return summary


def _prepare(dataset: Dataset, base_path: Path, config: TrainConfig) -> tuple[RunIdentity, ClipSelection, LatentStore]:
    """Find out what is trained, and that its latents are there."""
    base = describe_base(base_path)
    selection = select_clips(dataset, config)
    identity = _identity(dataset, base, config, selection)
    store = LatentStore(dataset, base, config.geometry)
    clips = [*selection.train, *selection.validation]
    store.require(clips)
    role = get_conditioning(config.conditioning).hand_data.role
    if role is not None:
        store.require(clips, role)
    return identity, selection, store


def _begin(dataset: Dataset, run_folder: Path, identity: RunIdentity, held: ExitStack, *, resume: bool) -> Run:
    """Take the run's folder, refuse it where it holds another run, and write what the run is."""
    busy = f"{run_folder}: another process is training here; wait for it, or stop it and run this again"
    held.enter_context(exclusive_lock(run_folder / LOCK_FILE, patience_s=LOCK_PATIENCE_S, busy=busy))
    _check_run_folder(run_folder, identity, resume=resume)
    write_text(run_folder / RUN_FILE, identity.model_dump_json(indent=2) + "\n")
    run = _run_row(dataset, run_folder, identity)
    dataset.runs.upsert([run])
    return run


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Leave the caller's random generators as they were."""
    import torch

    with torch.random.fork_rng():
        yield


def _identity(dataset: Dataset, base: BaseDescription, config: TrainConfig, selection: ClipSelection) -> RunIdentity:
    dataset_hash = dataset.content_hash([*selection.train, *selection.validation])
    return RunIdentity(
        run_id=short_id(base.base_hash, dataset_hash, hash_json(config.defining_fields())),
        base_name=base.name,
        base_hash=base.base_hash,
        base_is_untrained=base.is_untrained,
        dataset_hash=dataset_hash,
        config=config,
    )


def _check_run_folder(run_folder: Path, identity: RunIdentity, *, resume: bool) -> None:
    """Refuse to mix runs in one folder."""
    if not (run_folder / RUN_FILE).exists():
        return
    if not resume:
        raise DwmError(
            f"{run_folder}: holds a training run already; continue it with --resume or choose another folder"
        )
    present = read_identity(run_folder).model_dump(mode="json")
    asked = identity.model_dump(mode="json")
    for name, what in (("base_hash", "base model"), ("dataset_hash", "train or validation clips")):
        if present[name] != asked[name]:
            raise DwmError(
                f"{run_folder}: the run's {what} differ ({present[name][:8]}, now {asked[name][:8]}); "
                "resume with the same, or train in another folder"
            )
    for field, value in present["config"].items():
        if field not in OPERATIONAL_FIELDS and value != asked["config"][field]:
            raise DwmError(
                f"{run_folder}: the run has {field} {value}, now {asked['config'][field]}; "
                "resume with the same, or train in another folder"
            )


def _run_row(dataset: Dataset, run_folder: Path, identity: RunIdentity) -> Run:
    """Row of a run that is beginning; a folder far from the dataset is named by its absolute path.

    A run that is in use stays so.
    """
    is_near = run_folder.resolve().is_relative_to(dataset.root.resolve().parent)
    return Run(
        run_id=identity.run_id,
        run_path=dataset.relative(run_folder) if is_near else str(run_folder.resolve()),
        base_hash=identity.base_hash,
        base_is_untrained=identity.base_is_untrained,
        dataset_hash=identity.dataset_hash,
        config_json=identity.config.model_dump_json(),
        promoted=any(row.promoted for row in dataset.runs.rows(ds.field("run_id") == identity.run_id)),
        status=RunStatus.RUNNING,
        code_version=code_version(),
    )


def _described(run: Run, trainer: Trainer) -> Run:
    """The run's row as it stands now."""
    is_complete = trainer.state.step >= trainer.config.max_steps
    summary = _summary(trainer, run.run_id, 0.0)
    figures = {
        "loss_last": summary.loss_last,
        "validation_loss_first": summary.validation_loss_first,
        "validation_loss_last": summary.validation_loss_last,
    }
    return run.updated(
        steps=trainer.state.step,
        checkpoints=summary.checkpoints,
        metrics={name: value for name, value in figures.items() if value is not None},
        status=RunStatus.COMPLETED if is_complete else RunStatus.RUNNING,
        reason=None if is_complete else f"stopped at step {trainer.state.step}; continue it with --resume",
    )


def _summary(trainer: Trainer, run_id: str, seconds: float) -> TrainSummary:
    """What was reached."""
    losses, validations = trainer.losses.records(), trainer.validations.records()
    return TrainSummary(
        run_id=run_id,
        steps=trainer.state.step,
        clips=len(trainer.selection.train),
        refused_clips=len(trainer.selection.refused),
        is_complete=trainer.state.step >= trainer.config.max_steps,
        loss_last=losses[-1].loss if losses else None,
        validation_loss_first=validations[0].loss if validations else None,
        validation_loss_last=validations[-1].loss if validations else None,
        checkpoints=tuple(checkpoint_steps(trainer.run_folder)),
        seconds=round(seconds, 3),
    )
