"""Checkpoints of a run: everything that continuing exactly needs, in folders that are whole or absent.

``checkpoints/step-000123/`` holds the two exchanged adapter files (see `lora`), ``optimizer.safetensors``
(``<parameter>.<moment>``), ``random_state.safetensors`` (one tensor a rank) and ``state.json``. The learning rate is a
function of the step, and the data order of the position, so neither has a state of its own. No file is a pickle.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dwm_model.lora import LoraSettings, export_adapter, import_adapter, trainable_parameters
from dwm_model.safe_writes import safetensors_errors_as_os_errors
from dwm_model.train_config import TrainConfig
from manifests.atomic import TEMPORARY_MARK, atomic_folder
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXTransformer3DModel

CHECKPOINTS_FOLDER = "checkpoints"
"""Folder of a run that holds its checkpoints."""

RUN_FILE = "run.json"
"""What a run is: see `RunIdentity`."""

_STATE_FILE = "state.json"
_OPTIMIZER_FILE = "optimizer.safetensors"
_RANDOM_FILE = "random_state.safetensors"
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


def save_checkpoint(
    run_folder: Path,
    state: TrainState,
    *,
    transformer: CogVideoXTransformer3DModel,
    settings: LoraSettings,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
    keep: int,
) -> Path:
    """Write a checkpoint atomically, then remove the oldest beyond ``keep`` and what killed processes left.

    Returns:
        Its folder; one that exists already is left as it is.

    Raises:
        DwmError: the disk is full or the folder cannot be written; older checkpoints are untouched then.
    """
    from safetensors.torch import save_file

    folder = checkpoint_folder(run_folder, state.step)
    if not folder.exists():
        with atomic_folder(folder) as temporary, safetensors_errors_as_os_errors():
            export_adapter(transformer, settings, temporary)
            save_file(_optimizer_tensors(transformer, optimizer), temporary / _OPTIMIZER_FILE)
            save_file({"rank0": generator.get_state()}, temporary / _RANDOM_FILE)
            (temporary / _STATE_FILE).write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
    for step in checkpoint_steps(run_folder)[:-keep]:
        shutil.rmtree(checkpoint_folder(run_folder, step))
    for leftover in folder.parent.glob(f".*{TEMPORARY_MARK}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    return folder


def load_checkpoint(
    run_folder: Path,
    step: int,
    *,
    transformer: CogVideoXTransformer3DModel,
    settings: LoraSettings,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> TrainState:
    """Put network, optimizer and random generator back where a checkpoint left them.

    Raises:
        DwmError: a file of the checkpoint is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = checkpoint_folder(run_folder, step)
    try:
        state = TrainState.model_validate_json((folder / _STATE_FILE).read_bytes())
        tensors = load_file(folder / _OPTIMIZER_FILE)
        random_state = load_file(folder / _RANDOM_FILE)["rank0"]
        import_adapter(transformer, folder, settings)
        for name, parameter in trainable_parameters(transformer).items():
            optimizer.state[parameter] = {
                moment: tensors[f"{name}.{moment}"].to("cpu" if moment == "step" else parameter.device)
                for moment in ("step", "exp_avg", "exp_avg_sq")
            }
    except (OSError, KeyError, SafetensorError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DwmError(f"{folder}: damaged ({reason}); remove it to continue from the checkpoint before") from error
    generator.set_state(random_state)
    return state


def _optimizer_tensors(
    transformer: CogVideoXTransformer3DModel, optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """AdamW's state, by parameter name and moment."""
    return {
        f"{name}.{moment}": tensor.detach().cpu().contiguous()
        for name, parameter in trainable_parameters(transformer).items()
        for moment, tensor in optimizer.state[parameter].items()
    }
