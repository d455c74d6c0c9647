"""HaMeR's network from the user's own checkout and checkpoint: only the backbone and the head, nothing else of it.

The checkout's packages are found by path; their ``__init__`` files, which want detectron2, mmcv, pyrender, Lightning
and more, are never run. Needs torch and einops. The checkpoint is read with torch's safe loading.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from manifests.errors import DwmError
from render.framing import Frames
from render.rotations import Floats

if TYPE_CHECKING:
    import torch

_PACKAGES = ("hamer", "hamer.models", "hamer.models.components", "hamer.utils")
_BACKBONE = {"embed_dim": 1280, "depth": 32, "num_heads": 16}
"""Size of the published backbone (ViT-H); other sizes can be named in the configuration's MODEL.BACKBONE."""
_SIDE_LOSS = 32
"""Columns of the square crop that the backbone does not see, on each side of 256."""


@dataclass(frozen=True)
class HamerOutput:
    """What the network says of N crops, every hand seen as a right one.

    Attributes:
        rotations: [N,16,3,3] of the wrist and the finger joints.
        betas: [N,10].
        camera: [N,3] ``pred_cam``.
    """

    rotations: Floats
    betas: Floats
    camera: Floats


class Config(dict[str, Any]):
    """A configuration whose entries are attributes too, as HaMeR's code reads it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class HamerNetwork:
    """Backbone and head with the weights of a checkpoint."""

    def __init__(self, root: Path, checkpoint: Path, mean_params: Path, device: str) -> None:
        import torch

        config = read_config(checkpoint)
        config["MANO"]["MEAN_PARAMS"] = str(_existing(mean_params, "mean_params"))
        self.crop_side = int(config.MODEL.IMAGE_SIZE)
        self._mean = np.array(config.MODEL.IMAGE_MEAN, np.float32)
        self._spread = np.array(config.MODEL.IMAGE_STD, np.float32)
        self._device = device
        with _hamer_packages(root):
            self._backbone, self._head = _build(config, root)
        weights = read_weights(checkpoint)
        for prefix, module in (("backbone.", self._backbone), ("mano_head.", self._head)):
            _load_part(module, prefix, weights, checkpoint)
            module.requires_grad_(requires_grad=False)
            module.eval()  # HaMeR's own returns nothing
            module.to(device)
        self._torch = torch

    def predict(self, crops: Frames) -> HamerOutput:
        """Hands of crops, uint8 RGB [N,S,S,3]; those of left hands already mirrored."""
        torch = self._torch
        pictures = (crops.astype(np.float32) / 255 - self._mean) / self._spread
        loss = round(_SIDE_LOSS * self.crop_side / 256)
        batch = torch.from_numpy(pictures).permute(0, 3, 1, 2)[..., loss : self.crop_side - loss]
        with torch.inference_mode():
            parameters, camera, _ = self._head(self._backbone(batch.to(self._device)))
        count = len(crops)
        rotations = [parameters[name].reshape(count, -1, 3, 3) for name in ("global_orient", "hand_pose")]
        return HamerOutput(
            rotations=torch.cat(rotations, dim=1).double().cpu().numpy(),
            betas=parameters["betas"].reshape(count, -1).double().cpu().numpy(),
            camera=camera.reshape(count, 3).double().cpu().numpy(),
        )


def read_config(checkpoint: Path) -> Config:
    """The `model_config.yaml` beside a checkpoint or one folder above it.

    Raises:
        DwmError: there is none, or it is no configuration of HaMeR.
    """
    places = [checkpoint.parent / "model_config.yaml", checkpoint.parent.parent / "model_config.yaml"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DwmError(f"{places[0]}: no such file; put HaMeR's model_config.yaml beside the checkpoint")
    try:
        config: Config = _as_config(yaml.safe_load(path.read_text(encoding="utf-8")))
        kind = config.MODEL.BACKBONE.TYPE, config.MODEL.MANO_HEAD.TYPE
        _ = config.MODEL.IMAGE_SIZE, config.MODEL.IMAGE_MEAN, config.MODEL.IMAGE_STD, config.MANO.NUM_HAND_JOINTS
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        raise DwmError(f"{path}: not a configuration of HaMeR ({str(error).splitlines()[0]})") from error
    if kind != ("vit", "transformer_decoder"):
        raise DwmError(f"{path}: backbone and head are {kind}; only HaMeR's ('vit', 'transformer_decoder') is known")
    return config


def read_weights(checkpoint: Path) -> Mapping[str, torch.Tensor]:
    """The tensors of a Lightning checkpoint, read without running anything that it holds.

    Raises:
        DwmError: no such file, or no checkpoint.
    """
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    _existing(checkpoint, "checkpoint")
    try:
        # Whatever else it mentions (its settings, say) becomes a plain dictionary: no other code is looked up.
        named: list[Any] = [(OrderedDict, name) for name in get_unsafe_globals_in_checkpoint(checkpoint)]
        with safe_globals(named):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DwmError(f"{checkpoint}: not a checkpoint of HaMeR ({reason}); copy hamer.ckpt again") from error
    weights = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise DwmError(f"{checkpoint}: holds no state_dict; give hamer.ckpt")
    return weights


def _as_config(value: Any) -> Any:
    if isinstance(value, dict):
        return Config({key: _as_config(each) for key, each in value.items()})
    return value


def _existing(path: Path, what: str) -> Path:
    if not path.is_file():
        raise DwmError(f"{what} {path}: no such file; check the path")
    return path


def _build(config: Config, root: Path) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The backbone and the head of a configuration, from the checkout's own code."""
    try:
        vit = importlib.import_module("hamer.models.backbones.vit")
        heads = importlib.import_module("hamer.models.heads.mano_head")
    except ModuleNotFoundError as error:
        remedy = "give the checkout of HaMeR" if str(error.name).startswith("hamer") else f"pip install {error.name}"
        raise DwmError(f"hamer_root {root}: the module {error.name} is missing; {remedy}") from error
    sizes = {name: config.MODEL.BACKBONE.get(name.upper(), size) for name, size in _BACKBONE.items()}
    side = int(config.MODEL.IMAGE_SIZE)
    loss = round(_SIDE_LOSS * side / 256)
    backbone: torch.nn.Module = vit.ViT(
        img_size=(side, side - 2 * loss), patch_size=16, ratio=1, mlp_ratio=4, qkv_bias=True, **sizes
    )
    try:
        head: torch.nn.Module = heads.build_mano_head(config)
    except (KeyError, ValueError, OSError) as error:
        path = config.MANO.MEAN_PARAMS
        raise DwmError(f"mean_params {path}: not HaMeR's mano_mean_params.npz ({error})") from error
    return backbone, head


def _load_part(module: Any, prefix: str, weights: Mapping[str, Any], checkpoint: Path) -> None:
    part = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    try:
        module.load_state_dict(part, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise DwmError(
            f"{checkpoint}: does not fit its model_config.yaml ({lines[min(1, len(lines) - 1)][:160]}); "
            "give the two files of one release"
        ) from error


@contextmanager
def _hamer_packages(root: Path) -> Iterator[None]:
    """Let `hamer.*` be imported from a checkout without running its packages' own start files."""
    if not (root / "hamer" / "models" / "backbones" / "vit.py").is_file():
        raise DwmError(f"hamer_root {root}: no hamer/models/backbones/vit.py there; give the checkout of HaMeR")
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "hamer"}
    for name in before:
        del sys.modules[name]
    for name in _PACKAGES:
        package = ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules[name] = package
    lent = _lend_timm()
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "hamer" or name in lent]:
            del sys.modules[name]
        sys.modules.update(before)


def _lend_timm() -> set[str]:
    """Answer for the three small functions of timm that the backbone imports: timm itself wants torchvision."""
    import torch

    def drop_path(x: torch.Tensor, drop_prob: float = 0.0, training: bool = False) -> torch.Tensor:
        if training and drop_prob > 0:
            raise NotImplementedError("HaMeR is not trained here")
        return x

    names = {name for name in ("timm", "timm.models", "timm.models.layers") if name not in sys.modules}
    for name in names:
        sys.modules[name] = ModuleType(name)
    if "timm.models.layers" in names:
        layers: Any = sys.modules["timm.models.layers"]
        layers.drop_path = drop_path
        layers.to_2tuple = lambda x: tuple(x) if isinstance(x, tuple | list) else (x, x)
        layers.trunc_normal_ = torch.nn.init.trunc_normal_
    return names
