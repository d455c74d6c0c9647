"""The parent build: chosen sources become one dataset that is split, audited, encoded, committed and announced."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient

from flows.build_dataset import BuildDatasetParameters, BuildDatasetResult, build_dataset, build_sources
from flows.build_fixed_camera import FixedCameraSource
from flows.build_official import OfficialSource
from manifests.commits import commit, last_commit
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import Source, Split
from manifests.splits import SplitPolicy, SplitSettings
from render.hand_estimation.settings import HandEstimationSettings
from tests.helpers_cli import Pipeline
from tests.helpers_fixed_camera import write_hands, write_release
from tests.helpers_prefect import events_named

pytest_plugins = ("tests.fixtures_model", "tests.fixtures_prefect")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("client")]


def sources(root: Path, base: Path, clips: int = 4) -> BuildDatasetParameters:
    """Some triplets in the official layout and a video of a tripod."""
    Pipeline(root, base).write_raw(clips)
    write_hands(root / "hands", "9", frames=17, width=96, height=64)
    return BuildDatasetParameters(
        dataset=root / "dataset",
        profile="mini",
        base=base,
        official=OfficialSource(raw=root / "raw"),
        fixed_camera=FixedCameraSource(
            raw=write_release(root / "videos", {"DoubleHand/Kitchen/9": 1}, []),
            hands=HandEstimationSettings(estimator="file", files=root / "hands"),
        ),
        policy=SplitPolicy.IN_ORDER,
        splits=SplitSettings(train=0.6, validation=0.2, test=0.2),
    )


@pytest.fixture(scope="module")
def parameters(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildDatasetParameters:
    return sources(tmp_path_factory.mktemp("build"), tiny_base)


@pytest.fixture(scope="module")
def result(client: SyncPrefectClient, parameters: BuildDatasetParameters) -> BuildDatasetResult:
    del client  # it must be there before the flow runs
    return build_dataset(parameters)


def test_all_chosen_sources_are_in_one_split_and_encoded_dataset(result: BuildDatasetResult) -> None:
    clips = list(Dataset.open(result.dataset).clips.rows())
    assert {clip.source for clip in clips} == {Source.OFFICIAL, Source.TASTE_ROB}
    assert (result.ready_clips, result.failed_clips, result.encoded_clips) == (5, 0, 5)
    assert {clip.split for clip in clips} == set(Split)


def test_the_commit_says_what_the_dataset_is(result: BuildDatasetResult) -> None:
    dataset = Dataset.open(result.dataset)
    committed = last_commit(dataset)
    assert committed is not None
    assert committed.dataset_hash == result.dataset_hash == dataset.content_hash()
    assert sum(committed.ready_clips.values()) == 5
    assert commit(dataset) == committed, "nothing changed"


def test_training_is_told_where_the_dataset_is_and_what_it_holds(
    result: BuildDatasetResult, parameters: BuildDatasetParameters, client: SyncPrefectClient
) -> None:
    (event,) = events_named(client, "dataset.build.completed", str(result.dataset))
    assert event["payload"] == {
        "dataset": str(result.dataset.resolve()),
        "dataset_hash": result.dataset_hash,
        "ready_clips": {"train": 3, "validation": 1, "test": 1},
        "base": str(parameters.base),
        "profile": "mini",
    }
    assert event["resource"]["prefect.resource.id"].startswith("dwm.dataset.")
    assert event["resource"]["dwm.dataset.is_encoded"] == "true"
    assert any(each["prefect.resource.id"].startswith("prefect.flow-run.") for each in event["related"])


def test_building_again_changes_nothing_and_announces_only_when_asked(
    result: BuildDatasetResult, parameters: BuildDatasetParameters, client: SyncPrefectClient
) -> None:
    path = result.dataset / "commit.json"
    before = path.read_bytes()
    again = build_dataset(parameters.model_copy(update={"announce": False}))
    assert again == result.model_copy(update={"encoded_clips": 0})
    assert path.read_bytes() == before
    assert len(events_named(client, "dataset.build.completed", str(result.dataset))) == 1


def test_a_leak_beyond_the_policy_stops_the_build_before_it_is_committed(tiny_base: Path, tmp_path: Path) -> None:
    chosen = sources(tmp_path, tiny_base).model_copy(update={"fixed_camera": None, "base": None})
    for role in ("videos", "videos_static", "videos_hands"):
        first, *_, last = sorted((tmp_path / "raw").glob(f"*/{role}/*.mp4"))
        shutil.copyfile(first, last)
    with pytest.raises(DwmError, match="splits share what policy in-order forbids: 1 at level clip"):
        build_dataset(chosen)
    assert last_commit(Dataset.open(chosen.dataset)) is None


def test_a_dataset_without_a_test_clip_is_refused_unless_that_is_meant(tiny_base: Path, tmp_path: Path) -> None:
    chosen = sources(tmp_path, tiny_base, clips=1).model_copy(update={"fixed_camera": None, "base": None})
    with pytest.raises(DwmError, match="1 ready clip, too few: none for validation and test"):
        build_dataset(chosen)
    assert build_dataset(chosen.model_copy(update={"fill_every_split": False, "announce": False})).ready_clips == 1


def test_no_source_and_no_dataset_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="no dataset here"):
        build_dataset(BuildDatasetParameters(dataset=tmp_path / "nothing"))


def test_what_draws_in_its_own_processes_runs_beside_the_rest(
    parameters: BuildDatasetParameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, here = threading.Barrier(3, timeout=30), threading.Lock()

    def beside() -> int:
        together.wait()
        return 1

    def alone() -> int:
        assert here.acquire(blocking=False), "another build that draws here is not over"
        together.wait()
        here.release()
        return 10

    monkeypatch.setattr(BuildDatasetParameters, "builds", lambda *_: [(beside, True), (alone, False), (beside, True)])
    assert flow(build_sources)(parameters) == 12


def test_builds_with_worker_processes_may_run_beside_others(parameters: BuildDatasetParameters) -> None:
    assert parameters.fixed_camera is not None
    spawning = parameters.model_copy(
        update={"fixed_camera": parameters.fixed_camera.model_copy(update={"workers": 2}), "official": None}
    )
    for recipe, expected in ((parameters, [True, False]), (spawning, [True])):
        assert [elsewhere for _, elsewhere in recipe.builds(recipe.dataset, "mini")] == expected
