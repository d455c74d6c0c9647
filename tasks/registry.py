"""The registry of runs as tasks: decide about a candidate, look again at the run in use."""

from __future__ import annotations

from pathlib import Path

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from dwm_model.run_scores import score_run
from dwm_model.sampling import SamplerConfig
from manifests import benchmarks, registry
from manifests.dataset import Dataset
from manifests.registry import PromotionRule, Score
from manifests.schema import Decision, Run
from tasks.artifacts import show_table


@task(name="decide-promotion")
def decide_promotion(
    dataset: Path, run_id: str, rule: PromotionRule, sampler: SamplerConfig, *, force: bool
) -> Decision:
    """Promote a measured run if it is better than the one in use, or keep that one; shown in the UI either way."""
    opened = Dataset.open(dataset)
    now = registry.run_in_use(opened)
    scores = [] if force or now is None else _scores(opened, [opened.runs.get(run_id), now], rule, sampler)
    decision = registry.promote(opened, run_id, rule, scores, decided_by=_who(), force=force)
    _show(decision)
    return decision


@task(name="check-promotion")
def check_promotion(dataset: Path, rule: PromotionRule, sampler: SamplerConfig) -> Decision | None:
    """Roll the run in use back where the one before it is better by the margin; None where it stays."""
    opened = Dataset.open(dataset)
    now, before = registry.run_in_use(opened), registry.run_before(opened)
    if now is None or before is None:
        return None
    decision = registry.verify(opened, rule, _scores(opened, [now, before], rule, sampler), decided_by=_who())
    if decision is not None:
        _show(decision)
    return decision


def _scores(dataset: Dataset, runs: list[Run], rule: PromotionRule, sampler: SamplerConfig) -> list[Score]:
    frozen = benchmarks.load(dataset, rule.benchmark)
    return [score_run(dataset, frozen, run, sampler, rule) for run in runs]


def _who() -> str:
    return f"flow run {flow_run.name}"


def _show(decision: Decision) -> None:
    get_run_logger().info("%s %s: %s", decision.action.value, decision.run_id, decision.reason)
    cells = decision.model_dump(mode="json", exclude_none=True)
    rows = [{"what": name, "is": str(value)} for name, value in cells.items()]
    show_table("promotion-decision", rows, f"{decision.action.value} {decision.run_id}: {decision.reason}")
