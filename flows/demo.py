"""The whole DAG: recordings or triplets -> dataset -> splits -> latents -> LoRA -> benchmark table and page."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as ds
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.mini.shipped import shipped_base
from dwm_model.train_config import TrainConfig, get_preset, profile_geometry
from flows.benchmark import BenchmarkParameters, benchmark
from flows.build_aria import BuildAriaParameters, build_aria
from flows.build_fixed_camera import BuildFixedCameraParameters, build_fixed_camera
from flows.build_generated import LICENCE, build_generated
from flows.build_official import BuildOfficialParameters, build_official
from flows.encode import EncodeParameters, encode
from flows.train import TrainParameters, train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.profiles import get_profile
from manifests.schema import ClipStatus
from manifests.splits import SplitPolicy, SplitReport, SplitSettings
from render.hand_estimation.settings import HandEstimationSettings
from sources.synthetic.aria_capture import RATE_HZ, CapturePlan
from sources.synthetic.marks import claim_folder
from sources.synthetic.recording import plan_recordings
from tasks.aria import generate_aria_captures
from tasks.building import split_dataset
from tasks.fixed_camera import generate_fixed_camera_videos

RECORDINGS_A_TASK = 4
FIXED_CAMERA_SEED, ARIA_SEED = 100, 200
"""Other rooms than the recordings': no two sources show the same."""


class DemoParameters(BaseModel):
    """What the demo runs on."""

    model_config = ConfigDict(extra="forbid")

    out: Path = Field(default=Path("out/demo"), description="Folder for everything that is written.")
    raw: Path | None = Field(default=None, description="Triplets in the official layout; generated ones when absent.")
    profile: str = Field(default="mini", description="Size and length of the clips as the model sees them.")
    base: Path | None = Field(
        default=None, description="Base model in the diffusers layout; the small one of the project when absent."
    )
    preset: str = Field(default="mini", description="Training preset.")
    steps: int | None = Field(default=None, description="Training steps; the preset's when absent.", gt=0)
    seeds: int = Field(default=3, description="Videos a clip and method.", gt=0)
    num_inference_steps: int = Field(default=20, description="Denoising steps a video (the paper uses 50).", gt=0)
    num_scenes: int = Field(default=8, description="Generated rooms.", gt=2)
    recordings_per_scene: int = Field(default=2, description="Recordings a generated room.", gt=0)
    aria_captures: int = Field(default=1, description="Generated captures: explored, then acted in.", ge=0)
    fixed_camera_videos: int = Field(default=3, description="Generated videos of a camera that stands still.", ge=0)


class DemoResult(BaseModel):
    """Where things are, and the figures that matter."""

    dataset: Path
    run: Path
    table: Path
    page: Path
    ready_clips: int
    failed_clips: int
    steps: int
    validation_loss_first: float | None
    validation_loss_last: float | None


@flow(name="demo")
def demo(parameters: DemoParameters) -> DemoResult:
    """Run every stage; a stage that an earlier, interrupted run has finished is passed over."""
    out, profile = parameters.out.resolve(), get_profile(parameters.profile)
    dataset, run = out / "dataset", out / "run"
    base = parameters.base.resolve() if parameters.base else shipped_base()
    failures = build(parameters, dataset)
    policy = SplitPolicy.IN_ORDER if parameters.raw else SplitPolicy.SCENE_DISJOINT
    settings = SplitSettings(train=0.6, validation=0.2, test=0.2, ensure_every_split=True)
    require_every_split(dataset, split_dataset(dataset, policy, settings))
    encode(EncodeParameters(dataset=dataset, base=base, profile=profile.name))
    trained = train(TrainParameters(dataset=dataset, base=base, run=run, config=training_config(parameters)))
    table = out / "benchmark"
    benchmark(
        BenchmarkParameters(
            dataset=dataset,
            base=base,
            run=run,
            out=table,
            seeds=parameters.seeds,
            num_inference_steps=parameters.num_inference_steps,
        )
    )
    return DemoResult(
        dataset=dataset,
        run=run,
        table=table / "benchmark.md",
        page=table / "index.html",
        ready_clips=Dataset.open(dataset).clips.count(ds.field("status") == ClipStatus.READY.value),
        failed_clips=failures,
        steps=trained.steps,
        validation_loss_first=trained.validation_loss_first,
        validation_loss_last=trained.validation_loss_last,
    )


def require_every_split(dataset: Path, report: SplitReport) -> None:
    """Stop before the long work where there is nothing to train on, to validate with or to test on.

    Raises:
        DwmError: a split has no ready clip.
    """
    empty = [count.split.value for count in report.counts if not count.ready_clips]
    if empty:
        ready = sum(count.ready_clips for count in report.counts)
        raise DwmError(
            f"{dataset}: {ready} ready clip{'s' if ready > 1 else ''}, too few: none for {' and '.join(empty)}; "
            "give at least three whole triplets"
        )


def build(parameters: DemoParameters, dataset: Path) -> int:
    """Import the given triplets, or generate recordings and videos and build theirs; returns the number of failures."""
    if parameters.raw:
        return len(build_official(BuildOfficialParameters(raw=parameters.raw.resolve(), dataset=dataset)).failures)
    failures = build_recordings(parameters, dataset)
    if parameters.fixed_camera_videos:
        raw = parameters.out.resolve() / "raw_fixed_camera"
        generate_fixed_camera_videos(raw, parameters.fixed_camera_videos, FIXED_CAMERA_SEED)
        built = build_fixed_camera(
            BuildFixedCameraParameters(raw=raw, dataset=dataset, profile=parameters.profile, licence=LICENCE)
        )
        failures += len(built.failures)
    if parameters.aria_captures:
        failures += build_captures(parameters, dataset)
    return failures


def build_captures(parameters: DemoParameters, dataset: Path) -> int:
    """Generate Aria captures, reconstruct their scenes and pair them; returns the number of failed clips."""
    raw, profile = parameters.out.resolve() / "raw_aria", get_profile(parameters.profile)
    seconds = profile.num_frames / profile.fps
    plans = [
        CapturePlan(ARIA_SEED, number, explore_frames=32, act_frames=round(seconds * RATE_HZ) + 2)
        for number in range(parameters.aria_captures)
    ]
    generate_aria_captures(raw, plans, profile)
    built = build_aria(
        BuildAriaParameters(
            raw=raw,
            dataset=dataset,
            profile=parameters.profile,
            reconstruction="demo",
            licence=LICENCE,
            hands=HandEstimationSettings(estimator="file"),
        )
    )
    return len(built.failures)


def build_recordings(parameters: DemoParameters, dataset: Path) -> int:
    """Generate recordings and draw their triplets; returns the number of failed clips."""
    raw = parameters.out.resolve() / "raw"
    claim_folder(raw, seed=0)
    plans = plan_recordings(parameters.num_scenes, parameters.recordings_per_scene, seed=0)
    return len(build_generated(raw, dataset, plans, parameters.profile, a_task=RECORDINGS_A_TASK).failures)


def training_config(parameters: DemoParameters) -> TrainConfig:
    """The preset at the demo's profile and number of steps."""
    preset = get_preset(parameters.preset)
    steps = parameters.steps or preset.max_steps
    return preset.model_copy(update={"geometry": profile_geometry(parameters.profile), "max_steps": steps})
