"""The training loop: steps, journals, validation and checkpoints of one run, in each of its processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dwm_model.checkpoints import (
    CheckpointTensors,
    TrainState,
    checkpoint_steps,
    load_optimizer_tensors,
    load_random_states,
    load_state,
    load_weights,
    save_checkpoint,
)
from dwm_model.clip_order import ClipOrder, positions_of_rank, stable_seed
from dwm_model.ema import MovingAverage
from dwm_model.latents import LatentStore
from dwm_model.loss_watch import LossWatch
from dwm_model.ranks import Ranks
from dwm_model.run_log import (
    LOSSES_FILE,
    SPEED_FILE,
    VALIDATION_FILE,
    Journal,
    SpeedRecord,
    StepRecord,
    ValidationRecord,
)
from dwm_model.trackers import Trackers
from dwm_model.train_config import TrainConfig
from dwm_model.trainable import TrainableNetwork, make_trainable_denoiser, placed_like, whole_tensors
from dwm_model.training_data import ClipSelection, TrainingBatch, load_training_batch
from dwm_model.validation import validation_loss
from dwm_model.warm_start import load_warm_start
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

    from dwm_model.denoiser import Denoiser

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunPlace:
    """Where a run is and where it comes from.

    Attributes:
        base_path: base model's folder.
        base_hash: hash of the base model's files.
        folder: the run's folder; the newest checkpoint in it is continued from.
        run_id: the run's name for trackers.
    """

    base_path: Path
    base_hash: str
    folder: Path
    run_id: str


class Trainer:
    """Network, optimizer, data order and journals of a run, and the loop over them.

    Args:
        place: base and folder.
        config: settings.
        selection: clips.
        store: their latents.
        ranks: the processes that train together; all make a trainer, the main one writes the files.

    Raises:
        DwmError: the checkpoint is damaged or was made by another number of processes, or base and settings do not
            fit.
    """

    def __init__(
        self,
        place: RunPlace,
        config: TrainConfig,
        selection: ClipSelection,
        store: LatentStore,
        ranks: Ranks,
    ) -> None:
        run_folder = place.folder
        self.run_folder = run_folder
        self.config = config
        self.ranks = ranks
        self.selection = selection
        self._store = store
        self._trackers = Trackers(run_folder, place.run_id, config)
        self._order = ClipOrder(list(selection.train), config.seed, selection.sources, config.source_weights)
        self.losses = Journal(run_folder / LOSSES_FILE, StepRecord)
        self.validations = Journal(run_folder / VALIDATION_FILE, ValidationRecord)
        self._speeds = Journal(run_folder / SPEED_FILE, SpeedRecord)
        self.state = TrainState(step=0, position=0, world_size=ranks.count)
        self._network, self._average = self._restore(place)
        self._first_step = self.state.step + 1
        self._watch = LossWatch(config.divergence_ratio, (record.loss for record in self.losses.records()))

    def run(self, should_stop: Callable[[], bool], on_step: Callable[[StepRecord], None]) -> None:
        """Train until the last step, or until any process is asked to stop.

        Raises:
            DwmError: the loss is not finite or diverges, clips cannot be read, or files cannot be written; the
                newest checkpoint is kept.
        """
        try:
            if self.state.step == 0:
                self._validate()
            while self.state.step < self.config.max_steps:
                record = self._train_step()
                step = self.state.step
                is_last = step == self.config.max_steps
                if is_last or step % self.config.validate_every == 0:
                    self._validate()
                is_stopping = self.ranks.agree(stop=should_stop()) and not is_last
                if is_last or is_stopping or step % self.config.checkpoint_every == 0:
                    self._save()
                on_step(record)
                if is_stopping:
                    logger.info("asked to stop: checkpoint written at step %d", step)
                    return
        finally:
            self._trackers.close()

    def _train_step(self) -> StepRecord:
        """One optimizer step: forward and backward passes, clipped gradient, update, journals."""
        began = time.monotonic()
        step = self.state.step + 1
        rate = self.config.learning_rate_at(step)
        *first, last = self.ranks.all_do(self._next_batches)
        loss = 0.0
        share = 1.0 / self.config.accumulation_steps
        for batch in first:
            with self._network.accumulating():
                loss += self._network.backward(batch, share=share)
        loss = self.ranks.mean(loss + self._network.backward(last, share=share))
        norm = self._network.clip_gradients()
        problem = self._watch.problem(loss, norm)
        if problem is not None:
            kept = checkpoint_steps(self.run_folder)
            remedy = f"checkpoint {kept[-1]} is kept" if kept else "there is no checkpoint yet"
            raise DwmError(
                f"{self.run_folder}: {problem} at step {step}; {remedy}: "
                "train again in another folder with a lower learning rate"
            )
        self._network.update(rate)
        if self._average is not None:
            self._average.update()
        clips = self.ranks.count * self.config.batch_size * self.config.accumulation_steps
        self.state = self.state.model_copy(update={"step": step, "position": self.state.position + clips})
        record = StepRecord(step=step, loss=loss, lr=rate, grad_norm=norm)
        seconds = time.monotonic() - began
        speed = SpeedRecord(step=step, seconds=round(seconds, 6), samples_per_s=round(clips / seconds, 3))
        self.ranks.all_do(lambda: self._journal(record, speed))
        return record

    def _next_batches(self) -> list[TrainingBatch]:
        """This process's clips of the next step, with their noise and timesteps."""
        config = self.config
        parts = positions_of_rank(
            self.state.position,
            rank=self.ranks.rank,
            ranks=self.ranks.count,
            batch_size=config.batch_size,
            accumulation_steps=config.accumulation_steps,
        )
        batches = []
        for positions in parts:
            ids = [self._order.at(position) for position in positions]
            clips = [(clip_id, self.selection.train[clip_id]) for clip_id in ids]
            batches.append(load_training_batch(self._store, clips, positions, config, self._network.num_timesteps))
        return batches

    def _journal(self, record: StepRecord, speed: SpeedRecord) -> None:
        if not self.ranks.is_main:
            return
        self.losses.append(record)
        self._speeds.append(speed)
        values = {
            "train/loss": record.loss,
            "train/lr": record.lr,
            "train/grad_norm": record.grad_norm,
            "train/samples_per_s": speed.samples_per_s,
        }
        self._trackers.scalars(record.step, values, self._first_step)

    def _validate(self) -> None:
        network = self._network
        loss = validation_loss(
            network.losses,
            self._store,
            self.selection.validation,
            self.config,
            self.ranks,
            num_timesteps=network.num_timesteps,
        )
        if loss is None:
            return

        def write() -> None:
            self.validations.append(ValidationRecord(step=self.state.step, loss=loss))
            self._trackers.scalars(self.state.step, {"validation/loss": loss}, self._first_step)

        self.ranks.on_main(write)
        logger.info("step %d: validation loss %.4f", self.state.step, loss)

    def _save(self) -> None:
        """Gather what the processes hold and let the main one write it."""
        network, ranks = self._network, self.ranks
        average = self._average.averages if self._average is not None else {}
        tensors = CheckpointTensors(
            weights=whole_tensors(iter(network.parameters.items()), ranks),
            optimizer=whole_tensors(network.optimizer_tensors(), ranks),
            average=whole_tensors(iter(average.items()), ranks),
            random_states=self._random_states(),
        )

        def write() -> None:
            self.losses.flush_to_disk()
            self.validations.flush_to_disk()
            save_checkpoint(self.run_folder, self.state, tensors, network.denoiser.transformer, self.config)

        ranks.on_main(write)

    def _random_states(self) -> dict[str, torch.Tensor]:
        """States of torch's own generators in each process: the loop draws from none, a network's dropout would."""
        import torch

        states = {"cpu": torch.get_rng_state()}
        if self.ranks.device != "cpu":
            states["cuda"] = torch.cuda.get_rng_state()
        return {
            f"rank{rank}.{kind}": state
            for kind, own in states.items()
            for rank, state in enumerate(self.ranks.gather_states(own))
        }

    def _restore(self, place: RunPlace) -> tuple[TrainableNetwork, MovingAverage | None]:
        """Make the network, continue from the newest checkpoint if there is one, forget what was journalled after.

        Without a checkpoint it begins with the weights of the warm start, or with fresh ones.
        """
        import torch

        config, folder, ranks = self.config, self.run_folder, self.ranks
        steps = checkpoint_steps(folder)

        def load() -> Denoiser:
            denoiser = make_trainable_denoiser(place.base_path, config, ranks.device)
            if steps:
                self.state = load_state(folder, steps[-1])
                self._refuse_other_world_size()
                load_weights(folder, steps[-1], denoiser.transformer, config)
            elif config.warm_start is not None:
                load_warm_start(config.warm_start, denoiser.transformer, config, place.base_hash)
            return denoiser

        denoiser = ranks.all_do(load)
        torch.manual_seed(stable_seed("rank", config.seed, ranks.rank))
        network = TrainableNetwork(denoiser, config, ranks)
        average = None if config.ema_decay is None else MovingAverage(network.parameters, config.ema_decay)
        if steps:
            self._restore_optimizer(network, average, steps[-1], place.base_path)
            logger.info("continuing from step %d", self.state.step)
        last_validation = self.state.step if steps else -1

        def forget() -> None:
            self.losses.cut_after(self.state.step)
            self._speeds.cut_after(self.state.step)
            self.validations.cut_after(last_validation)

        ranks.on_main(forget)
        return network, average

    def _restore_optimizer(
        self, network: TrainableNetwork, average: MovingAverage | None, step: int, base_path: Path
    ) -> None:
        """Put optimizer, moving average and generators back where a checkpoint left them."""
        import torch

        names = [f"{name}.{moment}" for name in network.parameters for moment in ("step", "exp_avg", "exp_avg_sq")]
        network.load_optimizer(self.ranks.all_do(lambda: load_optimizer_tensors(self.run_folder, step, names)))
        kinds = ["cpu"] if self.ranks.device == "cpu" else ["cpu", "cuda"]
        states = load_random_states(self.run_folder, step, [f"rank{self.ranks.rank}.{kind}" for kind in kinds])
        torch.set_rng_state(states[f"rank{self.ranks.rank}.cpu"])
        if "cuda" in kinds:
            torch.cuda.set_rng_state(states[f"rank{self.ranks.rank}.cuda"])
        if average is not None:
            other = make_trainable_denoiser(base_path, self.config, "cpu").transformer
            load_weights(self.run_folder, step, other, self.config, averaged=True)
            for name, parameter in other.named_parameters():
                if name in average.averages:
                    average.averages[name] = placed_like(parameter.detach(), average.averages[name])

    def _refuse_other_world_size(self) -> None:
        if self.state.world_size != self.ranks.count:
            raise DwmError(
                f"{self.run_folder}: the run trains in {self.state.world_size} processes, now {self.ranks.count}; "
                "resume with as many, or train in another folder"
            )
