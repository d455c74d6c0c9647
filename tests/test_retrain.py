"""Retraining: only a better run comes into use, a forced bad one goes again, and the same is not trained twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient

from dwm_model.base_model import load_base
from dwm_model.checkpoints import read_identity
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig, get_preset
from dwm_model.training import TrainSummary, train
from dwm_model.warm_start import warm_start_from
from flows.benchmark import BenchmarkParameters, benchmark
from flows.retrain import RetrainParameters, RetrainResult, retrain
from flows.verify_promotion import VerifyPromotionParameters, Yardstick, verify_promotion
from manifests.benchmarks import FrozenBenchmark, load
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.registry import PromotionRule, Score, history, run_in_use
from manifests.schema import RegistryAction, Run, Split
from tests.helpers_model import GEOMETRY, add_clip, encode_all
from tests.helpers_prefect import events_named

pytest_plugins = ("tests.fixtures_model", "tests.fixtures_prefect")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("client")]

CONFIG = TrainConfig(
    geometry=GEOMETRY,
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=2,
    batch_size=2,
    accumulation_steps=1,
    learning_rate=1e-2,
    warmup_steps=1,
    gradient_checkpointing="none",
    checkpoint_every=2,
    num_validation_timesteps=1,
    tensorboard=False,
)
SPLITS = {"clip0": Split.TRAIN, "clip1": Split.TRAIN, "clip2": Split.VALIDATION, "clip3": Split.TEST}


class Workshop:
    """A dataset, and what is retrained on it."""

    def __init__(self, root: Path, base: Path) -> None:
        self.dataset = Dataset.open(root / "dataset")
        self.base = base
        self.parameters = RetrainParameters(
            dataset=self.dataset.root,
            base=base,
            config=CONFIG,
            yardstick=Yardstick(rule=PromotionRule(margin=0.5), seeds=1, num_inference_steps=2, lpips=False),
        )

    def retrain(self, **changes: object) -> RetrainResult:
        return retrain(self.parameters.model_copy(update=changes))

    def add_clip(self, number: int, split: Split = Split.TRAIN) -> None:
        add_clip(self.dataset, f"clip{number}", seed=number, split=split)
        encode_all(self.dataset, load_base(self.base))

    def in_use(self) -> list[str]:
        return [row.run_id for row in self.dataset.runs.rows() if row.promoted]


@pytest.fixture(scope="module")
def first(tiny_base: Path, client: SyncPrefectClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset whose first run is in use."""
    del client
    root = tmp_path_factory.mktemp("first")
    dataset = Dataset.create_or_open(root / "dataset")
    for number, (name, split) in enumerate(SPLITS.items()):
        add_clip(dataset, name, seed=number, split=split)
    encode_all(dataset, load_base(tiny_base))
    assert Workshop(root, tiny_base).retrain().outcome == "promoted"
    return root


def train_here(dataset: Path, base: Path, run: Path, config: TrainConfig, processes: int) -> TrainSummary:
    """Train without the seconds that a process of its own takes to start."""
    assert processes == 1
    return train(Dataset.open(dataset), base, run, config, resume=True)


@pytest.fixture
def workshop(first: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setattr("flows.train.train_in_subprocess", train_here)
    return Workshop(Path(shutil.copytree(first, tmp_path, dirs_exist_ok=True)), tiny_base)


def score_by_turn(monkeypatch: pytest.MonkeyPatch, older: float, newer: float) -> None:
    """Let the run in use and whatever is trained after it have these figures."""

    def score(dataset: Dataset, frozen: FrozenBenchmark, run: Run, *_: object) -> Score:
        value = older if run.run_id == history(dataset)[0].run_id else newer
        return Score(run_id=run.run_id, benchmark_hash=frozen.hash, metric="psnr", value=value)

    monkeypatch.setattr("tasks.registry.score_run", score)


def test_the_first_run_is_trained_on_the_base_measured_and_put_into_use(
    workshop: Workshop, client: SyncPrefectClient, first: Path
) -> None:
    (run,) = workshop.dataset.runs.rows()
    assert workshop.in_use() == [run.run_id]
    assert (run.run_path, run.steps) == (f"../runs/{run.run_id}", 2)
    folder = workshop.dataset.absolute(run.run_path)
    assert read_identity(folder).config.warm_start is None
    table = json.loads((folder / "benchmark-test" / "benchmark.json").read_text())
    assert table["benchmark_hash"] == load(workshop.dataset, "test").hash
    (decision,) = history(workshop.dataset)
    assert (decision.action, decision.reason) == (RegistryAction.PROMOTED, "the first run")
    for name in ("run.train.completed", "run.benchmark.completed"):
        (event,) = events_named(client, name, str(first))
        assert event["resource"]["prefect.resource.id"] == f"dwm.run.{run.run_id}"
        assert any(each["prefect.resource.role"] == "dataset" for each in event["related"])


def test_without_new_clips_nothing_is_trained(workshop: Workshop) -> None:
    result = workshop.retrain()
    assert (result.outcome, result.in_use) == ("nothing new", workshop.in_use()[0])
    assert "trained on the same clips" in result.reason
    assert workshop.dataset.runs.count() == 1


def test_a_worse_run_is_not_promoted_and_not_trained_again(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, client: SyncPrefectClient
) -> None:
    before = workshop.in_use()
    workshop.add_clip(4)
    score_by_turn(monkeypatch, older=20.0, newer=15.0)
    result = workshop.retrain()

    assert (result.outcome, result.in_use, workshop.in_use()) == ("kept", before[0], before)
    decision = history(workshop.dataset)[-1]
    assert (decision.action, decision.run_id, decision.value) == (RegistryAction.KEPT, result.run_id, 15.0)
    assert "not better by the margin: psnr 15 against 20 on benchmark test, margin 0.5" in decision.reason
    assert decision.decided_by.startswith("flow run ")
    artifacts = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC", "limit": 20}).json()
    told = next(each for each in artifacts if each["key"] == "promotion-decision")
    assert decision.reason in told["description"]

    again = workshop.retrain()
    assert (again.outcome, workshop.dataset.runs.count()) == ("nothing new", 2)
    assert "was not better then" in again.reason


def test_a_better_run_begins_with_the_one_in_use_and_replaces_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_in_use(workshop.dataset)
    assert before is not None
    workshop.add_clip(4)
    workshop.add_clip(5, Split.TEST)
    score_by_turn(monkeypatch, older=20.0, newer=20.5)
    result = workshop.retrain()

    assert (result.outcome, workshop.in_use()) == ("promoted", [result.run_id])
    row = workshop.dataset.runs.get(str(result.run_id))
    started = read_identity(workshop.dataset.absolute(row.run_path)).config.warm_start
    assert started == warm_start_from(workshop.dataset.absolute(before.run_path))
    assert load(workshop.dataset, "test").clip_ids == ("clip3",), "both are measured on what was frozen first"


def test_figures_of_the_registry_are_those_of_the_benchmark_table(workshop: Workshop) -> None:
    workshop.add_clip(4)
    result = workshop.retrain()
    decision = history(workshop.dataset)[-1]
    figures = []
    for run_id in (str(result.run_id), str(decision.previous_run_id)):
        folder = workshop.dataset.absolute(workshop.dataset.runs.get(run_id).run_path)
        table = json.loads((folder / "benchmark-test" / "benchmark.json").read_text())
        everything = next(section for section in table["sections"] if section["kind"] == "all")
        figures.append(next(row for row in everything["rows"] if row["method"] == "DWM")["metrics"]["psnr"]["mean"])
    assert [decision.value, decision.previous_value] == pytest.approx(figures)


def test_a_forced_promotion_that_is_bad_is_rolled_back(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    before = workshop.in_use()
    workshop.add_clip(4)
    score_by_turn(monkeypatch, older=20.0, newer=15.0)
    result = workshop.retrain(force=True)

    assert (result.outcome, result.in_use, workshop.in_use()) == ("rolled_back", before[0], before)
    actions = [(each.action, each.forced) for each in history(workshop.dataset)]
    assert actions[1:] == [(RegistryAction.PROMOTED, True), (RegistryAction.ROLLED_BACK, False)]
    assert "the run before is better: psnr 20 against 15" in result.reason


def test_a_forced_promotion_that_is_not_worse_by_the_margin_stays(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop.add_clip(4)
    score_by_turn(monkeypatch, older=20.0, newer=19.8)
    result = workshop.retrain(force=True)
    assert (result.outcome, workshop.in_use()) == ("promoted", [result.run_id])

    score_by_turn(monkeypatch, older=20.0, newer=10.0)
    check = VerifyPromotionParameters(
        dataset=workshop.dataset.root, base=workshop.base, yardstick=workshop.parameters.yardstick
    )
    decision = verify_promotion(check)
    assert decision is not None, "a later check finds it bad"
    assert workshop.in_use() == [decision.run_id] != [result.run_id]


def test_a_run_may_not_be_measured_on_clips_that_it_has_learned(workshop: Workshop) -> None:
    workshop.add_clip(4, Split.TEST)
    workshop.dataset.clips.set_values("split", {"clip3": Split.TRAIN})
    with pytest.raises(DwmError, match="clip 'clip3' of benchmark 'test' is not in split test any more"):
        workshop.retrain()
    assert workshop.dataset.runs.count() == 1, "told before the training, not after it"


def test_a_grown_test_split_needs_a_new_benchmark_unless_the_frozen_one_is_meant(workshop: Workshop) -> None:
    workshop.add_clip(4, Split.TEST)
    (run,) = workshop.dataset.runs.rows()
    asked = BenchmarkParameters(
        dataset=workshop.dataset.root,
        base=workshop.base,
        run=workshop.dataset.absolute(run.run_path),
        out=workshop.dataset.root.parent / "table",
        seeds=1,
        methods=["static copy"],
        lpips=False,
        dreamsim=False,
    )
    with pytest.raises(DwmError, match="freeze under a new name"):
        benchmark(asked)
    assert benchmark(asked.model_copy(update={"keep_frozen": True})).num_clips == 1


def test_settings_follow_the_profile_unless_they_are_given(tmp_path: Path) -> None:
    mini = RetrainParameters(dataset=tmp_path, base=tmp_path, profile="mini", steps=7).training()
    assert (mini.geometry, mini.max_steps, mini.lora) == (get_preset("mini").geometry, 7, get_preset("mini").lora)
    assert RetrainParameters(dataset=tmp_path, base=tmp_path).training() == get_preset("paper")
