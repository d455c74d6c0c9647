"""What a checkpoint keeps of the network: the exchanged adapter files, or the whole transformer.

Mode ``lora`` writes the two files of `lora`; mode ``full`` a folder ``transformer`` that stock diffusers loads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwm_model.lora import import_adapter, write_adapter
from dwm_model.train_config import TrainConfig
from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch

TRANSFORMER_FOLDER = "transformer"
"""Folder of a checkpoint of mode ``full``."""

_WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


def write_weights(transformer: Any, tensors: Mapping[str, torch.Tensor], config: TrainConfig, folder: Path) -> None:
    """Write trained weights into an existing folder.

    Args:
        transformer: the network; only its configuration and buffers are read.
        tensors: whole trained parameters by name, on the CPU.
        config: the run's settings.
        folder: where to.
    """
    if config.mode == "lora":
        write_adapter(tensors, config.lora, folder)
        return
    from safetensors.torch import save_file

    target = folder / TRANSFORMER_FOLDER
    transformer.save_config(target)
    parameters = {name for name, _ in transformer.named_parameters()}
    buffers = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in transformer.state_dict().items()
        if name not in parameters
    }
    save_file({**tensors, **buffers}, target / _WEIGHTS_FILE, {"format": "pt"})


def read_weights(transformer: Any, config: TrainConfig, folder: Path) -> None:
    """Load a checkpoint's trained weights into a network that is adapted to its conditioning.

    Raises:
        DwmError: a file is missing or damaged, or of another family, rank or conditioning.
    """
    if config.mode == "lora":
        import_adapter(transformer, folder, config.lora)
        return
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / TRANSFORMER_FOLDER / _WEIGHTS_FILE
    try:
        given = load_file(path)
    except FileNotFoundError as error:
        raise DwmError(f"{path}: not found; a checkpoint of mode full has the whole transformer") from error
    except (SafetensorError, OSError) as error:
        raise DwmError(f"{path}: damaged ({error}); copy or make it again") from error
    present = transformer.state_dict()
    for what, names in (("missing", present.keys() - given.keys()), ("extra", given.keys() - present.keys())):
        if names:
            raise DwmError(
                f"{path}: {len(names)} tensors are {what}, such as {min(names)}; "
                "use a checkpoint of this base's family and conditioning"
            )
    with torch.no_grad():
        for name, tensor in present.items():
            if tensor.shape != given[name].shape:
                raise DwmError(
                    f"{path}: {name} is {list(given[name].shape)}, the network needs {list(tensor.shape)}; "
                    "use a checkpoint of this base's family and conditioning"
                )
            tensor.copy_(given[name])
