"""Generated recordings: which there are, and what one holds, in the terms of TRUMANS (paper section 3.3).

A recording depends only on the seed and its two numbers, so that recordings can be made in any order, in any process,
and again after a kill.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from render.body import BodyModel, BodyMotion, Joint, load_body
from render.rotations import Floats, axis_angle_from_matrix, matrix_from_axis_angle
from sources.synthetic.actions import Action, StagedAction, stage_action
from sources.synthetic.household import Household, make_household
from sources.synthetic.performance import perform
from sources.synthetic.walking import ARRIVAL
from sources.trumans import ActionInterval, BodyParameters

_ACTIONS = tuple(Action)


@dataclass(frozen=True)
class RecordingPlan:
    """Names one recording: everything about it follows from these numbers.

    Attributes:
        seed: of the data set.
        scene: number of the scene.
        recording: number of the recording in its scene.
        variation: 0 for the recording itself; others show the same scene and words with another motion.
    """

    seed: int
    scene: int
    recording: int
    variation: int = 0

    @property
    def scene_id(self) -> str:
        """Name of the scene."""
        return f"scene_{self.scene:04d}"

    @property
    def recording_id(self) -> str:
        """Name of the recording, unique over scenes."""
        suffix = f"_variation_{self.variation}" if self.variation else ""
        return f"{self.scene_id}_recording_{self.recording:03d}{suffix}"

    @property
    def action(self) -> Action:
        """The actions take turns; each scene goes on about where the one before it would end with two recordings."""
        return _ACTIONS[(2 * self.scene + self.recording) % len(_ACTIONS)]


@dataclass(frozen=True)
class SyntheticRecording:
    """A recording before it is written.

    Attributes:
        plan: its numbers.
        household: its scene.
        staged: the action in the frame of the person's place, with the grip.
        body: the person's motion in the world, with the translation of SMPL-X's own pelvis.
        tracks: [T,4,4] world poses of every movable thing, by name.
        actions: annotations.
    """

    plan: RecordingPlan
    household: Household
    staged: StagedAction
    body: BodyParameters
    tracks: dict[str, Floats]
    actions: tuple[ActionInterval, ...]


def plan_recordings(num_scenes: int, recordings_per_scene: int, seed: int) -> list[RecordingPlan]:
    """The recordings of a data set, scene by scene."""
    return [RecordingPlan(seed, scene, index) for scene in range(num_scenes) for index in range(recordings_per_scene)]


@lru_cache(maxsize=2)
def household_of(seed: int, scene: int) -> Household:
    """The furnished room of a scene."""
    return make_household(np.random.default_rng([seed, scene]))


def compose_recording(plan: RecordingPlan, body: BodyModel | None = None) -> SyntheticRecording:
    """Stage and perform a recording with the body that ships with the package, unless another is given."""
    actor = body or load_body()
    household = household_of(plan.seed, plan.scene)
    random = np.random.default_rng([plan.seed, plan.scene, plan.recording, 1])
    numbers = [plan.seed, plan.scene, plan.recording, 2, plan.variation]
    variation = np.random.default_rng(numbers) if plan.variation else None
    staged = stage_action(plan.action, household, actor, random, variation)
    motion = perform(actor, staged.script)
    timeline = staged.script.timeline
    intervals = [ActionInterval(timeline.reach, timeline.released + 1, staged.text)]
    if staged.walk_text is not None:
        intervals.insert(0, ActionInterval(0, ARRIVAL, staged.walk_text))
    parameters = _in_world(actor, motion, staged.place)
    return SyntheticRecording(plan, household, staged, parameters, staged.tracks, tuple(intervals))


def _in_world(body: BodyModel, motion: BodyMotion, place: Floats) -> BodyParameters:
    """SMPL-X parameters in the world of a motion in the frame of a place, as the released pickles hold them.

    The translation is that of SMPL-X's own body, to which readers add a stand-in body's `translation_offset`.
    """
    frames = len(motion.pose)
    pelvis = body.rest()[1][Joint.PELVIS]
    orientation = place[:3, :3] @ matrix_from_axis_angle(motion.pose[:, Joint.PELVIS])
    translation = (motion.translation + pelvis) @ place[:3, :3].T + place[:3, 3] - pelvis - body.translation_offset
    fingers = motion.pose[:, Joint.LEFT_FINGERS :].reshape(frames, 2, 45)
    return BodyParameters(
        global_orient=axis_angle_from_matrix(orientation),
        body_pose=motion.pose[:, 1:22].reshape(frames, 63),
        left_hand_pose=fingers[:, 0],
        right_hand_pose=fingers[:, 1],
        jaw_pose=np.zeros((frames, 3)),
        expression=np.zeros((frames, 10)),
        transl=translation,
        betas=np.zeros(0),
    )


def body_motion(parameters: BodyParameters, body: BodyModel) -> BodyMotion:
    """The motion of a body from SMPL-X parameters of a recording."""
    frames = parameters.num_frames
    pose = np.zeros((frames, 55, 3))
    pose[:, 0] = parameters.global_orient
    pose[:, 1:22] = parameters.body_pose.reshape(frames, 21, 3)
    pose[:, 25:40] = parameters.left_hand_pose.reshape(frames, 15, 3)
    pose[:, 40:55] = parameters.right_hand_pose.reshape(frames, 15, 3)
    motion = BodyMotion(pose, parameters.transl + body.translation_offset, np.zeros(0), np.zeros(0))
    return replace(motion, betas=parameters.betas)
