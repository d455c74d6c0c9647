"""LoRA adapters and the two files in which users exchange them.

``pytorch_lora_weights.safetensors`` has the keys that diffusers' LoRA loaders write
(``transformer.<module>.lora_A.weight``), ``non_lora_weights.safetensors`` what trains whole: the patch
projection (``patch_embed.proj.*``) and the modules that a conditioning adds. Trained weights are float32 whatever the
base is: in bfloat16 most updates of a small learning rate are rounded away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError

if TYPE_CHECKING:
    import torch
    from diffusers import CogVideoXTransformer3DModel

LORA_FILE = "pytorch_lora_weights.safetensors"
"""LoRA weights, as diffusers reads them."""

PROJECTION_FILE = "non_lora_weights.safetensors"
"""What trains whole: see `TRAINED_PREFIXES`."""

TRAINED_PREFIXES = ("patch_embed.proj.", "patch_embedding.", "time_embedding.pose.", "control_branch.")
"""Beginnings of the names of parameters that train whole beside the adapter, where a network has them: the patch
projection of CogVideoX and of Wan, and what `adaln` and `control_branch` add."""

_PREFIX = "transformer."
_ADAPTER_NAME = "default"
_METADATA_KEY = "lora_adapter_metadata"
_CONTROL_COPIES = r"control_branch\..*"


ALL_LINEAR_LAYERS = (
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("ff.net.0.proj", "ff.net.2", "norm1.linear", "norm2.linear"),
)
"""Every linear layer of a CogVideoX block: attention, feed-forward, modulation."""


class LoraSettings(BaseModel):
    """Size and place of a LoRA adapter (paper Appendix A)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=64, description="Rank of each update.", gt=0)
    alpha: float = Field(default=64.0, description="The update is scaled by alpha / rank.", gt=0)
    target_modules: tuple[str, ...] = Field(
        default=("to_q", "to_k", "to_v", "to_out.0"),
        description="Linear layers of each block that get one; the paper's are those of its attention.",
    )


def add_lora(transformer: CogVideoXTransformer3DModel, settings: LoraSettings, seed: int) -> None:
    """Freeze a transformer, add a LoRA adapter, and let it and what trains whole train, in float32.

    Args:
        transformer: network, already adapted to its conditioning; changed in place.
        settings: size and place.
        seed: seed of the adapter's first factors (the second ones start at zero).
    """
    import torch
    from peft import LoraConfig

    transformer.requires_grad_(requires_grad=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            target_modules=list(settings.target_modules),
            exclude_modules=_CONTROL_COPIES if hasattr(transformer, "control_branch") else None,
            bias="none",
        )
        transformer.add_adapter(config, adapter_name=_ADAPTER_NAME)
    for name, parameter in transformer.named_parameters():
        if ".lora_" in name or name.startswith(TRAINED_PREFIXES):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(requires_grad=True)


def trainable_parameters(transformer: CogVideoXTransformer3DModel) -> dict[str, torch.nn.Parameter]:
    """Parameters that train, by name, in the network's order."""
    return {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}


def export_adapter(transformer: CogVideoXTransformer3DModel, settings: LoraSettings, folder: Path) -> None:
    """Write the two exchanged files into an existing folder; rank and alpha go into the LoRA file's metadata."""
    tensors = {name: parameter.detach().cpu().contiguous() for name, parameter in transformer.named_parameters()}
    write_adapter(
        {name: tensor for name, tensor in tensors.items() if ".lora_" in name or name.startswith(TRAINED_PREFIXES)},
        settings,
        folder,
    )


def write_adapter(tensors: Mapping[str, torch.Tensor], settings: LoraSettings, folder: Path) -> None:
    """Write trained tensors, by parameter name, as the two exchanged files into an existing folder."""
    from safetensors.torch import save_file

    described = {
        f"{_PREFIX}r": settings.rank,
        f"{_PREFIX}lora_alpha": settings.alpha,
        f"{_PREFIX}target_modules": list(settings.target_modules),
    }
    lora = {
        _PREFIX + name.replace(f".{_ADAPTER_NAME}.weight", ".weight"): tensor
        for name, tensor in tensors.items()
        if ".lora_" in name
    }
    metadata = {_METADATA_KEY: json.dumps(described, indent=2, sort_keys=True)}  # several come in random order
    save_file(lora, folder / LORA_FILE, metadata)
    save_file({name: tensor for name, tensor in tensors.items() if ".lora_" not in name}, folder / PROJECTION_FILE)


def read_settings(folder: Path) -> LoraSettings | None:
    """Rank, alpha and modules that a LoRA file tells of itself; None where it tells nothing (older files).

    Raises:
        DwmError: the file is missing or damaged.
    """
    metadata, _ = _read_tensors(folder / LORA_FILE)
    if _METADATA_KEY not in metadata:
        return None
    try:
        told = json.loads(metadata[_METADATA_KEY])
        described = {key.removeprefix(_PREFIX): value for key, value in told.items()}
        modules = described["target_modules"]
        return LoraSettings(
            rank=described["r"],
            alpha=described["lora_alpha"],
            target_modules=(modules,) if isinstance(modules, str) else tuple(modules),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DwmError(f"{folder / LORA_FILE}: its adapter metadata is incomplete; export the adapter again") from error


def settings_from_tensors(folder: Path, alpha: float) -> LoraSettings:
    """Settings of a LoRA file that tells nothing of itself: rank and modules from its tensors, alpha as given.

    Raises:
        DwmError: the file is missing or damaged, or its tensors are no LoRA of one rank.
    """
    path = folder / LORA_FILE
    _, tensors = _read_tensors(path)
    first = {name: tensor for name, tensor in tensors.items() if name.endswith(".lora_A.weight")}
    ranks = {len(tensor) for tensor in first.values()}
    if len(ranks) != 1:
        raise DwmError(f"{path}: holds tensors of {len(ranks)} ranks; a LoRA file of diffusers has one")
    modules = {name.removesuffix(".lora_A.weight").split(".attn")[-1].partition(".")[2] for name in first}
    return LoraSettings(rank=ranks.pop(), alpha=alpha, target_modules=_in_usual_order(modules))


def _in_usual_order(modules: set[str]) -> tuple[str, ...]:
    usual = LoraSettings().target_modules
    return tuple(sorted(modules, key=lambda name: (usual.index(name) if name in usual else len(usual), name)))


def import_adapter(
    transformer: CogVideoXTransformer3DModel, folder: Path, settings: LoraSettings | None = None
) -> None:
    """Add an exchanged adapter to a base transformer that is already adapted to its conditioning.

    Args:
        transformer: network; changed in place. An adapter that is there already is overwritten.
        folder: folder with the two files.
        settings: rank and alpha; None takes what the file tells. Alpha is never assumed to be the rank.

    Raises:
        DwmError: a file is missing or damaged, its rank is not the given one, keys are missing or extra, the patch
            projection has another shape, or alpha is unknown.
    """
    settings = settings or read_settings(folder)
    if settings is None:
        raise DwmError(f"{folder / LORA_FILE}: does not tell its alpha; give rank and alpha of its training")
    if _ADAPTER_NAME not in getattr(transformer, "peft_config", {}):
        add_lora(transformer, settings, seed=0)
    parameters = dict(trainable_parameters(transformer))
    _, lora = _read_tensors(folder / LORA_FILE)
    _, projection = _read_tensors(folder / PROJECTION_FILE)
    given = {_adapter_parameter_name(name): tensor for name, tensor in lora.items()} | projection
    _load_parameters(parameters, given, folder)


def _adapter_parameter_name(exchanged: str) -> str:
    """Parameter name of an exchanged key: peft puts the adapter's name before ``weight``."""
    return exchanged.removeprefix(_PREFIX).removesuffix(".weight") + f".{_ADAPTER_NAME}.weight"


def _load_parameters(parameters: dict[str, torch.nn.Parameter], given: dict[str, torch.Tensor], folder: Path) -> None:
    """Copy tensors into parameters; every parameter must be given, and nothing else."""
    import torch

    for what, names in (("missing", parameters.keys() - given.keys()), ("extra", given.keys() - parameters.keys())):
        if names:
            raise DwmError(
                f"{folder}: {len(names)} adapter tensors are {what}, such as {min(names)}; "
                "use an adapter of this base's family and conditioning"
            )
    for name, parameter in parameters.items():
        if parameter.shape != given[name].shape:
            raise DwmError(
                f"{folder}: {name} is {list(given[name].shape)}, the network needs {list(parameter.shape)}; "
                "use an adapter of this base, rank and conditioning"
            )
        with torch.no_grad():
            parameter.copy_(given[name])


def _read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Metadata and tensors of a safetensors file."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise DwmError(f"{path}: not found; an adapter has {LORA_FILE} and {PROJECTION_FILE}")
    try:
        with safe_open(path, framework="pt") as opened:
            names = list(opened.keys())
            return opened.metadata() or {}, {name: opened.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise DwmError(f"{path}: damaged ({error}); copy or make it again") from error
