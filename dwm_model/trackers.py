"""Curves of a run for people: TensorBoard files in the run's folder, and Weights & Biases where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manifests.errors import DwmError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from dwm_model.train_config import TrainConfig

TENSORBOARD_FOLDER = "tensorboard"
"""Folder of a run that TensorBoard shows: ``tensorboard --logdir RUN/tensorboard``."""


class Trackers:
    """Sends scalars to what the settings name. Nothing is opened before the first scalar.

    Args:
        run_folder: the run's folder.
        run_id: name of the run at Weights & Biases; the same name continues its curves.
        config: settings.

    Raises:
        DwmError: Weights & Biases is asked for and not installed.
    """

    def __init__(self, run_folder: Path, run_id: str, config: TrainConfig) -> None:
        self._run_folder = run_folder
        self._run_id = run_id
        self._config = config
        self._writer: SummaryWriter | None = None
        self._wandb: Any = None
        if config.wandb_project is not None and importlib.util.find_spec("wandb") is None:
            raise DwmError("wandb_project is set but wandb is not installed; `pip install wandb`, or set it to null")

    def scalars(self, step: int, values: dict[str, float], first_step: int) -> None:
        """Record values of a step.

        Args:
            step: optimizer step.
            values: by name, such as ``train/loss``.
            first_step: first step of this call of the trainer; TensorBoard drops what an interrupted call had
                recorded from there on.
        """
        if self._config.tensorboard:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                folder = self._run_folder / TENSORBOARD_FOLDER
                self._writer = SummaryWriter(str(folder), purge_step=first_step)
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        if self._config.wandb_project is not None:
            self._send_to_wandb(step, values)

    def close(self) -> None:
        """Write out what is pending."""
        if self._writer is not None:
            self._writer.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _send_to_wandb(self, step: int, values: dict[str, float]) -> None:
        import wandb

        if self._wandb is None:
            self._wandb = wandb.init(
                project=self._config.wandb_project,
                id=self._run_id,
                resume="allow",
                dir=str(self._run_folder),
                config=self._config.model_dump(mode="json"),
            )
        self._wandb.log(values, step=step)
