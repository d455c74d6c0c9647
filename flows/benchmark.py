"""Generate, measure and report one frozen benchmark."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.checkpoints import read_identity
from dwm_model.lpips import LpipsNet
from dwm_model.method_sources import METHOD_NAMES, MethodSource
from dwm_model.metrics import MetricOptions
from dwm_model.results import BenchmarkResult, plan_benchmark
from dwm_model.sampling import SamplerConfig, SamplerOptions
from manifests.benchmarks import BenchmarkSettings, freeze, load_or_freeze
from manifests.dataset import Dataset
from manifests.schema import Split
from tasks.benchmarking import generate_video_chunk, publish_report
from tasks.events import announce_benchmark


class BenchmarkParameters(BaseModel):
    """What to compare, on what."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path = Field(description="The dataset folder, split and encoded.")
    base: Path = Field(description="The base model's folder.")
    run: Path = Field(description="The training run's folder; its newest checkpoint is taken.")
    out: Path = Field(description="Folder for table, page and figure.")
    name: str = Field(default="test", description="Name under which clips and settings are frozen in the dataset.")
    keep_frozen: bool = Field(
        default=False, description="Measure on what is frozen under the name also where the test split has grown since."
    )
    seeds: int = Field(default=3, description="Videos a clip and method (the paper has three).", gt=0)
    methods: list[str] = Field(default=list(METHOD_NAMES), description="Rows of the table.")
    num_inference_steps: int = Field(default=50, description="Denoising steps a video.", gt=0)
    guidance_scale: float = Field(default=6.0, description="Weight of the text.", ge=1)
    use_average: bool = Field(default=False, description="Take the moving average of each run's weights.")
    options: SamplerOptions = Field(default=SamplerOptions(), description="Batch size and memory of the sampler.")
    lpips: bool = Field(default=True, description="Compute LPIPS (VGG), as the paper does.")
    dreamsim: bool = Field(default=True, description="Compute DreamSim where its weights are.")
    videos_a_task: int = Field(default=24, description="Videos that one task generates.", gt=0)

    def settings(self) -> BenchmarkSettings:
        """What is frozen beside the clips: the size that the run was trained with, and the seeds."""
        geometry = read_identity(self.run).config.geometry
        return BenchmarkSettings(**geometry.model_dump(), seeds=tuple(range(self.seeds)))

    def sources(self) -> list[MethodSource]:
        """The methods, in order."""
        sampler = SamplerConfig(
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            use_average=self.use_average,
        )
        return MethodSource.of(self.methods, self.base, self.run, sampler, self.options)

    def metric_options(self) -> MetricOptions:
        """What is measured."""
        return MetricOptions(lpips_nets=(LpipsNet.VGG,) if self.lpips else (), dreamsim=self.dreamsim)


@flow(name="benchmark")
def benchmark(parameters: BenchmarkParameters) -> BenchmarkResult:
    """Freeze the test split, generate what is missing with each method, publish the table and the page."""
    dataset, options, sources = Dataset.open(parameters.dataset), parameters.metric_options(), parameters.sources()
    choose = load_or_freeze if parameters.keep_frozen else freeze
    frozen = choose(dataset, parameters.name, Split.TEST, parameters.settings())
    for source in sources:
        plan = plan_benchmark(dataset, frozen, source.describe())
        for start in range(0, len(plan), parameters.videos_a_task):
            chunk = plan[start : start + parameters.videos_a_task]
            generate_video_chunk(parameters.dataset, chunk, source, options)
    result = publish_report(parameters.dataset, frozen, sources, options, parameters.out)
    announce_benchmark(parameters.dataset, parameters.run, result)
    return result
