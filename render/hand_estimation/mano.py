"""The MANO hand from the user's own file: read without chumpy or unpickling code, posed in numpy.

Linear blend skinning with shape and pose correctives as in "Embodied Hands" (Romero, Tzionas, Black, 2017), from
rotation matrices; the reference in the tests is the package `smplx`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from manifests.restricted_pickle import StandIns, read_pickle
from render.arrays import read_npz
from render.body import joint_transforms
from render.rotations import Floats
from render.scene import IntArray

NUM_JOINTS = 16
NUM_BETAS = 10

_REQUIRED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_REMEDY = "give MANO_RIGHT.pkl of the MANO release (mano.is.tue.mpg.de), or its arrays as npz"
_MANO_VERTICES = 778
_MANO_TIPS = (744, 320, 443, 554, 671)
"""Vertices at the tips of thumb, index, middle, ring and pinky finger of MANO's own mesh (as `smplx` has them)."""
_FINGER_JOINTS = ((13, 14, 15), (1, 2, 3), (4, 5, 6), (10, 11, 12), (7, 8, 9))
"""Joints of thumb, index, middle, ring and pinky finger."""


@dataclass(frozen=True)
class ManoHand:
    """The right hand of a MANO file.

    Attributes:
        name: file name, recorded as the hand model.
        template: [V,3] metres.
        shape_directions: [V,3,10].
        pose_directions: [135,V*3].
        joint_regressor: [16,V].
        weights: [V,16].
        parents: [16], -1 for the wrist.
        faces: [F,3] of a right hand.
        tips: [5] vertices at the finger tips, thumb first.
    """

    name: str
    template: Floats
    shape_directions: Floats
    pose_directions: Floats
    joint_regressor: Floats
    weights: Floats
    parents: IntArray
    faces: IntArray
    tips: tuple[int, ...]

    def pose(self, rotations: Floats, betas: Floats) -> tuple[Floats, Floats]:
        """Vertices [N,V,3] and key points [N,21,3] of right hands, metres in the hand's own frame.

        Args:
            rotations: [N,16,3,3] of the wrist and the finger joints against their parents.
            betas: [N,10] or [10] shape.
        """
        count = len(rotations)
        shapes = np.broadcast_to(betas, (count, NUM_BETAS))
        vertices = np.empty((count, *self.template.shape))
        joints = np.empty((count, NUM_JOINTS, 3))
        for index in range(count):
            shaped = self.template + self.shape_directions @ shapes[index]
            rest = self.joint_regressor @ shaped
            world = joint_transforms(rotations[index : index + 1], rest, self.parents)[0]
            bend = (rotations[index, 1:] - np.eye(3)).reshape(-1)
            posed = shaped + (bend @ self.pose_directions).reshape(-1, 3)
            moves = world[:, :3].copy()
            moves[..., 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], rest)
            blended = np.einsum("vj,jab->vab", self.weights, moves, optimize=True)
            vertices[index] = np.einsum("vab,vb->va", blended[..., :3], posed) + blended[..., 3]
            joints[index] = world[:, :3, 3]
        points = [joints[:, :1]]
        for chain, tip in zip(_FINGER_JOINTS, self.tips, strict=True):
            points += [joints[:, list(chain)], vertices[:, [tip]]]
        return vertices, np.concatenate(points, axis=1)


def load_mano(path: Path) -> ManoHand:
    """Read a MANO file: the official pickle (its chumpy and scipy objects become plain arrays) or an npz.

    Raises:
        DwmError: the file is missing, broken, holds other objects or lacks an array.
    """
    if path.suffix == ".npz":
        arrays = {name: np.asarray(value) for name, value in read_npz(path, required=_REQUIRED).items()}
    else:
        content = read_pickle(path, remedy=_REMEDY, stand_ins=_STAND_INS)
        if not isinstance(content, dict):
            raise DwmError(f"{path}: holds a {type(content).__name__}, not named arrays; {_REMEDY}")
        missing = [name for name in _REQUIRED if name not in content]
        if missing:
            raise DwmError(f"{path}: lacks the arrays {', '.join(missing)}; {_REMEDY}")
        arrays = {name: _plain(content[name], path) for name in _REQUIRED}
    vertices, joints = arrays["weights"].shape
    if joints != NUM_JOINTS or arrays["shapedirs"].shape[-1] < NUM_BETAS:
        raise DwmError(f"{path}: weights of {arrays['weights'].shape}, MANO has 16 joints and 10 shapes; {_REMEDY}")
    parents = arrays["kintree_table"][0].astype(np.int64)
    parents[0] = -1
    weights = arrays["weights"].astype(np.float64)
    template = arrays["v_template"].astype(np.float64)
    regressor = arrays["J_regressor"].astype(np.float64)
    return ManoHand(
        name=f"mano/{path.name}",
        template=template,
        shape_directions=arrays["shapedirs"][..., :NUM_BETAS].astype(np.float64),
        pose_directions=arrays["posedirs"].reshape(vertices * 3, -1).T.astype(np.float64),
        joint_regressor=regressor,
        weights=weights,
        parents=parents,
        faces=arrays["f"].astype(np.int64),
        tips=_MANO_TIPS if vertices == _MANO_VERTICES else _farthest_tips(template, weights, regressor @ template),
    )


def _farthest_tips(template: Floats, weights: Floats, joints: Floats) -> tuple[int, ...]:
    """Tip vertices of a mesh that is not MANO's own: of each finger's last bone, the one farthest from its joint."""
    tips = []
    for chain in _FINGER_JOINTS:
        own = np.flatnonzero(weights.argmax(axis=1) == chain[-1])
        tips.append(int(own[np.linalg.norm(template[own] - joints[chain[-1]], axis=1).argmax()]))
    return tuple(tips)


class _Inert:
    """Stands for a class of another library: keeps the state that its pickle holds and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Ch(_Inert):
    """Stands for ``chumpy.ch.Ch``."""


class _Select(_Inert):
    """Stands for ``chumpy.reordering.Select``."""


class _SparseColumns(_Inert):
    """Stands for ``scipy.sparse.csc_matrix``."""


def _reconstruct(kind: Any, *_: Any) -> _Inert:
    """Stand-in for how old pickle protocols make an object."""
    if not (isinstance(kind, type) and issubclass(kind, _Inert)):
        raise TypeError("it makes something other than an array")
    return kind()


_STAND_INS: StandIns = {
    ("chumpy.ch", "Ch"): _Ch,
    ("chumpy.reordering", "Select"): _Select,
    ("scipy.sparse.csc", "csc_matrix"): _SparseColumns,
    ("scipy.sparse._csc", "csc_matrix"): _SparseColumns,
    ("copy_reg", "_reconstructor"): _reconstruct,
    ("copyreg", "_reconstructor"): _reconstruct,
    ("__builtin__", "object"): _Inert,
    ("builtins", "object"): _Inert,
}


def _plain(value: Any, path: Path) -> npt.NDArray[Any]:
    """A plain array of what a MANO pickle holds under a name."""
    try:
        if isinstance(value, _Ch):
            return np.asarray(value.state["x"])
        if isinstance(value, _Select):
            flat = _plain(value.state["a"], path).reshape(-1)[np.asarray(value.state["idxs"])]
            shaped: npt.NDArray[Any] = flat.reshape(value.state["preferred_shape"])
            return shaped
        if isinstance(value, _SparseColumns):
            return _dense(value.state)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DwmError(f"{path}: an array is stored in a way that is not known ({error}); {_REMEDY}") from error
    array = np.asarray(value)
    if array.dtype.hasobject:
        raise DwmError(f"{path}: holds objects that are not known; {_REMEDY}")
    return array


def _dense(state: dict[str, Any]) -> npt.NDArray[Any]:
    rows, columns = state["_shape"] if "_shape" in state else state["shape"]
    dense = np.zeros((int(rows), int(columns)))
    starts = np.asarray(state["indptr"])
    for column in range(int(columns)):
        part = slice(int(starts[column]), int(starts[column + 1]))
        dense[np.asarray(state["indices"])[part], column] = np.asarray(state["data"])[part]
    return dense
