"""What training runs reached on a frozen benchmark, for the registry of runs."""

from __future__ import annotations

from dwm_model.generation import read_generations
from dwm_model.methods import describe_run
from dwm_model.results import plan_benchmark
from dwm_model.sampling import SamplerConfig
from manifests.benchmarks import FrozenBenchmark
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.registry import PromotionRule, Score
from manifests.schema import GenerationStatus, Run


def score_run(
    dataset: Dataset, benchmark: FrozenBenchmark, run: Run, sampler: SamplerConfig, rule: PromotionRule
) -> Score:
    """Mean of a run's newest checkpoint over all clips and seeds of a benchmark, from the rows of its videos.

    Raises:
        DwmError: the run's folder is gone, or a video was not made or not measured.
    """
    folder = dataset.absolute(run.run_path)
    plan = plan_benchmark(dataset, benchmark, describe_run(folder, sampler))
    rows = [row for row in read_generations(dataset, plan) if row.status is GenerationStatus.READY]
    values = [value for row in rows if (value := getattr(row, rule.metric)) is not None]
    if len(values) < len(plan):
        raise DwmError(
            f"run '{run.run_id}': {len(plan) - len(values)} of {len(plan)} videos of benchmark '{benchmark.name}' have "
            f"no {rule.metric} at {sampler.num_inference_steps} denoising steps; run `dwm benchmark`"
        )
    return Score(run_id=run.run_id, benchmark_hash=benchmark.hash, metric=rule.metric, value=sum(values) / len(values))
