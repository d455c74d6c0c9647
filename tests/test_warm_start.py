"""Warm start: a run begins with another run's weights, and says so in its id."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dwm_model.checkpoints import checkpoint_folder, read_identity
from dwm_model.lora import LoraSettings
from dwm_model.train_config import TrainConfig
from dwm_model.training import identify_run, train
from dwm_model.warm_start import hash_weights, warm_start_from
from manifests.dataset import Dataset
from manifests.errors import DwmError
from tests.helpers_model import GEOMETRY

pytest_plugins = ("tests.fixtures_model",)

CONFIG = TrainConfig(
    geometry=GEOMETRY,
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=6,
    batch_size=2,
    accumulation_steps=1,
    learning_rate=1e-2,
    warmup_steps=1,
    gradient_checkpointing="none",
    checkpoint_every=3,
    validate_every=6,
    num_validation_timesteps=3,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def first_run(tiny_base: Path, encoded_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run beside a copy of the dataset."""
    root = tmp_path_factory.mktemp("first")
    dataset = Dataset.open(Path(shutil.copytree(encoded_dataset_root, root / "dataset")))
    train(dataset, tiny_base, root / "run", CONFIG)
    return root / "run"


@pytest.fixture
def dataset(first_run: Path) -> Dataset:
    return Dataset.open(first_run.parent / "dataset")


def warm(first_run: Path, **changes: object) -> TrainConfig:
    return CONFIG.model_copy(update={"warm_start": warm_start_from(first_run), **changes})


def test_a_warm_run_begins_where_the_other_one_ended(
    dataset: Dataset, tiny_base: Path, first_run: Path, tmp_path: Path
) -> None:
    cold = train(dataset, tiny_base, tmp_path / "cold", warm(first_run, warm_start=None, max_steps=1))
    summary = train(dataset, tiny_base, tmp_path / "warm", warm(first_run, max_steps=1))
    ended = dataset.runs.get(read_identity(first_run).run_id).metrics["validation_loss_last"]

    assert summary.validation_loss_first == ended
    assert cold.validation_loss_first is not None
    assert summary.validation_loss_first < cold.validation_loss_first


def test_the_weights_are_part_of_the_id_and_where_they_lie_is_not(
    dataset: Dataset, tiny_base: Path, first_run: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(first_run, tmp_path / "moved"))
    cold, here, there = (
        identify_run(dataset, tiny_base, config).run_id for config in (CONFIG, warm(first_run), warm(moved))
    )
    assert cold == read_identity(first_run).run_id
    assert here == there != cold


def test_an_interrupted_warm_run_continues_without_the_other_one(
    dataset: Dataset, tiny_base: Path, first_run: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(first_run, tmp_path / "moved"))
    config, run = warm(moved, seed=2), tmp_path / "run"
    train(dataset, tiny_base, run, config, should_stop=lambda: True)
    shutil.rmtree(moved)
    assert train(dataset, tiny_base, run, config, resume=True).is_complete
    with pytest.raises(DwmError, match="the run has warm_start"):
        train(dataset, tiny_base, run, config.model_copy(update={"warm_start": None}), resume=True)


def test_other_weights_than_the_promised_ones_are_refused(
    dataset: Dataset, tiny_base: Path, first_run: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(first_run, tmp_path / "moved"))
    config = warm(moved)
    assert config.warm_start is not None
    newest, older = (checkpoint_folder(moved, step) for step in (6, 3))
    shutil.copyfile(older / "optimizer.safetensors", newest / "optimizer.safetensors")
    assert hash_weights(newest) == config.warm_start.weights_hash
    shutil.copyfile(older / "pytorch_lora_weights.safetensors", newest / "pytorch_lora_weights.safetensors")
    with pytest.raises(DwmError, match="not those that the run is to begin with"):
        train(dataset, tiny_base, tmp_path / "run", config)


def test_weights_of_another_base_or_rank_are_refused(
    dataset: Dataset, tiny_base: Path, first_run: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(first_run, tmp_path / "moved"))
    described = (moved / "run.json").read_text()
    (moved / "run.json").write_text(described.replace(read_identity(moved).base_hash, "0" * 64))
    with pytest.raises(DwmError, match="trained on base 000000000000"):
        train(dataset, tiny_base, tmp_path / "run", warm(moved))
    with pytest.raises(DwmError, match="rank"):
        train(dataset, tiny_base, tmp_path / "other", warm(first_run, lora=LoraSettings(rank=4, alpha=4)))


def test_a_run_without_a_checkpoint_gives_no_warm_start(tmp_path: Path) -> None:
    with pytest.raises(DwmError, match="no checkpoint to begin another run with"):
        warm_start_from(tmp_path)
