"""Look again at the run in use: measured beside the one before it, and rolled back where it is worse."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.geometry import ClipGeometry
from dwm_model.sampling import SamplerConfig
from flows.benchmark import BenchmarkParameters, benchmark
from manifests.benchmarks import BenchmarkSettings, FrozenBenchmark, load_or_freeze
from manifests.dataset import Dataset
from manifests.registry import PromotionRule, run_before, run_in_use
from manifests.schema import Decision, Split
from tasks.registry import check_promotion


class Yardstick(BaseModel):
    """How runs are measured and compared."""

    model_config = ConfigDict(extra="forbid")

    rule: PromotionRule = Field(default=PromotionRule(), description="Benchmark, figure and margin that decide.")
    seeds: int = Field(default=3, description="Videos a clip, where the benchmark is not frozen yet.", gt=0)
    num_inference_steps: int = Field(default=50, description="Denoising steps a video.", gt=0)
    guidance_scale: float = Field(default=6.0, description="Weight of the text.", ge=1)
    lpips: bool = Field(default=True, description="Compute LPIPS (VGG).")
    dreamsim: bool = Field(default=False, description="Compute DreamSim where its weights are.")

    @property
    def sampler(self) -> SamplerConfig:
        """Settings of the sampler."""
        return SamplerConfig(num_inference_steps=self.num_inference_steps, guidance_scale=self.guidance_scale)

    def freeze(self, dataset: Dataset, geometry: ClipGeometry) -> FrozenBenchmark:
        """The benchmark that decides, frozen now where none is; tells before a long training what is wrong with it.

        Raises:
            DwmError: there are no test clips, or frozen clips have changed or left the test split.
        """
        settings = BenchmarkSettings(**geometry.model_dump(), seeds=tuple(range(self.seeds)))
        return load_or_freeze(dataset, self.rule.benchmark, Split.TEST, settings)

    def measure(self, dataset: Path, base: Path, run: Path) -> None:
        """Benchmark a run on the frozen benchmark; its table and page lie in the run's folder."""
        benchmark(
            BenchmarkParameters(
                dataset=dataset,
                base=base,
                run=run,
                out=run / f"benchmark-{self.rule.benchmark}",
                name=self.rule.benchmark,
                keep_frozen=True,
                seeds=self.seeds,
                num_inference_steps=self.num_inference_steps,
                guidance_scale=self.guidance_scale,
                lpips=self.lpips,
                dreamsim=self.dreamsim,
            )
        )


class VerifyPromotionParameters(BaseModel):
    """What to look at again."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path = Field(description="The dataset folder, whose `runs` table is the registry.")
    base: Path = Field(description="The base model's folder.")
    yardstick: Yardstick = Field(default_factory=Yardstick, description="How both runs are measured and compared.")


@flow(name="verify-promotion")
def verify_promotion(parameters: VerifyPromotionParameters) -> Decision | None:
    """Measure the run in use and the one before it; the rollback, or None where the run in use stays."""
    dataset, yardstick = Dataset.open(parameters.dataset), parameters.yardstick
    now, before = run_in_use(dataset), run_before(dataset)
    if now is None or before is None:
        return None
    for run in (before, now):
        yardstick.measure(parameters.dataset, parameters.base, dataset.absolute(run.run_path))
    return check_promotion(parameters.dataset, yardstick.rule, yardstick.sampler)
