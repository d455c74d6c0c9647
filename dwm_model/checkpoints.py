"""Checkpoints of a run: everything that continuing exactly needs, in folders that are whole or absent.

``checkpoints/step-000123/`` holds the trained weights (see `weight_files`), ``ema/`` with their moving average in the
same form where one is kept, ``optimizer.safetensors`` (``<parameter>.<moment>``), ``random_state.safetensors`` (the
generators of each rank) and ``state.json``. The learning rate is a function of the step; order, noise, timesteps and
dropout of a clip are one of its position: none has a state of its own. No file is a pickle.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwm_model.safe_writes import safetensors_errors_as_os_errors
from dwm_model.train_config import TrainConfig
from dwm_model.weight_files import read_weights, write_weights
from manifests.atomic import TEMPORARY_MARK, atomic_folder
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

CHECKPOINTS_FOLDER = "checkpoints"
"""Folder of a run that holds its checkpoints."""

RUN_FILE = "run.json"
"""What a run is: see `RunIdentity`."""

AVERAGE_FOLDER = "ema"
"""Folder of a checkpoint with the moving average of the weights."""

_STATE_FILE = "state.json"
_OPTIMIZER_FILE = "optimizer.safetensors"
_RANDOM_FILE = "random_state.safetensors"
STATE_FILES = (_OPTIMIZER_FILE, _RANDOM_FILE)
"""Tensors of a checkpoint that are no weights."""

_STEP_FOLDER = re.compile(r"step-(\d{6,})")


class RunIdentity(BaseModel):
    """What defines a run; a run is only ever continued with the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="Hash of base, dataset and configuration.")
    base_name: str = Field(description="Folder name of the base model.")
    base_hash: str = Field(description="Hash of the base model's files.")
    base_is_untrained: bool = Field(description="The base has random weights.")
    dataset_hash: str = Field(description="Hash of the clips that are trained on and validated with.")
    config: TrainConfig = Field(description="Training configuration.")


class TrainState(BaseModel):
    """How far a checkpoint is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = Field(description="Optimizer steps done.")
    position: int = Field(description="Clips taken from the data order.")
    world_size: int = Field(default=1, description="Processes that trained together.")


def checkpoint_steps(run_folder: Path) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending."""
    folder = run_folder / CHECKPOINTS_FOLDER
    names = (_STEP_FOLDER.fullmatch(path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(match.group(1)) for match in names if match)


def checkpoint_folder(run_folder: Path, step: int) -> Path:
    """Folder of a checkpoint."""
    return run_folder / CHECKPOINTS_FOLDER / f"step-{step:06d}"


def read_identity(run_folder: Path) -> RunIdentity:
    """Read what a run is.

    Raises:
        DwmError: the folder holds no run, or its file is damaged.
    """
    path = run_folder / RUN_FILE
    try:
        return RunIdentity.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DwmError(f"{path}: not found; {run_folder} holds no training run") from error
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DwmError(f"{path}: damaged ({reason}); start the run again in another folder") from error


@dataclass(frozen=True)
class CheckpointTensors:
    """Tensors of a checkpoint, whole, on the CPU.

    Attributes:
        weights: trained parameters by name.
        optimizer: AdamW's state, ``<parameter>.<moment>``.
        average: moving average of the weights; empty where none is kept.
        random_states: states of the random generators of each rank, by name.
    """

    weights: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    random_states: dict[str, torch.Tensor]


def save_checkpoint(
    run_folder: Path, state: TrainState, tensors: CheckpointTensors, transformer: Any, config: TrainConfig
) -> Path:
    """Write a checkpoint and remove the oldest ones beyond ``config.keep_checkpoints``.

    Older checkpoints go only when the new one is whole on the disk. A checkpoint of the step that is there already is
    left as it is.

    Args:
        run_folder: the run's folder.
        state: how far training is.
        tensors: what is written.
        transformer: the network, for its configuration.
        config: the run's settings.

    Raises:
        DwmError: the disk is full or not writable; the older checkpoints stay.
    """
    from safetensors.torch import save_file

    folder = checkpoint_folder(run_folder, state.step)
    if not folder.exists():
        with atomic_folder(folder) as temporary, safetensors_errors_as_os_errors():
            write_weights(transformer, tensors.weights, config, temporary)
            save_file(tensors.optimizer, temporary / _OPTIMIZER_FILE)
            save_file(tensors.random_states, temporary / _RANDOM_FILE)
            if tensors.average:
                (temporary / AVERAGE_FOLDER).mkdir()
                write_weights(transformer, tensors.average, config, temporary / AVERAGE_FOLDER)
            (temporary / _STATE_FILE).write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for step in checkpoint_steps(run_folder)[: -config.keep_checkpoints]:
        shutil.rmtree(checkpoint_folder(run_folder, step))
    for leftover in folder.parent.glob(f".*{TEMPORARY_MARK}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return folder


def load_state(run_folder: Path, step: int) -> TrainState:
    """How far training was at a checkpoint.

    Raises:
        DwmError: the checkpoint is damaged.
    """
    folder = checkpoint_folder(run_folder, step)
    with _damage_explained(folder):
        return TrainState.model_validate_json((folder / _STATE_FILE).read_bytes())


def load_weights(run_folder: Path, step: int, transformer: Any, config: TrainConfig, *, averaged: bool = False) -> None:
    """Put the network's trained weights back, or their moving average.

    Raises:
        DwmError: the files are missing, damaged, or of another family, rank or conditioning.
    """
    folder = checkpoint_folder(run_folder, step)
    with _damage_explained(folder):
        read_weights(transformer, config, folder / AVERAGE_FOLDER if averaged else folder)


def load_optimizer_tensors(run_folder: Path, step: int, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """AdamW's state of a checkpoint; ``names`` must be there.

    Raises:
        DwmError: the file is missing or damaged, or lacks a name.
    """
    return _load_tensors(checkpoint_folder(run_folder, step), _OPTIMIZER_FILE, names)


def load_random_states(run_folder: Path, step: int, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """States of random generators of a checkpoint; ``names`` must be there.

    Raises:
        DwmError: the file is missing or damaged, or lacks a name.
    """
    return _load_tensors(checkpoint_folder(run_folder, step), _RANDOM_FILE, names)


def _load_tensors(folder: Path, file_name: str, names: Iterable[str]) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    with _damage_explained(folder):
        tensors = load_file(folder / file_name)
        return {name: tensors[name] for name in names}


@contextmanager
def _damage_explained(folder: Path) -> Iterator[None]:
    """Say which checkpoint is damaged and what to do.

    Raises:
        DwmError: a file of it could not be read.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, KeyError, SafetensorError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DwmError(f"{folder}: damaged ({reason}); remove it to continue from the checkpoint before") from error
