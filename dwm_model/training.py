"""Fine-tuning from cached latents, step by step (paper section 3.2 "Training", Appendix A).

Only the transformer is in memory; autoencoder and text encoder have done their work before. A run resumes exactly:
on the CPU a run that was killed and continued has the same losses, bit for bit, as one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from dwm_model.base_model import BaseDescription, default_device, describe_base, load_base
from dwm_model.checkpoints import (
    RUN_FILE,
    RunIdentity,
    TrainState,
    checkpoint_steps,
    load_checkpoint,
    read_identity,
    save_checkpoint,
)
from dwm_model.conditioning import ConditionLatents
from dwm_model.denoiser import Denoiser, make_denoiser, to_network_latents, velocity_losses
from dwm_model.latents import LatentStore
from dwm_model.lora import add_lora, trainable_parameters
from dwm_model.run_log import LOSSES_FILE, VALIDATION_FILE, Journal, StepRecord, ValidationRecord
from dwm_model.train_config import PRESETS, TrainConfig, get_preset
from dwm_model.training_data import Batch, ClipOrder, ClipSelection, load_training_batch, select_clips, stable_seed
from dwm_model.validation import validation_loss
from manifests.atomic import write_text
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import code_version, hash_config, short_id
from manifests.locks import exclusive_lock
from manifests.schema import Run, RunStatus

if TYPE_CHECKING:
    import torch

__all__ = ["PRESETS", "TrainConfig", "TrainSummary", "get_preset", "train"]

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"
"""Held in the run's folder by the process that trains there."""

LOCK_PATIENCE_S = 60.0
"""How long to wait for a trainer whose parent was killed: it still finishes its step and writes a checkpoint."""


class TrainSummary(BaseModel):
    """Outcome of a call of `train`."""

    model_config = ConfigDict(frozen=True)

    run_id: str = Field(description="Key of the run's row.")
    steps: int = Field(description="Optimizer steps done in all.")
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
    base = describe_base(base_path)
    selection = select_clips(dataset, config)
    identity = _identity(dataset, base, config, selection)
    store = LatentStore(dataset, base, config.geometry)
    store.require([*selection.train, *selection.validation])
    busy = f"{run_folder}: another process is training here; wait for it, or stop it and run this again"
    with exclusive_lock(run_folder / LOCK_FILE, patience_s=LOCK_PATIENCE_S, busy=busy):
        _check_run_folder(run_folder, identity, resume=resume)
        write_text(run_folder / RUN_FILE, identity.model_dump_json(indent=2) + "\n")
        run = _run_row(dataset, run_folder, identity)
        dataset.runs.upsert([run])
        trainer = _Trainer(base_path, run_folder, config, selection, store)
        try:
            trainer.run(should_stop, on_step)
        except DwmError as error:
            dataset.runs.upsert([trainer.described(run).updated(status=RunStatus.FAILED, reason=str(error))])
            raise
        dataset.runs.upsert([trainer.described(run)])
        return trainer.summary(identity.run_id, time.monotonic() - began)


def _identity(dataset: Dataset, base: BaseDescription, config: TrainConfig, selection: ClipSelection) -> RunIdentity:
    dataset_hash = dataset.content_hash([*selection.train, *selection.validation])
    return RunIdentity(
        run_id=short_id(base.base_hash, dataset_hash, hash_config(config)),
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
        if value != asked["config"][field]:
            raise DwmError(
                f"{run_folder}: the run has {field} {value}, now {asked['config'][field]}; "
                "resume with the same, or train in another folder"
            )


def _run_row(dataset: Dataset, run_folder: Path, identity: RunIdentity) -> Run:
    """Row of a run that is beginning; a folder far from the dataset is named by its absolute path."""
    is_near = run_folder.resolve().is_relative_to(dataset.root.resolve().parent)
    return Run(
        run_id=identity.run_id,
        run_path=dataset.relative(run_folder) if is_near else str(run_folder.resolve()),
        base_hash=identity.base_hash,
        base_is_untrained=identity.base_is_untrained,
        dataset_hash=identity.dataset_hash,
        config_json=identity.config.model_dump_json(),
        status=RunStatus.RUNNING,
        code_version=code_version(),
    )


class _Trainer:
    """Network, optimizer, randomness and journals of a run, and the loop over them."""

    def __init__(
        self, base_path: Path, run_folder: Path, config: TrainConfig, selection: ClipSelection, store: LatentStore
    ) -> None:
        import torch

        self.run_folder = run_folder
        self.config = config
        self.selection = selection
        self.store = store
        self.denoiser = _make_trainable_denoiser(base_path, config)
        self.parameters = list(trainable_parameters(self.denoiser.transformer).values())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, betas=config.adam_betas, weight_decay=config.weight_decay
        )
        self.generator = torch.Generator().manual_seed(stable_seed("training", config.seed, 0))
        self.order = ClipOrder(list(selection.train), config.seed)
        self.losses = Journal(run_folder / LOSSES_FILE, StepRecord)
        self.validations = Journal(run_folder / VALIDATION_FILE, ValidationRecord)
        self.state = TrainState(step=0, position=0)
        self._restore()

    def run(self, should_stop: Callable[[], bool], on_step: Callable[[StepRecord], None]) -> None:
        """Train until the last step, or until asked to stop."""
        if self.state.step == 0:
            self._validate()
        while self.state.step < self.config.max_steps:
            record = self._train_step()
            self.losses.append(record)
            step = self.state.step
            is_last = step == self.config.max_steps
            if is_last or step % self.config.validate_every == 0:
                self._validate()
            is_stopping = not is_last and should_stop()
            if is_last or is_stopping or step % self.config.checkpoint_every == 0:
                self._save()
            on_step(record)
            if is_stopping:
                logger.info("asked to stop: checkpoint written at step %d", step)
                return

    def described(self, run: Run) -> Run:
        """The run's row as it stands now."""
        is_complete = self.state.step >= self.config.max_steps
        summary = self.summary(run.run_id, 0.0)
        figures = {
            "loss_last": summary.loss_last,
            "validation_loss_first": summary.validation_loss_first,
            "validation_loss_last": summary.validation_loss_last,
        }
        return run.updated(
            steps=self.state.step,
            checkpoints=summary.checkpoints,
            metrics={name: value for name, value in figures.items() if value is not None},
            status=RunStatus.COMPLETED if is_complete else RunStatus.RUNNING,
            reason=None if is_complete else f"stopped at step {self.state.step}; continue it with --resume",
        )

    def summary(self, run_id: str, seconds: float) -> TrainSummary:
        """What was reached."""
        losses, validations = self.losses.records(), self.validations.records()
        return TrainSummary(
            run_id=run_id,
            steps=self.state.step,
            is_complete=self.state.step >= self.config.max_steps,
            loss_last=losses[-1].loss if losses else None,
            validation_loss_first=validations[0].loss if validations else None,
            validation_loss_last=validations[-1].loss if validations else None,
            checkpoints=tuple(checkpoint_steps(self.run_folder)),
            seconds=round(seconds, 3),
        )

    def _train_step(self) -> StepRecord:
        """One optimizer step: forward and backward passes, clipped gradient, update."""
        import torch

        step = self.state.step + 1
        rate = self.config.learning_rate_at(step)
        total = 0.0
        for _ in range(self.config.accumulation_steps):
            loss = self._batch_loss(self._next_batch()) / self.config.accumulation_steps
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not (math.isfinite(total) and math.isfinite(norm)):
            kept = checkpoint_steps(self.run_folder)
            remedy = f"checkpoint {kept[-1]} is kept" if kept else "there is no checkpoint yet"
            raise DwmError(
                f"{self.run_folder}: loss {total}, gradient norm {norm} at step {step}; {remedy}: "
                "train again in another folder with a lower learning rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state = self.state.model_copy(update={"step": step})
        return StepRecord(step=step, loss=total, lr=rate, grad_norm=norm)

    def _next_batch(self) -> Batch:
        position, count = self.state.position, self.config.batch_size
        ids = [self.order.at(position + index) for index in range(count)]
        self.state = self.state.model_copy(update={"position": position + count})
        clips = [(clip_id, self.selection.train[clip_id]) for clip_id in ids]
        return load_training_batch(self.store, clips, self.config, self.generator)

    def _batch_loss(self, batch: Batch) -> torch.Tensor:
        """Mean velocity error of a batch at uniformly drawn timesteps."""
        import torch

        denoiser = self.denoiser
        interaction, static, hands = (
            to_network_latents(latents, denoiser.scaling_factor).to(denoiser.device)
            for latents in (batch.interaction_bcfhw, batch.static_bcfhw, batch.hands_bcfhw)
        )
        noise = torch.randn(interaction.shape, generator=self.generator)
        steps = int(denoiser.scheduler.config.num_train_timesteps)
        timesteps = torch.randint(0, steps, (len(interaction),), generator=self.generator)
        return velocity_losses(
            denoiser,
            interaction,
            ConditionLatents(static, hands),
            batch.text_bld.to(denoiser.device),
            noise_bfchw=noise.to(denoiser.device),
            timesteps_b=timesteps.to(denoiser.device),
        ).mean()

    def _validate(self) -> None:
        loss = validation_loss(self.denoiser, self.store, self.selection.validation, self.config)
        if loss is not None:
            self.validations.append(ValidationRecord(step=self.state.step, loss=loss))
            logger.info("step %d: validation loss %.4f", self.state.step, loss)

    def _save(self) -> None:
        self.losses.flush_to_disk()
        self.validations.flush_to_disk()
        save_checkpoint(
            self.run_folder,
            self.state,
            transformer=self.denoiser.transformer,
            settings=self.config.lora,
            optimizer=self.optimizer,
            generator=self.generator,
            keep=self.config.keep_checkpoints,
        )

    def _restore(self) -> None:
        """Continue from the newest checkpoint, if there is one, and forget what was journalled after it."""
        steps = checkpoint_steps(self.run_folder)
        if steps:
            self.state = load_checkpoint(
                self.run_folder,
                steps[-1],
                transformer=self.denoiser.transformer,
                settings=self.config.lora,
                optimizer=self.optimizer,
                generator=self.generator,
            )
            logger.info("continuing from step %d", self.state.step)
        last_validation = self.state.step if steps else -1
        self.losses.cut_after(self.state.step)
        self.validations.cut_after(last_validation)


def _make_trainable_denoiser(base_path: Path, config: TrainConfig) -> Denoiser:
    """Load the transformer, adapt it, add the adapter; bfloat16 arithmetic where the settings and device say so."""
    import torch

    device = default_device()
    is_bfloat16 = config.precision == "bfloat16" or (config.precision == "auto" and device == "cuda")
    dtype = torch.bfloat16 if is_bfloat16 else torch.float32
    base = load_base(base_path, device=device, dtype=dtype)
    denoiser = make_denoiser(base, config.conditioning, autocast_dtype=torch.bfloat16 if is_bfloat16 else None)
    add_lora(denoiser.transformer, config.lora, config.seed)
    denoiser.transformer.train()
    if config.gradient_checkpointing:
        denoiser.transformer.enable_gradient_checkpointing()
    return denoiser
