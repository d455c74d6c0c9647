"""Write generated recordings in the exported form that the TRUMANS reader reads (``docs/trumans.md``).

``scenes/<scene_id>/{background.glb,lights.json,objects/<name>.glb}`` and
``recordings/<recording_id>/{motion.pkl,objects.npz,actions.txt,recording.json}``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests.atomic import write_bytes, write_text
from manifests.errors import DwmError
from render.arrays import write_npz
from render.scene import SceneObject
from sources.synthetic.gltf import write_glb
from sources.synthetic.household import Household
from sources.synthetic.recording import RecordingPlan, SyntheticRecording, compose_recording, household_of
from sources.trumans import SOURCE_FPS, BodyParameters
from sources.trumans_exported import (
    ACTIONS_FILE,
    BACKGROUND_FILE,
    LIGHTS_FILE,
    MATRIX_PREFIX,
    MOTION_FILE,
    OBJECTS_FILE,
    OBJECTS_FOLDER,
    RECORDING_FILE,
    RECORDINGS_FOLDER,
    SCENES_FOLDER,
)

LOGGER = logging.getLogger(__name__)

SETTINGS_FILE = "synthetic.json"


@dataclass(frozen=True)
class GenerationReport:
    """What a call of the generator did: recordings ``made`` and ``kept`` (they were there, whole) in ``folder``."""

    folder: Path
    made: int
    kept: int


def generate_recordings(raw: Path, plans: Sequence[RecordingPlan]) -> GenerationReport:
    """Write the recordings that ``raw`` lacks, and their scenes, in the exported form; whole ones are kept.

    Raises:
        DwmError: the folder holds recordings of another seed, or a file cannot be written.
    """
    for seed in {plan.seed for plan in plans}:
        claim_folder(raw, seed)
    missing = [plan for plan in plans if not is_complete(raw, plan)]
    for plan in missing:
        _write_scene(raw, plan)
        _write_recording(raw, compose_recording(plan))
        LOGGER.info("generated %s: %s", plan.recording_id, plan.action)
    return GenerationReport(raw, made=len(missing), kept=len(plans) - len(missing))


def claim_folder(raw: Path, seed: int) -> None:
    """Write the seed into ``raw``, or check that it holds the same one.

    Raises:
        DwmError: the folder holds recordings of another seed.
    """
    settings = json.dumps({"seed": seed}) + "\n"
    path = raw / SETTINGS_FILE
    if not path.exists():
        write_text(path, settings)
    elif path.read_text(encoding="utf-8") != settings:
        raise DwmError(f"{path}: recordings of another seed than {seed} are here; choose another folder")


def scene_files(raw: Path, plan: RecordingPlan) -> dict[str, Path]:
    """Files of a scene, by role; objects as ``objects/<name>``."""
    folder = raw / SCENES_FOLDER / plan.scene_id
    names = [prop.name for prop in household_of(plan.seed, plan.scene).props]
    files = {f"objects/{name}": folder / OBJECTS_FOLDER / f"{name}.glb" for name in names}
    return {"background": folder / BACKGROUND_FILE, "lights": folder / LIGHTS_FILE, **files}


def recording_files(raw: Path, plan: RecordingPlan) -> dict[str, Path]:
    """Files of a recording, by role."""
    folder = raw / RECORDINGS_FOLDER / plan.recording_id
    return {
        "motion": folder / MOTION_FILE,
        "objects": folder / OBJECTS_FILE,
        "actions": folder / ACTIONS_FILE,
        "recording": folder / RECORDING_FILE,
    }


def is_complete(raw: Path, plan: RecordingPlan) -> bool:
    """Tell whether all files of a recording and its scene are there; each was written whole or not at all."""
    files = recording_files(raw, plan).values()
    return all(path.is_file() for path in files) and all(path.is_file() for path in scene_files(raw, plan).values())


def motion_pickle(body: BodyParameters) -> bytes:
    """Bytes of a ``*_smplx_results.pkl`` as the TRUMANS release has them: float32 arrays by name."""
    content: dict[str, Any] = {
        field.name: np.ascontiguousarray(getattr(body, field.name), dtype=np.float32)
        for field in dataclasses.fields(body)
    }
    return pickle.dumps({**content, "gender": ""}, protocol=4)


def actions_text(recording: SyntheticRecording) -> str:
    """Content of an action file: ``start<tab>end<tab>description`` lines."""
    return "".join(f"{action.start}\t{action.end}\t{action.text}\n" for action in recording.actions)


def _write_scene(raw: Path, plan: RecordingPlan) -> None:
    household = household_of(plan.seed, plan.scene)
    files = scene_files(raw, plan)
    writers: dict[str, Callable[[Path], None]] = {
        "background": lambda path: write_glb(path, household.background),
        "lights": lambda path: write_text(path, lights_json(household)),
    }
    for prop in household.props:
        item = SceneObject(prop.name, prop.surfaces, np.eye(4))
        writers[f"objects/{prop.name}"] = lambda path, item=item: write_glb(path, [item])  # type: ignore[misc]
    for role, path in files.items():
        if not path.is_file():
            writers[role](path)


def lights_json(household: Household) -> str:
    """The lights of a scene: `render.scene.Lighting` as JSON, colours linear, places in metres."""
    return json.dumps(dataclasses.asdict(household.lighting), indent=1) + "\n"


def _write_recording(raw: Path, recording: SyntheticRecording) -> None:
    plan = recording.plan
    files = recording_files(raw, plan)
    write_bytes(files["motion"], motion_pickle(recording.body))
    names = list(recording.tracks)
    tracks = {MATRIX_PREFIX + name: recording.tracks[name] for name in names}
    write_npz(files["objects"], {"names": np.array(names), **tracks})
    write_text(files["actions"], actions_text(recording))
    info = {"scene_id": plan.scene_id, "fps": SOURCE_FPS, "num_frames": recording.body.num_frames}
    write_text(files["recording"], json.dumps(info, indent=1) + "\n")
