"""The registry of runs: one run is in use at any time, a better one replaces it, a bad one is taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli import app
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.registry import (
    PromotionRule,
    Score,
    history,
    promote,
    reconcile,
    rollback,
    run_before,
    run_in_use,
    verify,
)
from manifests.schema import RegistryAction, Run, RunStatus

RULE = PromotionRule(benchmark="test", metric="psnr", margin=0.5)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    dataset = Dataset.create_or_open(tmp_path / "dataset")
    for name in ("first", "second", "third"):
        add_run(dataset, name)
    return dataset


def add_run(dataset: Dataset, run_id: str, status: RunStatus = RunStatus.COMPLETED) -> None:
    row = Run(
        run_id=run_id,
        run_path=f"../{run_id}",
        base_hash="b",
        dataset_hash="d",
        config_json="{}",
        steps=5,
        status=status,
    )
    dataset.runs.upsert([row])


def scores(benchmark_hash: str = "h", metric: str = "psnr", **values: float) -> list[Score]:
    return [
        Score(run_id=run_id, benchmark_hash=benchmark_hash, metric=metric, value=value)
        for run_id, value in values.items()
    ]


def in_use(dataset: Dataset) -> list[str]:
    return sorted(row.run_id for row in dataset.runs.rows() if row.promoted)


def test_the_first_run_is_promoted_and_a_better_one_replaces_it(dataset: Dataset) -> None:
    assert run_in_use(dataset) is None
    first = promote(dataset, "first", RULE, decided_by="ada")
    second = promote(dataset, "second", RULE, scores(first=20.0, second=20.5), decided_by="ada")

    assert (first.action, second.action) == (RegistryAction.PROMOTED, RegistryAction.PROMOTED)
    assert in_use(dataset) == ["second"]
    assert (second.previous_run_id, second.value, second.previous_value, second.decided_by) == (
        "first",
        20.5,
        20.0,
        "ada",
    )
    before = run_before(dataset)
    assert before is not None
    assert before.run_id == "first"


def test_a_run_that_is_not_better_by_the_margin_is_kept_out_and_the_history_says_why(dataset: Dataset) -> None:
    promote(dataset, "first", RULE, decided_by="ada")
    decision = promote(dataset, "second", RULE, scores(first=20.0, second=20.4), decided_by="ada")

    assert decision.action is RegistryAction.KEPT
    assert "not better by the margin: psnr 20.4 against 20" in decision.reason
    assert in_use(dataset) == ["first"]
    assert [each.action for each in history(dataset)] == [RegistryAction.PROMOTED, RegistryAction.KEPT]


def test_of_distances_less_is_better(dataset: Dataset) -> None:
    rule = PromotionRule(metric="lpips_vgg", margin=0.01)
    promote(dataset, "first", rule, decided_by="ada")
    worse = promote(dataset, "second", rule, scores(metric="lpips_vgg", first=0.30, second=0.35), decided_by="ada")
    better = promote(dataset, "third", rule, scores(metric="lpips_vgg", first=0.30, third=0.25), decided_by="ada")

    assert (worse.action, better.action) == (RegistryAction.KEPT, RegistryAction.PROMOTED)


def test_a_forced_bad_promotion_is_rolled_back_by_the_next_check(dataset: Dataset) -> None:
    promote(dataset, "first", RULE, decided_by="ada")
    forced = promote(dataset, "second", RULE, decided_by="ada", force=True)
    assert (forced.forced, in_use(dataset)) == (True, ["second"])
    decision = verify(dataset, RULE, scores(first=20.0, second=15.0), decided_by="check")

    assert decision is not None
    assert (decision.action, decision.run_id, decision.previous_run_id) == (
        RegistryAction.ROLLED_BACK,
        "first",
        "second",
    )
    assert in_use(dataset) == ["first"]
    assert verify(dataset, RULE, [], decided_by="check") is None


def test_a_good_promotion_stays(dataset: Dataset) -> None:
    promote(dataset, "first", RULE, decided_by="ada")
    promote(dataset, "second", RULE, decided_by="ada", force=True)

    assert verify(dataset, RULE, scores(first=20.0, second=20.2), decided_by="check") is None
    assert in_use(dataset) == ["second"]


def test_rolling_back_goes_one_back_each_time(dataset: Dataset) -> None:
    for name in ("first", "second", "third"):
        promote(dataset, name, RULE, decided_by="ada", force=True)
    rollback(dataset, decided_by="ada", reason="hands drift")
    assert in_use(dataset) == ["second"]
    rollback(dataset, decided_by="ada", reason="so they do here")
    assert in_use(dataset) == ["first"]
    with pytest.raises(DwmError, match="no run was in use before"):
        rollback(dataset, decided_by="ada", reason="once more")


def test_figures_of_different_benchmarks_are_never_compared(dataset: Dataset) -> None:
    promote(dataset, "first", RULE, decided_by="ada")
    mixed = [*scores(first=20.0), *scores("other", second=30.0)]
    with pytest.raises(DwmError, match="different benchmarks"):
        promote(dataset, "second", RULE, mixed, decided_by="ada")
    with pytest.raises(DwmError, match="run 'second': no psnr"):
        promote(dataset, "second", RULE, scores(first=20.0), decided_by="ada")
    assert in_use(dataset) == ["first"]


def test_a_run_that_is_not_finished_cannot_be_promoted(dataset: Dataset) -> None:
    add_run(dataset, "young", RunStatus.RUNNING)
    with pytest.raises(DwmError, match="is running, not completed"):
        promote(dataset, "young", RULE, decided_by="ada")


def test_killed_between_the_two_writes_one_run_is_in_use_and_the_next_reader_finishes(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote(dataset, "first", RULE, decided_by="ada")
    with monkeypatch.context() as patch:
        patch.setattr("manifests.store.Table.set_values", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote(dataset, "second", RULE, decided_by="ada", force=True)
    assert in_use(dataset) == ["first"]
    reopened = Dataset.open(dataset.root)
    reconcile(reopened)

    assert in_use(reopened) == ["second"]
    assert [each.run_id for each in history(reopened)] == ["first", "second"]


def test_promoting_the_run_in_use_again_decides_nothing(dataset: Dataset) -> None:
    promote(dataset, "first", RULE, decided_by="ada")
    again = promote(dataset, "first", RULE, decided_by="ada")

    assert again.decision_id == "000001"
    assert len(history(dataset)) == 1


def test_the_commands_tell_what_is_in_use(dataset: Dataset) -> None:
    root = str(dataset.root)
    assert CliRunner().invoke(app, ["promote", root, "first"]).exit_code == 0
    forced = CliRunner().invoke(app, ["promote", root, "second", "--force", "--json"])
    assert json.loads(forced.output.splitlines()[-1])["forced"] is True
    listed = CliRunner().invoke(app, ["runs", root])
    assert "second (in use): completed, 5 steps" in listed.output
    assert CliRunner().invoke(app, ["rollback", root, "--reason", "worse"]).exit_code == 0
    assert in_use(dataset) == ["first"]
    unmeasured = CliRunner().invoke(app, ["promote", root, "third"])
    assert unmeasured.exit_code == 1
    assert "no benchmark 'test'" in unmeasured.output
