"""Registry of runs: which one is in use, why, and which one was before.

The ``decisions`` table is the history and the truth; the column ``promoted`` of the ``runs`` table repeats what
follows from it. A decision is one row, written whole or not at all; then the column is changed for all runs in one
step. Killed between the two, the column still names one run, the one before, and the next reader puts it right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from manifests.benchmarks import require_same
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.locks import exclusive_lock
from manifests.schema import Decision, RegistryAction, Run, RunStatus

LOWER_IS_BETTER = frozenset({"lpips_vgg", "lpips_alex", "dreamsim"})
"""Figures that are distances; of all others more is better."""


class PromotionRule(BaseModel):
    """When a run is better than the one in use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    benchmark: str = Field(default="test", description="Name of the frozen benchmark that both are measured on.")
    metric: Literal["psnr", "ssim", "lpips_vgg", "lpips_alex", "dreamsim", "psnr_object", "psnr_hands", "psnr_rest"] = (
        Field(default="psnr", description="Figure that decides; of lpips and dreamsim less is better, of others more.")
    )
    margin: float = Field(default=0.1, description="By how much, in the figure's own unit (dB for PSNR).", ge=0)

    @property
    def higher_is_better(self) -> bool:
        """Direction of the figure."""
        return self.metric not in LOWER_IS_BETTER

    def gain(self, value: float, previous: float) -> float:
        """By how much ``value`` is better than ``previous``; negative when it is worse."""
        return value - previous if self.higher_is_better else previous - value

    def is_better(self, value: float, previous: float) -> bool:
        """Whether ``value`` is better, and by the margin."""
        gain = self.gain(value, previous)
        return gain > 0 and gain >= self.margin


class Score(BaseModel):
    """What a run reached on a frozen benchmark."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str = Field(description="The run.")
    benchmark_hash: str = Field(description="Hash of the frozen benchmark.")
    metric: str = Field(description="The figure.")
    value: float = Field(description="Its mean over clips and seeds.")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs on one frozen benchmark; the fields are columns of `Decision`."""

    benchmark_name: str
    benchmark_hash: str
    metric: str
    value: float
    previous_value: float
    margin: float

    def words(self) -> str:
        """The figures as a sentence has them."""
        figures = f"{self.metric} {self.value:.4g} against {self.previous_value:.4g}"
        return f"{figures} on benchmark {self.benchmark_name}, margin {self.margin:g}"


def history(dataset: Dataset) -> list[Decision]:
    """All decisions, from the first to the last."""
    return list(dataset.decisions.rows())


def run_in_use(dataset: Dataset) -> Run | None:
    """The promoted run; None before the first promotion."""
    used = _used(history(dataset))
    return dataset.runs.get(used[-1]) if used else None


def run_before(dataset: Dataset) -> Run | None:
    """The run that a rollback would put back; None when there is none."""
    used = _used(history(dataset))
    return dataset.runs.get(used[-2]) if len(used) > 1 else None


def reconcile(dataset: Dataset) -> None:
    """Make the ``promoted`` column say what the history says: what a killed process left undone is done."""
    with _locked(dataset):
        _mark(dataset, history(dataset))


def promote(
    dataset: Dataset,
    run_id: str,
    rule: PromotionRule,
    scores: Iterable[Score] = (),
    *,
    decided_by: str,
    force: bool = False,
) -> Decision:
    """Put a run into use if it is better than the one in use, and remember what was decided and why.

    Args:
        dataset: The dataset, whose ``runs`` table is the registry.
        run_id: The candidate.
        rule: What better means.
        scores: What the candidate and the run in use reached; the first run of all needs none.
        decided_by: Who decides.
        force: Promote whatever the scores would say.

    Returns:
        The decision: promoted or kept. Of the run that is in use already nothing is decided: its last decision.

    Raises:
        DwmError: no such run, it has not completed, a score is missing, or scores are of different benchmarks.
    """
    with _locked(dataset):
        decisions = history(dataset)
        run = dataset.runs.get(run_id)
        if run.status is not RunStatus.COMPLETED:
            raise DwmError(f"run '{run_id}': is {run.status.value}, not completed; finish its training first")
        used = _used(decisions)
        previous = used[-1] if used else None
        if previous == run_id:
            _mark(dataset, decisions)
            return next(each for each in reversed(decisions) if each.run_id == run_id)
        comparison = None if force or previous is None else compare(run_id, previous, rule, scores)
        is_kept = comparison is not None and not rule.is_better(comparison.value, comparison.previous_value)
        reason = "forced" if force else "the first run" if comparison is None else comparison.words()
        decision = Decision(
            decision_id=_next_id(decisions),
            action=RegistryAction.KEPT if is_kept else RegistryAction.PROMOTED,
            run_id=run_id,
            previous_run_id=previous,
            forced=force,
            reason=f"not better by the margin: {reason}" if is_kept else reason,
            decided_by=decided_by,
            **({} if comparison is None else asdict(comparison)),
        )
        return _decide(dataset, decisions, decision)


def rollback(dataset: Dataset, *, decided_by: str, reason: str, comparison: Comparison | None = None) -> Decision:
    """Put the run back into use that was before the one in use.

    Args:
        dataset: The dataset.
        decided_by: Who decides.
        reason: Why.
        comparison: What the run in use and the one before it reached, where that is why.

    Raises:
        DwmError: no run was in use before.
    """
    with _locked(dataset):
        decisions = history(dataset)
        used = _used(decisions)
        if len(used) < 2:
            raise DwmError(f"{dataset.root}: no run was in use before the present one; promote another instead")
        decision = Decision(
            decision_id=_next_id(decisions),
            action=RegistryAction.ROLLED_BACK,
            run_id=used[-2],
            previous_run_id=used[-1],
            reason=reason,
            decided_by=decided_by,
            **({} if comparison is None else asdict(comparison)),
        )
        return _decide(dataset, decisions, decision)


def verify(dataset: Dataset, rule: PromotionRule, scores: Iterable[Score], *, decided_by: str) -> Decision | None:
    """Compare the run in use with the one before it, and roll back where it is worse by the margin.

    Returns:
        The rollback, whose figures are those of the run that is in use again; None where the run in use stays.

    Raises:
        DwmError: a score is missing, or they are of different benchmarks.
    """
    now, before = run_in_use(dataset), run_before(dataset)
    if now is None or before is None:
        return None
    comparison = compare(before.run_id, now.run_id, rule, scores)
    if not rule.is_better(comparison.value, comparison.previous_value):
        return None
    reason = f"the run before is better: {comparison.words()}"
    return rollback(dataset, decided_by=decided_by, reason=reason, comparison=comparison)


def compare(run_id: str, previous_run_id: str, rule: PromotionRule, scores: Iterable[Score]) -> Comparison:
    """Put the scores of two runs side by side.

    Raises:
        DwmError: one is missing, of another figure, or of another benchmark than the other.
    """
    known = {score.run_id: score for score in scores if score.metric == rule.metric}
    for wanted in (run_id, previous_run_id):
        if wanted not in known:
            raise DwmError(
                f"run '{wanted}': no {rule.metric} on benchmark '{rule.benchmark}'; measure both runs with "
                "`dwm benchmark` first"
            )
    both = (known[run_id], known[previous_run_id])
    return Comparison(
        benchmark_name=rule.benchmark,
        benchmark_hash=require_same({f"run '{score.run_id}'": score.benchmark_hash for score in both}),
        metric=rule.metric,
        value=both[0].value,
        previous_value=both[1].value,
        margin=rule.margin,
    )


def _locked(dataset: Dataset) -> AbstractContextManager[None]:
    return exclusive_lock(dataset.root / ".registry.lock")


def _used(decisions: Sequence[Decision]) -> list[str]:
    """Runs that were put into use and not rolled back, the present one last."""
    used: list[str] = []
    for decision in decisions:
        if decision.action is RegistryAction.PROMOTED:
            used.append(decision.run_id)
        elif decision.action is RegistryAction.ROLLED_BACK:
            used.pop()
    return used


def _next_id(decisions: Sequence[Decision]) -> str:
    return f"{len(decisions) + 1:06d}"


def _decide(dataset: Dataset, decisions: Sequence[Decision], decision: Decision) -> Decision:
    """Write the decision, then what follows from it."""
    dataset.decisions.append([decision])
    _mark(dataset, [*decisions, decision])
    return decision


def _mark(dataset: Dataset, decisions: Sequence[Decision]) -> None:
    """Let the ``promoted`` column name the run in use and no other, in one change of the table."""
    used = _used(decisions)
    table = dataset.runs.read(["run_id"])
    wanted = {run_id: bool(used) and run_id == used[-1] for run_id in table.column("run_id").to_pylist()}
    dataset.runs.set_values("promoted", wanted)
