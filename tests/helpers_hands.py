"""Hands of known pose for tests, in the formats that estimators read."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from render.body import BodyModel, Joint, load_body
from render.hand_estimation.hand_model import HandModel, HandPose
from render.rotations import Floats, frame_from_axes

MANO_COLUMNS = [int(Joint.RIGHT_WRIST), *range(Joint.RIGHT_FINGERS, Joint.RIGHT_FINGERS + 15)]


def mano_arrays(body: BodyModel | None = None) -> dict[str, np.ndarray]:
    """The right hand of the shipped body as the arrays of a MANO file, with made-up shapes and correctives."""
    body = body or load_body()
    part = body.hands[1]
    vertices, joints = (each - body.rest()[1][Joint.RIGHT_WRIST] for each in body.rest())
    count = len(part.vertex_ids)
    rng = np.random.default_rng(3)
    weights = body.weights[part.vertex_ids][:, MANO_COLUMNS].astype(np.float64)
    weights /= weights.sum(axis=1, keepdims=True)
    template = vertices[part.vertex_ids]
    # A regressor that gives each joint as a mean of the vertices around it.
    distance = np.linalg.norm(template[None] - joints[MANO_COLUMNS][:, None], axis=-1)
    near = np.exp(-((distance / 0.02) ** 2))
    parents = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
    return {
        "v_template": template,
        "shapedirs": rng.normal(size=(count, 3, 10)) * 1e-3,
        "posedirs": rng.normal(size=(count, 3, 135)) * 1e-4,
        "J_regressor": near / near.sum(axis=1, keepdims=True),
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, *parents[1:]], range(16)], np.int64),
        "f": part.faces[(part.faces < count).all(axis=1)].astype(np.int64),
        "hands_components": np.eye(45),
        "hands_mean": np.zeros(45),
    }


def write_mano_pickle(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as the official pickle holds them: chumpy objects, a sparse regressor, protocol 2."""
    content: dict[str, Any] = dict(arrays)
    content["shapedirs"] = _global("chumpy.ch", "Ch", {"x": arrays["shapedirs"]})
    flat = arrays["posedirs"].reshape(-1)
    content["posedirs"] = _global(
        "chumpy.reordering",
        "Select",
        {
            "a": _global("chumpy.ch", "Ch", {"x": flat}),
            "idxs": np.arange(len(flat)),
            "preferred_shape": arrays["posedirs"].shape,
        },
    )
    regressor = arrays["J_regressor"]
    rows, columns = regressor.shape
    content["J_regressor"] = _global(
        "scipy.sparse.csc",
        "csc_matrix",
        {
            "data": regressor.T.reshape(-1),
            "indices": np.tile(np.arange(rows), columns),
            "indptr": np.arange(columns + 1) * rows,
            "_shape": (rows, columns),
        },
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        _Pickler(stream, protocol=2).dump(content)


class _Global:
    """An object of a class that is not installed."""

    def __init__(self, module: str, name: str, state: dict[str, Any]) -> None:
        self.module, self.name, self.state = module, name, state


def _global(module: str, name: str, state: dict[str, Any]) -> _Global:
    return _Global(module, name, state)


class _Pickler(pickle._Pickler):
    """Writes `_Global` objects under the names of their classes, as their own libraries would."""

    def save(self, value: Any, save_persistent_id: bool = True) -> None:
        """Save a value."""
        if isinstance(value, _Global):
            self.write(pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode())
            super().save(())
            self.write(pickle.NEWOBJ)
            super().save(value.state)
            self.write(pickle.BUILD)
        else:
            super().save(value, save_persistent_id)


def moving_hand(model: HandModel, frames: int = 12, seed: int = 0, depth: float = 0.6) -> HandPose:
    """A hand that closes while it crosses the picture, fingers up, palm towards or away from the camera."""
    rng = np.random.default_rng(seed)
    rest = frame_from_axes([-1.0 if model.is_right else 1.0, 0, 0], [0, -1.0, 0])
    facing = frame_from_axes(
        np.array([0.2, -1.0, 0.1]) + 0.2 * rng.normal(size=3),
        np.array([0.3, 0.1, 1.0 if seed % 2 else -1.0]) + 0.2 * rng.normal(size=3),
    )
    orientation = np.tile(facing @ rest.T, (frames, 1, 1))
    time = np.linspace(0, 1, frames)[:, None]
    angles = model.usual + time * 0.4 * (model.upper - model.usual)
    place = np.array([-0.05, 0.08, depth]) + time * np.array([0.08, -0.02, 0.05])
    return HandPose(orientation, place, angles)


def silhouette(vertices: np.ndarray, faces: np.ndarray, focal_px: float, width: int, height: int) -> np.ndarray:
    """Pixels bool [height,width] that a mesh [V,3] in the camera's frame covers."""
    pixels = vertices[:, :2] / vertices[:, 2:] * focal_px + (width / 2, height / 2)
    mask = np.zeros((height, width), np.uint8)
    for triangle in np.round((pixels - 0.5) * 16).astype(np.int32)[faces]:
        cv2.fillConvexPoly(mask, triangle, 1, shift=4)
    return mask.astype(bool)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((first & second).sum() / max(1, (first | second).sum()))


def signed_volume(vertices: Floats, faces: np.ndarray) -> float:
    """Volume of a closed mesh; positive where its faces look outwards."""
    corners = vertices[faces]
    return float(np.einsum("fa,fa->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)
