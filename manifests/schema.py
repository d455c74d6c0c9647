"""What a clip is: the rows of the manifest tables and their one documented schema.

Field names are the Parquet column names. Paths are relative to the dataset folder, with ``/``, so that a dataset can
be moved. Conventions: OpenCV camera axes (x right, y down, z forward), metres, pixel centres at +0.5,
world-from-camera 4x4 matrices, hand arrays in the camera's frame, y-up world.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1
"""Raised when a column changes its meaning or goes; readers refuse newer versions."""


class Source(StrEnum):
    """Where a clip comes from."""

    TRUMANS = "trumans"
    TASTE_ROB = "taste_rob"
    ARIA = "aria"
    OFFICIAL = "official"
    TWIN = "twin"
    SYNTHETIC = "synthetic"


class Group(StrEnum):
    """Column groups of the paper's Table 1, and one for generated fixed-camera clips."""

    SYNTHETIC_DYNAMIC = "synthetic_dynamic"
    SYNTHETIC_STATIC = "synthetic_static"
    REAL_STATIC = "real_static"
    REAL_DYNAMIC = "real_dynamic"


class ClipStatus(StrEnum):
    """What can be done with a clip."""

    READY = "ready"
    """Whole triplet: can be trained on and benchmarked."""
    CONDITIONS_ONLY = "conditions_only"
    """No ground truth: can be generated from and ranked, not trained on."""
    DROPPED = "dropped"
    """Left out by a rule; ``reason`` says which."""
    FAILED = "failed"
    """Could not be made; ``reason`` says why. Building again tries it again."""


class Split(StrEnum):
    """Part of a dataset."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Review(StrEnum):
    """A person's verdict on a clip."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"


class GenerationStatus(StrEnum):
    """State of one generated video."""

    READY = "ready"
    FAILED = "failed"


class RunStatus(StrEnum):
    """State of a training run."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class RegistryAction(StrEnum):
    """What was decided about which run is in use."""

    PROMOTED = "promoted"
    """The run is in use from now on."""
    KEPT = "kept"
    """The run was not good enough; the one before stays in use."""
    ROLLED_BACK = "rolled_back"
    """The run is in use again that was before the last promoted one."""


def utc_now() -> datetime:
    """Current time, UTC, whole milliseconds (what the Parquet column holds)."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


class Row(BaseModel):
    """A row of a manifest table. Subclasses name their table and key column."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_enum_values=False)

    table_name: ClassVar[str]
    key_column: ClassVar[str]

    @property
    def key(self) -> str:
        """Value of the key column: unique in the table."""
        return str(getattr(self, self.key_column))

    def updated(self, **changes: Any) -> Self:
        """Copy with some fields changed, validated again."""
        return type(self).model_validate({**self.model_dump(), **changes})


class Clip(Row):
    """One clip: an aligned triplet of interaction, static and hand videos, or what is known of one."""

    table_name: ClassVar[str] = "clips"
    key_column: ClassVar[str] = "clip_id"

    clip_id: str = Field(description="Hash of what defines the clip.")
    source: Source = Field(description="Where the clip comes from.")
    group: Group | None = Field(
        default=None, description="Column group of Table 1; null when unknown. Generated data never claims `real_*`."
    )
    scene_id: str = Field(description="Scene (room, kitchen, desk) that the clip shows.")
    recording_id: str = Field(description="Recording that the clip was cut from.")
    official_path: str | None = Field(
        default=None, description="Path of the interaction video in an official list or folder; null otherwise."
    )
    list_order: int | None = Field(default=None, description="Position (from 0) in the official list.")

    start_frame: int = Field(default=0, description="First source frame of the clip.")
    frame_step: int = Field(
        default=1,
        description="Source frames between two frames of the clip (rounded where video is resampled by time).",
    )
    num_frames: int = Field(default=0, description="Frames in each video of the clip (0: unknown, failed clips).")
    fps: float = Field(default=0.0, description="Frames a second of the videos (0: unknown).")
    width: int = Field(default=0, description="Width of the videos, pixels (0: unknown).")
    height: int = Field(default=0, description="Height of the videos, pixels (0: unknown).")

    interaction_path: str | None = Field(default=None, description="Interaction video (ground truth).")
    static_path: str | None = Field(default=None, description="Static-scene video along the same camera path.")
    hands_path: str | None = Field(
        default=None, description="Hand-mesh video along the same camera path, black background."
    )
    camera_path: str | None = Field(
        default=None, description="npz: `intrinsics` [3,3] pixels, `world_from_camera` [T,4,4]."
    )
    masks_path: str | None = Field(
        default=None, description="npz: `ids` uint8 [T,H,W], see `MaskId`; null when unknown."
    )
    depth_path: str | None = Field(
        default=None, description="npz: `depth` float16 [T,H,W], metres along z of the interaction video, 0 = nothing."
    )
    hand_motion_path: str | None = Field(
        default=None,
        description="npz, one entry N a visible hand: `frame`, `is_right`, `score`, `track_id`, `pose` [N,45], `orientation` [N,3], "
        "`translation` [N,3], `joints_camera` [N,21,3], `joints_image` [N,21,2], `vertices` [N,V,3], `faces_left`, `faces_right`, `focal_px`; "
        "NaN where an estimator has no such thing; null path when unknown.",
    )

    prompt: str = Field(default="", description="Text prompt, all lines.")
    prompt_origin: str | None = Field(
        default=None,
        description="Where the prompt comes from (`prompts_rewrite`, `prompts`, an annotation, a captioner).",
    )
    action_label: str | None = Field(default=None, description="Short name of the action; null when unknown.")

    static_policy: str | None = Field(
        default=None,
        description="What the static video freezes: `clip_first`, `scene_initial`, `first_frame`, `reconstruction`; null when unknown.",
    )
    fit_policy: str | None = Field(
        default=None,
        description="How the source picture got the clip's size: `pad`, `crop` or `stretch`; null where it was rendered or kept.",
    )
    length_policy: str | None = Field(
        default=None,
        description="How a source that is shorter than the clip was brought to its length: `pad_last` or `stretch`; null where it is long enough.",
    )
    hand_estimator: str | None = Field(
        default=None,
        description="What made the hand meshes: `body_model`, `hamer`, `landmarks`, `file`; null when unknown.",
    )
    calibration_source: str | None = Field(
        default=None,
        description="Where the camera comes from: `rendered`, `online`, `factory`, `assumed` (field of view of the hand estimator); null when unknown.",
    )
    body_model: str | None = Field(
        default=None, description="Body model file behind the hands and the actor; null when unknown."
    )
    licence: str | None = Field(default=None, description="Licence of the source data; null when unknown.")
    faces_blurred: bool | None = Field(default=None, description="Whether faces are blurred; null when unknown.")

    hand_visible_frames: int | None = Field(default=None, description="Frames whose hand video shows a hand.")
    object_motion_m: float | None = Field(default=None, description="Largest path length of a moved object, metres.")
    camera_motion_px: float | None = Field(
        default=None, description="Mean background motion between neighbouring frames, pixels."
    )
    moved_objects: tuple[str, ...] = Field(
        default=(), description="Names of the objects that move in the clip; empty when none does or it is unknown."
    )
    background_psnr_db: float | None = Field(
        default=None, description="PSNR of static against interaction outside the interaction region, dB."
    )
    reconstruction_psnr_db: float | None = Field(
        default=None,
        description="PSNR of the reconstructed scene on held-out exploration frames, dB; null without one.",
    )
    unseen_share: float | None = Field(
        default=None,
        description="Largest share (0-1) of a static frame where the scene was never seen; null where it is rendered whole.",
    )
    registration_px: float | None = Field(
        default=None,
        description="Median shift between the static and the interaction video outside the hands, pixels; null where both are rendered.",
    )
    floater_share: float | None = Field(
        default=None,
        description="Largest share (0-1) of a frame's sight lines to semi-dense points in which the static scene has something that is not there; null where there are no such points.",
    )
    hand_jitter_px: float | None = Field(default=None, description="Mean second difference of hand joints, pixels.")
    time_offset_frames: int | None = Field(
        default=None, description="Offset between the videos of the triplet by motion cross-correlation, frames."
    )

    first_frame_hash: str | None = Field(
        default=None,
        description="Fingerprint of the first frame, 64 bits in hexadecimal: alike frames differ in few bits; null where none is made.",
    )
    near_duplicate_group: str | None = Field(
        default=None, description="Clips that look alike share it; splits keep them together."
    )
    flags: tuple[str, ...] = Field(default=(), description="Reasons for a person to look; not errors.")
    review: Review | None = Field(default=None, description="A person's verdict.")
    review_at: datetime | None = Field(default=None, description="When the verdict was given, UTC.")
    review_reason: str | None = Field(default=None, description="Why.")

    split: Split | None = Field(default=None, description="Part of the dataset; null before `dwm split`.")
    status: ClipStatus = Field(description="What can be done with the clip.")
    reason: str | None = Field(default=None, description="Why the clip is dropped, failed or without ground truth.")

    input_hashes: dict[str, str] = Field(default_factory=dict, description="SHA-256 of the raw input files, by role.")
    output_hashes: dict[str, str] = Field(
        default_factory=dict, description="SHA-256 of the clip's files, by column name."
    )
    code_version: str = Field(default="", description="Version of the code that made the row.")
    config_hash: str = Field(default="", description="Hash of the settings that made the row.")
    created_at: datetime = Field(
        default_factory=utc_now,
        description="When the row was made, UTC; the only column that differs between equal builds.",
    )

    MEDIA_COLUMNS: ClassVar[tuple[str, ...]] = ("interaction_path", "static_path", "hands_path")
    FILE_COLUMNS: ClassVar[tuple[str, ...]] = (
        *MEDIA_COLUMNS,
        "camera_path",
        "masks_path",
        "depth_path",
        "hand_motion_path",
    )


class MaskId:
    """Pixel values of `ids` in a clip's masks file; a pixel has the id of what the interaction video shows there."""

    BACKGROUND = 0
    HANDS = 1
    ACTOR = 2
    """The actor without the hands."""
    MOVED_OBJECT = 3
    """A moved object where it is now, and where it was in the static video."""
    SHADOW = 4
    """Scene pixels whose light changes by what moves."""


class Generation(Row):
    """One generated video. Benchmark, ranking, ablations and resume read and write this table."""

    table_name: ClassVar[str] = "generations"
    key_column: ClassVar[str] = "generation_id"

    generation_id: str = Field(description="Hash of clip, run, step, method, seed and sampler settings.")
    clip_id: str = Field(description="Clip whose conditions were used.")
    run_id: str | None = Field(default=None, description="Training run; null for methods without one.")
    checkpoint_step: int | None = Field(default=None, description="Step of the checkpoint.")
    method: str = Field(description="Row of the table: `DWM`, `static copy`, ...")
    seed: int = Field(description="Seed of the initial noise.")
    num_inference_steps: int | None = Field(
        default=None, description="Denoising steps; null for methods that do not sample."
    )
    guidance_scale: float | None = Field(
        default=None, description="Text guidance; null for methods that do not sample."
    )
    base_hash: str | None = Field(default=None, description="Hash of the base model's files.")
    base_is_untrained: bool = Field(
        default=False, description="The base has random weights: its videos are no results."
    )
    width: int = Field(default=0, description="Width, pixels.")
    height: int = Field(default=0, description="Height, pixels.")
    num_frames: int = Field(default=0, description="Frames.")
    path: str | None = Field(default=None, description="The video, relative to the dataset; null when failed.")
    psnr: float | None = Field(default=None, description="dB against the interaction video at the generated size.")
    ssim: float | None = Field(default=None, description="Structural similarity.")
    lpips_vgg: float | None = Field(default=None, description="LPIPS with VGG; null when its weights are absent.")
    lpips_alex: float | None = Field(
        default=None, description="LPIPS with AlexNet; null when not asked for or weights are absent."
    )
    dreamsim: float | None = Field(default=None, description="DreamSim; null when its package or weights are absent.")
    psnr_object: float | None = Field(
        default=None, description="PSNR in the moved-object region without hands; null without masks."
    )
    psnr_hands: float | None = Field(default=None, description="PSNR in the hand region; null when no hand is visible.")
    psnr_rest: float | None = Field(default=None, description="PSNR elsewhere.")
    status: GenerationStatus = Field(description="State.")
    reason: str | None = Field(default=None, description="Why it failed.")
    code_version: str = Field(default="", description="Version of the code that made the row.")
    created_at: datetime = Field(default_factory=utc_now, description="When the row was made, UTC.")


class Run(Row):
    """One training run."""

    table_name: ClassVar[str] = "runs"
    key_column: ClassVar[str] = "run_id"

    run_id: str = Field(description="Hash of base model, dataset, and configuration.")
    run_path: str = Field(description="The run's folder: relative to the dataset where it lies inside or beside it.")
    base_hash: str = Field(description="Hash of the base model's files.")
    base_is_untrained: bool = Field(default=False, description="The base has random weights.")
    dataset_hash: str = Field(description="Hash of the clip ids and content that were trained on.")
    config_json: str = Field(description="Training configuration as JSON.")
    steps: int = Field(default=0, description="Optimizer steps done.")
    checkpoints: tuple[int, ...] = Field(default=(), description="Steps whose checkpoints are kept.")
    metrics: dict[str, float] = Field(
        default_factory=dict, description="Figures such as `validation_loss_first` and `validation_loss_last`."
    )
    promoted: bool = Field(default=False, description="Whether this run is the one in use.")
    status: RunStatus = Field(default=RunStatus.RUNNING, description="State.")
    reason: str | None = Field(default=None, description="Why it failed.")
    code_version: str = Field(default="", description="Version of the code that made the row.")
    created_at: datetime = Field(default_factory=utc_now, description="When the row was made, UTC.")


class Decision(Row):
    """One decision of the registry of runs; all of them are its history, in the order of their ids."""

    table_name: ClassVar[str] = "decisions"
    key_column: ClassVar[str] = "decision_id"

    decision_id: str = Field(description="Number of the decision, six digits.")
    action: RegistryAction = Field(description="What was decided.")
    run_id: str = Field(description="Run that was looked at: the candidate, or the one that is in use again.")
    previous_run_id: str | None = Field(default=None, description="Run in use before the decision; null for the first.")
    forced: bool = Field(default=False, description="Promoted without being better.")
    reason: str = Field(description="Why, in one sentence.")
    benchmark_name: str | None = Field(default=None, description="Frozen benchmark that both were measured on.")
    benchmark_hash: str | None = Field(default=None, description="Its hash; null when nothing was compared.")
    metric: str | None = Field(default=None, description="Figure that decided; null when nothing was compared.")
    value: float | None = Field(default=None, description="Its mean of the run; null when it was not measured.")
    previous_value: float | None = Field(default=None, description="Its mean of the run in use before; null likewise.")
    margin: float | None = Field(default=None, description="By how much the run had to be better.")
    decided_by: str = Field(default="", description="Who: a user, or the flow run.")
    created_at: datetime = Field(default_factory=utc_now, description="When, UTC.")


TABLES: dict[str, type[Row]] = {row.table_name: row for row in (Clip, Generation, Run, Decision)}
"""Row class of each table."""
