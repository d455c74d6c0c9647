"""One hand of a skinned body as a closed mesh: cut from the arm by a plane across the forearm, and capped.

Which vertices belong to a hand, their skinning weights say; where weights alone would end it, the rim is ragged and
trails a strand at a bent wrist. So the hand ends at the plane across the forearm where the skin is half the hand's
and half the arm's, and triangles that cross the plane are shared out between the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifests.errors import DwmError
from render.rotations import Floats, normalised

Ints = npt.NDArray[np.int64]

_HALF = 0.5
_LEAST_DISTANCE_M = 1e-5
"""A vertex nearer to the plane counts as this far beyond it, so that no cut passes through a vertex."""


@dataclass(frozen=True)
class HandPart:
    """One hand of a body: a closed mesh over some of its vertices, points on the wrist's rim, and the cap's centre.

    Attributes:
        vertex_ids: [H] ids of the body's vertices, in rising order.
        rim_edges: [R,2] ids of the body's vertices at the ends of each edge that the rim crosses.
        rim_shares: [R] where on its edge a rim point lies, 0 = at the first end.
        faces: [F,3] positions in the array that `vertices` returns.
        body_face_mask: [body faces] True where a face of the body belongs to the hand, wholly or in part.
        arm_faces: [A,3] what the arm keeps of the faces that the rim crosses: ids of the body's vertices, and the
            number of these + r for the rim point r.
        arm_face_owners: [A] the body's face that each of these is a piece of.
    """

    vertex_ids: Ints
    rim_edges: Ints
    rim_shares: Floats
    faces: Ints
    body_face_mask: npt.NDArray[np.bool_]
    arm_faces: Ints
    arm_face_owners: Ints

    def vertices(self, body_vertices: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Vertices [...,H+R+1,3] of the hand, from the body's [...,V,3]."""
        rim = self.rim(body_vertices)
        centre = rim.mean(axis=-2, keepdims=True, dtype=np.float64).astype(np.float32)
        return np.concatenate([body_vertices[..., self.vertex_ids, :], rim, centre], axis=-2)

    def rim(self, body_vertices: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Points [...,R,3] of the rim, from the body's vertices [...,V,3]: they follow the skin."""
        shares = self.rim_shares.astype(np.float32)[:, None]
        first, second = (body_vertices[..., self.rim_edges[:, end], :] for end in (0, 1))
        result: npt.NDArray[np.float32] = first * (1 - shares) + second * shares
        return result


def cut_hand(
    name: str,
    vertices: Floats,
    faces: Ints,
    *,
    hand_weights: npt.NDArray[np.float32],
    arm_weights: npt.NDArray[np.float32],
    forearm: tuple[Floats, Floats],
) -> HandPart:
    """Cut a hand from a body at rest.

    Args:
        name: of the body, for errors.
        vertices: [V,3] rest vertices, metres.
        faces: [F,3].
        hand_weights: [V] skinning weight to the wrist and the fingers.
        arm_weights: [V] skinning weight to the elbow: the forearm's.
        forearm: elbow and wrist joint [3].

    Raises:
        DwmError: the weights tell no hand from its arm.
    """
    on_limb = (hand_weights + arm_weights > _HALF)[faces].all(axis=1)
    axis = normalised(forearm[1] - forearm[0])
    along = vertices @ axis
    beyond = along - _wrist_place(name, along, faces[on_limb], hand_weights)
    beyond[np.abs(beyond) < _LEAST_DISTANCE_M] = _LEAST_DISTANCE_M
    count = (beyond > 0)[faces].sum(axis=1)
    whole, crossed = on_limb & (count == 3), on_limb & (count > 0) & (count < 3)
    edges, pieces = _split(faces[crossed], beyond, len(vertices))
    shares = beyond[edges[:, 0]] / (beyond[edges[:, 0]] - beyond[edges[:, 1]])
    is_hand = np.append(beyond > 0, np.ones(len(edges), np.bool_))[pieces].all(axis=1)

    hand_faces = np.concatenate([faces[whole], pieces[is_hand]])
    vertex_ids = np.unique(hand_faces[hand_faces < len(vertices)])
    used = np.concatenate([vertex_ids, len(vertices) + np.arange(len(edges))])
    own_faces = np.searchsorted(used, hand_faces)
    rim = open_edges(own_faces)
    cap = np.concatenate([rim[:, ::-1], np.full((len(rim), 1), len(used))], axis=1)
    return HandPart(
        vertex_ids=vertex_ids,
        rim_edges=edges,
        rim_shares=shares,
        faces=np.concatenate([own_faces, cap]),
        body_face_mask=whole | crossed,
        arm_faces=pieces[~is_hand],
        arm_face_owners=np.tile(np.flatnonzero(crossed), 3)[~is_hand],
    )


def open_edges(faces: Ints) -> Ints:
    """Directed edges [E,2] that only one face has: the rim of an open mesh."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, first, counts = np.unique(np.sort(edges, axis=1), axis=0, return_index=True, return_counts=True)
    rim: Ints = edges[np.sort(first[counts == 1])]
    return rim


def _wrist_place(name: str, along: Floats, faces: Ints, hand_weights: npt.NDArray[np.float32]) -> float:
    """Mean place along the forearm where the weight to the hand passes a half, over the edges of faces [F,3]."""
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    first, second = (hand_weights[edges[:, end]].astype(np.float64) - _HALF for end in (0, 1))
    passing = (first > 0) != (second > 0)
    if not passing.any():
        raise DwmError(f"{name}: no skinning weights pass from forearm to hand; give an SMPL-X file with its weights")
    share = first[passing] / (first[passing] - second[passing])
    start, end = along[edges[passing]].T
    return float((start + share * (end - start)).mean())


def _split(faces: Ints, beyond: Floats, num_vertices: int) -> tuple[Ints, Ints]:
    """Edges [R,2] that a plane crosses, and three triangles [3F,3] for each crossed face; point r is num_vertices + r.

    Args:
        faces: [F,3] with one or two corners beyond the plane.
        beyond: [V] distance beyond it, never 0.
        num_vertices: V.
    """
    sides = (beyond > 0)[faces]
    lonely = np.where(sides.sum(axis=1) == 1, sides.argmax(axis=1), sides.argmin(axis=1))
    rows = np.arange(len(faces))
    alone, following, last = (faces[rows, (lonely + turn) % 3] for turn in range(3))
    cuts = np.sort(np.concatenate([np.stack([alone, following], 1), np.stack([alone, last], 1)]), axis=1)
    edges, numbers = np.unique(cuts, axis=0, return_inverse=True)
    to_following, to_last = np.split(num_vertices + numbers.reshape(-1), 2)
    triangles = (
        (alone, to_following, to_last),
        (to_following, following, last),
        (to_following, last, to_last),
    )
    return edges, np.concatenate([np.stack(corners, axis=1) for corners in triangles])
