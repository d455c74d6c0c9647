"""DreamSim (Fu et al. 2023) through its own package, with weights that already lie on this machine.

The package (extra ``metrics-full``) is imported only when asked for. Before that, the package, torchvision and every
weight file are checked and what is missing is named; while the package loads, downloads are refused. The path with
the real package and weights has never been run by this project: they were not at hand. Its glue is tested with a
stand-in module.
"""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.video import Frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUIRED_PACKAGES = ("dreamsim", "torchvision")
REQUIRED_FILES = (
    "dino_vitb16_pretrain.pth",
    "open_clip_vitb16_pretrain.pth.tar",
    "clip_vitb16_pretrain.pth.tar",
    "ensemble_lora",
)
"""What the ensemble needs in its weights folder (``ensemble_lora`` is a folder)."""


class DreamSimUnavailableError(DwmError):
    """The package or its weights are not on this machine; the message says exactly what is missing."""


class DreamSimModule(Protocol):
    """The part of the ``dreamsim`` package that is used."""

    def dreamsim(self, *, pretrained: bool, device: str, cache_dir: str) -> tuple[Any, Callable[[Any], Any]]:
        """Return the model (two image tensors -> distance) and the preprocessing (PIL image -> [1, 3, 224, 224])."""


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def check_dreamsim(folder: Path | None, is_installed: Callable[[str], bool] = _is_installed) -> Path:
    """Check, without importing anything, that DreamSim can be loaded from ``folder``, and return the folder.

    Args:
        folder: Folder with the weights (the package calls it ``cache_dir``).
        is_installed: Tells whether a package can be imported.

    Raises:
        DreamSimUnavailableError: a package or a file is missing; all that are missing are named.
    """
    missing = [f"package {package}" for package in REQUIRED_PACKAGES if not is_installed(package)]
    if folder is None:
        missing.append("a weights folder")
    else:
        missing += [str(folder / name) for name in REQUIRED_FILES if not (folder / name).exists()]
    if folder is None or missing:
        raise DreamSimUnavailableError(
            f"not available: DreamSim lacks {', '.join(missing)}; "
            "run `pip install 'dwm-pipeline[metrics-full]'` and give the folder with its unpacked weights"
        )
    return folder


@contextmanager
def _downloads_refused() -> Iterator[None]:
    """Make torch.hub fail where it would download: the package reaches for it even with all files in place."""
    import torch

    def refuse(url: str, *_: Any, **__: Any) -> None:
        raise DreamSimUnavailableError(
            f"not available: the dreamsim package wants to download {url}; put that file into its weights folder"
        )

    original = torch.hub.download_url_to_file
    torch.hub.download_url_to_file = refuse
    try:
        yield
    finally:
        torch.hub.download_url_to_file = original


class DreamSim:
    """The DreamSim distance with a loaded model."""

    def __init__(self, model: Any, preprocess: Callable[[Any], Any], device: str = "cpu") -> None:
        """Take what the package's ``dreamsim()`` returns."""
        self._model = model
        self._preprocess = preprocess
        self._device = device

    def frame_distances(self, prediction: Frames, reference: Frames) -> npt.NDArray[np.float64]:
        """Distance of each frame pair, uint8 [T, H, W, 3] RGB each, as float64 [T]; one pair is held at a time.

        Raises:
            DwmError: the shapes differ.
        """
        import torch
        from PIL import Image

        if prediction.shape != reference.shape:
            raise DwmError(f"DreamSim: prediction {prediction.shape} and reference {reference.shape} differ in shape")
        with torch.inference_mode():
            return np.array(
                [
                    float(
                        self._model(
                            self._preprocess(Image.fromarray(predicted)).to(self._device),
                            self._preprocess(Image.fromarray(true)).to(self._device),
                        )
                    )
                    for predicted, true in zip(prediction, reference, strict=True)
                ],
                dtype=np.float64,
            )


def load_dreamsim(
    folder: Path | None,
    device: str = "cpu",
    *,
    is_installed: Callable[[str], bool] = _is_installed,
    import_module: Callable[[str], Any] = importlib.import_module,
) -> DreamSim:
    """Load DreamSim from ``folder`` without downloading anything.

    Args:
        folder: Folder with the weights; see ``REQUIRED_FILES``.
        device: Torch device.
        is_installed: Tells whether a package can be imported.
        import_module: Imports the package; tests pass a stand-in.

    Raises:
        DreamSimUnavailableError: a package or a file is missing; all that are missing are named.
    """
    weights = check_dreamsim(folder, is_installed)
    with _downloads_refused():
        module: DreamSimModule = import_module("dreamsim")
        model, preprocess = module.dreamsim(pretrained=True, device=device, cache_dir=str(weights))
    return DreamSim(model, preprocess, device)
