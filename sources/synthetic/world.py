"""The generated world that the small base is trained on, and the part of it that training never sees."""

from __future__ import annotations

from dataclasses import replace

from sources.synthetic.actions import Action
from sources.synthetic.recording import RecordingPlan, household_of, plan_recordings

TRAINING_SEED, HELD_OUT_SEED = 700, 701
"""Seeds of the rooms: none is in both parts."""

HELD_OUT_OBJECT = "bottle"
"""Never moved in the training part; it may stand on a table there."""


def plan_training_world(num_scenes: int, recordings_per_scene: int) -> list[RecordingPlan]:
    """Recordings to train on: none in which the held-out object is picked up."""
    plans = plan_recordings(num_scenes, recordings_per_scene, TRAINING_SEED)
    return [plan for plan in plans if not moves_held_out_object(plan)]


def plan_held_out_world(num_scenes: int, recordings_per_scene: int) -> list[RecordingPlan]:
    """Recordings to evaluate with: other rooms and other things, the held-out object among them.

    Each is followed by a variation: the same scene and words, another motion.
    """
    plans = plan_recordings(num_scenes, recordings_per_scene, HELD_OUT_SEED)
    return [replace(plan, variation=variation) for plan in plans for variation in (0, 1)]


def moves_held_out_object(plan: RecordingPlan) -> bool:
    """Whether the recording's person picks up the held-out object."""
    picks_up = plan.action is Action.LIFT_AND_PLACE
    return picks_up and household_of(plan.seed, plan.scene).drink.name == HELD_OUT_OBJECT
