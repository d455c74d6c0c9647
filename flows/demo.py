"""The whole DAG: recordings or triplets -> dataset -> splits -> latents -> LoRA -> benchmark table and page."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.mini.shipped import shipped_base
from dwm_model.train_config import TrainConfig, get_preset, profile_geometry
from flows.benchmark import BenchmarkParameters, benchmark
from flows.build_dataset import BuildDatasetParameters, build_dataset
from flows.build_generated import GeneratedSource
from flows.build_official import OfficialSource
from flows.train import TrainParameters, train
from manifests.splits import SplitPolicy, SplitSettings


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
    num_inference_steps: int = Field(
        default=4, description="Denoising steps a video: the small base is softer and less patchy with few.", gt=0
    )
    guidance_scale: float = Field(default=1.0, description="Weight of the text; 1 turns guidance off.", ge=1)
    num_scenes: int = Field(default=8, description="Generated rooms.", gt=2)
    recordings_per_scene: int = Field(default=2, description="Recordings a generated room.", gt=0)
    aria_captures: int = Field(default=1, description="Generated captures: explored, then acted in.", ge=0)
    fixed_camera_videos: int = Field(default=3, description="Generated videos of a camera that stands still.", ge=0)

    def build(self, dataset: Path, base: Path) -> BuildDatasetParameters:
        """How the dataset is built: from the given triplets, or from generated data."""
        generated = GeneratedSource(
            raw=dataset.parent / "raw",
            num_scenes=self.num_scenes,
            recordings_per_scene=self.recordings_per_scene,
            fixed_camera_videos=self.fixed_camera_videos,
            aria_captures=self.aria_captures,
        )
        return BuildDatasetParameters(
            dataset=dataset,
            profile=self.profile,
            base=base,
            official=OfficialSource(raw=self.raw.resolve()) if self.raw else None,
            demo=None if self.raw else generated,
            policy=SplitPolicy.IN_ORDER if self.raw else SplitPolicy.SCENE_DISJOINT,
            splits=SplitSettings(train=0.6, validation=0.2, test=0.2, ensure_every_split=True),
            stop_on_leaks=self.raw is None,  # given triplets may be few and alike: the table says so
            announce=False,  # the demo trains by itself
        )


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
    out = parameters.out.resolve()
    base = parameters.base.resolve() if parameters.base else shipped_base()
    run, table = out / "run", out / "benchmark"
    built = build_dataset(parameters.build(out / "dataset", base))
    dataset = built.dataset
    trained = train(TrainParameters(dataset=dataset, base=base, run=run, config=training_config(parameters)))
    benchmark(
        BenchmarkParameters(
            dataset=dataset,
            base=base,
            run=run,
            out=table,
            seeds=parameters.seeds,
            num_inference_steps=parameters.num_inference_steps,
            guidance_scale=parameters.guidance_scale,
        )
    )
    return DemoResult(
        dataset=dataset,
        run=run,
        table=table / "benchmark.md",
        page=table / "index.html",
        ready_clips=built.ready_clips,
        failed_clips=built.failed_clips,
        steps=trained.steps,
        validation_loss_first=trained.validation_loss_first,
        validation_loss_last=trained.validation_loss_last,
    )


def training_config(parameters: DemoParameters) -> TrainConfig:
    """The preset at the demo's profile and number of steps."""
    preset = get_preset(parameters.preset)
    steps = parameters.steps or preset.max_steps
    return preset.model_copy(update={"geometry": profile_geometry(parameters.profile), "max_steps": steps})
