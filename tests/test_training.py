"""Training: exact resume after any stop, honest validation, refusals that name what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from diffusers.optimization import get_scheduler
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dwm_model import clip_order
from dwm_model.base_model import BaseModel, load_base
from dwm_model.checkpoints import checkpoint_folder, checkpoint_steps
from dwm_model.clip_order import ClipOrder
from dwm_model.denoiser import make_denoiser, velocity_losses
from dwm_model.latents import LatentStore
from dwm_model.lora import LoraSettings
from dwm_model.network_call import ConditionLatents
from dwm_model.tiny import make_tiny_base
from dwm_model.train_config import PRESETS, TrainConfig, read_train_config
from dwm_model.training import train
from dwm_model.training_data import load_training_batch, select_clips
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.locks import exclusive_lock
from manifests.schema import ClipStatus, Review, RunStatus, Split
from tests.helpers_model import GEOMETRY, add_clip, encode_all

pytest_plugins = ("tests.fixtures_model",)

CONFIG = TrainConfig(
    geometry=GEOMETRY,
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=7,
    batch_size=2,
    accumulation_steps=2,
    learning_rate=1e-2,
    warmup_steps=2,
    gradient_checkpointing=False,
    checkpoint_every=3,
    keep_checkpoints=2,
    validate_every=3,
    num_validation_timesteps=3,
)


@pytest.fixture
def dataset(encoded_dataset_root: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(Path(shutil.copytree(encoded_dataset_root, tmp_path / "dataset")))


@pytest.fixture(scope="module")
def whole_run(tiny_base: Path, encoded_dataset_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Journals of a run that nothing interrupted."""
    root = tmp_path_factory.mktemp("whole")
    dataset = Dataset.open(Path(shutil.copytree(encoded_dataset_root, root / "dataset")))
    train(dataset, tiny_base, root / "run", CONFIG)
    return root / "run"


def journals(run: Path) -> tuple[str, str]:
    return (run / "losses.jsonl").read_text(), (run / "validation.jsonl").read_text()


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "losses.jsonl").read_text().splitlines()]


def stop_after(run: Path, count: int) -> bool:
    return len(steps_of(run)) >= count


def training_command(dataset: Dataset, base: Path, run: Path, config: TrainConfig, *more: str) -> list[str]:
    config_path = run.parent / "config.json"
    config_path.write_text(config.model_dump_json())
    paths = ["--dataset", str(dataset.root), "--base", str(base), "--run", str(run), "--config", str(config_path)]
    return [sys.executable, "-m", "dwm_model.train", *paths, *more]


def start_and_wait_for_step(command: list[str], run: Path, step: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (run / "losses.jsonl").exists() and stop_after(run, step):
            return process
        time.sleep(0.005)
    process.kill()
    raise AssertionError(process.communicate())


def test_run_leaves_journals_checkpoints_and_its_row(dataset: Dataset, tiny_base: Path, whole_run: Path) -> None:
    run = dataset.root.parent / "run"
    seen: list[int] = []
    summary = train(dataset, tiny_base, run, CONFIG, on_step=lambda record: seen.append(record.step))
    assert steps_of(run) == seen == [1, 2, 3, 4, 5, 6, 7]
    assert set(json.loads((run / "losses.jsonl").read_text().splitlines()[0])) == {"step", "loss", "lr", "grad_norm"}
    assert [json.loads(line)["step"] for line in journals(run)[1].splitlines()] == [0, 3, 6, 7]
    assert checkpoint_steps(run) == [6, 7]
    row = dataset.runs.get(summary.run_id)
    assert (row.status, row.steps, row.checkpoints) == (RunStatus.COMPLETED, 7, (6, 7))
    assert row.run_path == "../run"
    assert row.base_is_untrained
    assert row.metrics["validation_loss_last"] == summary.validation_loss_last
    assert journals(run) == journals(whole_run)


def test_training_lowers_the_validation_loss(dataset: Dataset, tiny_base: Path) -> None:
    config = CONFIG.model_copy(update={"max_steps": 60, "accumulation_steps": 1})
    summary = train(dataset, tiny_base, dataset.root.parent / "run", config)
    assert summary.validation_loss_first is not None
    assert summary.validation_loss_last is not None
    assert summary.validation_loss_last < 0.8 * summary.validation_loss_first


@pytest.mark.parametrize("stop_step", [1, 3, 5])
def test_stopped_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    dataset: Dataset, tiny_base: Path, whole_run: Path, stop_step: int
) -> None:
    run = dataset.root.parent / "run"
    first = train(dataset, tiny_base, run, CONFIG, should_stop=lambda: stop_after(run, stop_step))
    assert (first.steps, first.is_complete) == (stop_step, False)
    assert dataset.runs.get(first.run_id).status is RunStatus.RUNNING
    torch.manual_seed(1234)
    assert train(dataset, tiny_base, run, CONFIG, resume=True).is_complete
    assert journals(run) == journals(whole_run)
    last = checkpoint_folder(Path("checkpoints").parent, 7).name
    for name in ("pytorch_lora_weights.safetensors", "non_lora_weights.safetensors", "optimizer.safetensors"):
        paths = [folder / "checkpoints" / last / name for folder in (run, whole_run)]
        one, other = (_tensors(path) for path in paths)
        assert all(torch.equal(one[key], other[key]) for key in one | other)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(path))


@pytest.mark.slow
@pytest.mark.parametrize("kill_step", [2, 5])
def test_killed_run_continues_without_doubled_steps_and_with_the_same_losses(
    dataset: Dataset, tiny_base: Path, whole_run: Path, kill_step: int
) -> None:
    """Kill -9 before the first checkpoint, and between two of them."""
    run = dataset.root.parent / "run"
    config = CONFIG.model_copy(update={"max_steps": 40})
    process = start_and_wait_for_step(training_command(dataset, tiny_base, run, config), run, kill_step)
    process.kill()
    process.communicate()
    with (run / "losses.jsonl").open("a") as stream:
        stream.write('{"step": 99, "lo')
    again = subprocess.run(
        training_command(dataset, tiny_base, run, config, "--resume"), capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout.splitlines()[-1])["steps"] == 40
    assert steps_of(run) == list(range(1, 41))
    whole = run.parent / "whole"
    train(Dataset.open(dataset.root), tiny_base, whole, config)
    assert journals(run) == journals(whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_finishes_the_step_writes_a_checkpoint_and_tells(
    dataset: Dataset, tiny_base: Path, number: signal.Signals
) -> None:
    run = dataset.root.parent / "run"
    config = CONFIG.model_copy(update={"max_steps": 5000, "checkpoint_every": 5000})
    process = start_and_wait_for_step(training_command(dataset, tiny_base, run, config), run, 2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name} at step {steps_of(run)[-1]}; continue it with --resume" in errors.splitlines()[-1]
    assert checkpoint_steps(run) == [steps_of(run)[-1]]


def test_finished_run_is_left_as_it_is(dataset: Dataset, tiny_base: Path) -> None:
    run = dataset.root.parent / "run"
    train(dataset, tiny_base, run, CONFIG)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    summary = train(dataset, tiny_base, run, CONFIG, resume=True)
    assert summary.is_complete
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_folder_with_a_run_is_refused_without_resume(dataset: Dataset, tiny_base: Path) -> None:
    run = dataset.root.parent / "run"
    train(dataset, tiny_base, run, CONFIG)
    with pytest.raises(DwmError, match="holds a training run already; continue it with --resume"):
        train(dataset, tiny_base, run, CONFIG)


@pytest.mark.parametrize(("change", "told"), [({"max_steps": 9}, "max_steps 7, now 9"), ({"seed": 1}, "seed 0, now 1")])
def test_resuming_with_other_settings_names_the_field(
    dataset: Dataset, tiny_base: Path, change: dict[str, int], told: str
) -> None:
    run = dataset.root.parent / "run"
    train(dataset, tiny_base, run, CONFIG, should_stop=lambda: True)
    with pytest.raises(DwmError, match=f"the run has {told}"):
        train(dataset, tiny_base, run, CONFIG.model_copy(update=change), resume=True)


def test_resuming_with_another_dataset_or_base_is_refused(
    dataset: Dataset, tiny_base: Path, base: BaseModel, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(dataset, tiny_base, run, CONFIG, should_stop=lambda: True)
    other = make_tiny_base(tmp_path / "other", seed=2)
    encode_all(dataset, load_base(other))
    with pytest.raises(DwmError, match="the run's base model differ"):
        train(dataset, other, run, CONFIG, resume=True)
    add_clip(dataset, "clip9", seed=9, split=Split.TRAIN)
    encode_all(dataset, base)
    with pytest.raises(DwmError, match="the run's train or validation clips differ"):
        train(dataset, tiny_base, run, CONFIG, resume=True)


def test_damaged_checkpoint_is_named_and_the_one_before_can_be_used(
    dataset: Dataset, tiny_base: Path, whole_run: Path
) -> None:
    run = dataset.root.parent / "run"
    train(dataset, tiny_base, run, CONFIG, should_stop=lambda: stop_after(run, 5))
    newest = checkpoint_folder(run, 5)
    (newest / "optimizer.safetensors").write_bytes(b"broken")
    with pytest.raises(DwmError, match=r"step-000005: damaged .*remove it to continue"):
        train(dataset, tiny_base, run, CONFIG, resume=True)
    shutil.rmtree(newest)
    train(dataset, tiny_base, run, CONFIG, resume=True)
    assert journals(run) == journals(whole_run)


def test_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(dataset: Dataset, tiny_base: Path) -> None:
    run = dataset.root.parent / "run"
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "warmup_steps": 4, "max_grad_norm": 1e30})
    with pytest.raises(DwmError, match=r"loss .* at step \d.*lower learning rate"):
        train(dataset, tiny_base, run, config)
    row = next(dataset.runs.rows())
    assert row.status is RunStatus.FAILED
    assert row.reason is not None
    assert all(json.loads(line)["loss"] < float("inf") for line in journals(run)[0].splitlines())


def test_empty_train_split_and_unencoded_clips_are_refused(dataset: Dataset, tiny_base: Path, tmp_path: Path) -> None:
    add_clip(dataset, "clip8", seed=8, split=Split.TRAIN)
    with pytest.raises(DwmError, match="1 of 5 clips, the first: clip clip8 has no latents"):
        train(dataset, tiny_base, tmp_path / "run", CONFIG)
    empty = Dataset.create_or_open(tmp_path / "empty")
    add_clip(empty, "candidate", split=Split.TRAIN, status=ClipStatus.CONDITIONS_ONLY)
    with pytest.raises(DwmError, match="no ready clip in the train split"):
        train(empty, tiny_base, tmp_path / "run", CONFIG)


def test_only_accepted_ready_train_clips_are_trained_on(dataset: Dataset) -> None:
    rejected = dataset.clips.get("clip0")
    dataset.clips.upsert([rejected.updated(review=Review.REJECTED)])
    add_clip(dataset, "candidate", split=Split.TRAIN, status=ClipStatus.CONDITIONS_ONLY)
    selection = select_clips(dataset, CONFIG)
    assert list(selection.train) == ["clip1", "clip2"]
    assert list(selection.validation) == ["clip3"]


def test_training_without_validation_clips_works_and_says_nothing_of_them(dataset: Dataset, tiny_base: Path) -> None:
    dataset.clips.upsert([dataset.clips.get("clip3").updated(split=Split.TEST)])
    summary = train(dataset, tiny_base, dataset.root.parent / "run", CONFIG.model_copy(update={"max_steps": 1}))
    assert summary.validation_loss_first is None


def test_accumulated_and_checkpointed_gradients_equal_plain_ones(dataset: Dataset, tiny_base: Path) -> None:
    accumulated = CONFIG.model_copy(update={"max_steps": 3})
    checkpointed = accumulated.model_copy(update={"gradient_checkpointing": "full"})
    plain = accumulated.model_copy(update={"batch_size": 4, "accumulation_steps": 1})
    found: list[tuple[list[float], list[float]]] = []
    for name, config in (("plain", plain), ("accumulated", accumulated), ("checkpointed", checkpointed)):
        train(dataset, tiny_base, dataset.root.parent / name, config)
        steps = [json.loads(line) for line in journals(dataset.root.parent / name)[0].splitlines()]
        found.append(([step["loss"] for step in steps], [step["grad_norm"] for step in steps]))
    for losses, norms in found[1:]:
        assert losses == pytest.approx(found[0][0], abs=1e-5)
        assert norms == pytest.approx(found[0][1], rel=1e-4)


@given(count=st.integers(1, 9), seed=st.integers(0, 100))
def test_each_epoch_visits_every_clip_once_in_its_own_order(count: int, seed: int) -> None:
    ids = [f"c{index}" for index in range(count)]
    order = ClipOrder(ids, seed)
    epochs = [[order.at(epoch * count + index) for index in range(count)] for epoch in range(6)]
    assert all(sorted(epoch) == ids for epoch in epochs)
    assert epochs == [[ClipOrder(ids, seed).at(epoch * count + index) for index in range(count)] for epoch in range(6)]
    if count > 4:
        assert len({tuple(epoch) for epoch in epochs}) > 1


def test_dropout_gives_the_empty_prompt_and_no_hands_without_moving_other_draws(
    encoded_dataset: Dataset, base: BaseModel
) -> None:
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    clips = [("clip0", encoded_dataset.clips.get("clip0").prompt)]
    plain = load_training_batch(store, clips, [7], CONFIG, 1000)
    dropped_config = CONFIG.model_copy(update={"prompt_dropout": 1.0, "hand_dropout": 1.0})
    dropped = load_training_batch(store, clips, [7], dropped_config, 1000)
    assert torch.equal(dropped.clips.interaction_bcfhw, plain.clips.interaction_bcfhw)
    assert torch.equal(dropped.noise_bfchw, plain.noise_bfchw)
    assert torch.equal(dropped.timesteps_b, plain.timesteps_b)
    assert torch.equal(dropped.clips.conditions.static_bcfhw, plain.clips.conditions.static_bcfhw)
    assert plain.clips.conditions.hands_bcfhw is not None
    assert plain.clips.conditions.hands_bcfhw.any()
    assert dropped.clips.conditions.hands_bcfhw is not None
    assert not dropped.clips.conditions.hands_bcfhw.any()
    assert torch.equal(dropped.clips.text_bld[0], store.prompt_embedding(""))
    assert torch.equal(plain.clips.text_bld[0], store.prompt_embedding(clips[0][1]))


def test_navigation_shows_the_static_video_where_hands_could_have_been(
    encoded_dataset: Dataset, base: BaseModel
) -> None:
    store = LatentStore(encoded_dataset, base.description, GEOMETRY)
    clips = [("clip0", encoded_dataset.clips.get("clip0").prompt)]
    config = CONFIG.model_copy(update={"navigation_share": 1.0})
    plain = load_training_batch(store, clips, [7], CONFIG, 1000)
    navigation = load_training_batch(store, clips, [7], config, 1000)
    conditions = navigation.clips.conditions
    assert torch.equal(navigation.noise_bfchw, plain.noise_bfchw)
    assert torch.equal(conditions.static_bcfhw, plain.clips.conditions.static_bcfhw)
    assert torch.equal(navigation.clips.interaction_bcfhw, conditions.static_bcfhw)
    assert conditions.hands_bcfhw is not None
    assert not conditions.hands_bcfhw.any()
    both = config.model_copy(update={"hand_dropout": 1.0})
    dropped = load_training_batch(store, clips, [7], both, 1000)
    assert torch.equal(dropped.clips.interaction_bcfhw, plain.clips.interaction_bcfhw)
    handless = CONFIG.model_copy(update={"conditioning": "none", "navigation_share": 1.0})
    assert torch.equal(
        load_training_batch(store, clips, [7], handless, 1000).clips.interaction_bcfhw,
        plain.clips.interaction_bcfhw,
    )


def test_velocity_loss_equals_the_weighted_clean_latent_loss(base: BaseModel) -> None:
    denoiser = make_denoiser(base, "hand_mesh")
    transformer, scheduler = denoiser.transformer.double(), base.scheduler
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(0)
    latents, static, hands, noise = (
        torch.randn(2, 3, 16, 4, 6, generator=generator, dtype=torch.float64) for _ in range(4)
    )
    text = torch.randn(2, 64, 64, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([100, 900])
    conditions = ConditionLatents(static, hands)
    with torch.no_grad():
        found = velocity_losses(denoiser, latents, conditions, text, noise_bfchw=noise, timesteps_b=timesteps)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        mask = torch.full_like(noisy[:, :, :1], denoiser.mask_value)
        given_in = torch.cat([noisy, mask, static, hands], dim=2)
        rotary = denoiser.family.rotary_embedding(transformer, 4, 6, 3)
        velocity = denoiser.family.predict(transformer, given_in, text, timesteps, rotary)
        clean = scheduler.get_velocity(velocity, noisy, timesteps)
        weights = 1 / (1 - scheduler.alphas_cumprod[timesteps])
        expected = weights * (clean - latents).square().flatten(1).mean(1)
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-5)


def test_velocity_error_is_the_weighted_clean_latent_error_for_any_prediction(base: BaseModel) -> None:
    """The same in double precision throughout, for a velocity that no network gave: to the last digits."""
    schedule, scheduler = make_denoiser(base, "hand_mesh").schedule, base.scheduler
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    generator = torch.Generator().manual_seed(1)
    latents, noise, velocity = (torch.randn(5, 200, generator=generator, dtype=torch.float64) for _ in range(3))
    timesteps = torch.tensor([1, 100, 400, 900, 999])
    error = (velocity - schedule.target(latents, noise, timesteps)).square().mean(1)
    clean = scheduler.get_velocity(velocity, scheduler.add_noise(latents, noise, timesteps), timesteps)
    weights = 1 / (1 - scheduler.alphas_cumprod[timesteps])
    assert error.numpy() == pytest.approx((weights * (clean - latents).square().mean(1)).numpy(), rel=1e-12)


@pytest.mark.parametrize("cycles", [1, 3])
def test_learning_rate_is_the_stock_cosine_with_restarts(cycles: int) -> None:
    config = CONFIG.model_copy(update={"max_steps": 50, "warmup_steps": 7, "schedule_cycles": cycles})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    stock = get_scheduler(
        "cosine_with_restarts", optimizer, num_warmup_steps=7, num_training_steps=50, num_cycles=cycles
    )
    for step in range(1, 51):
        assert config.learning_rate_at(step) == pytest.approx(stock.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        stock.step()


def test_default_settings_are_the_papers() -> None:
    paper = PRESETS["paper"]
    assert (paper.learning_rate, paper.adam_betas, paper.weight_decay) == (1e-4, (0.9, 0.95), 0.01)
    assert (paper.lora.rank, paper.lora.alpha, paper.batch_size * paper.accumulation_steps * 4) == (64, 64, 56)
    assert (paper.max_steps, paper.warmup_steps, paper.max_grad_norm) == (15_000, 100, 1.0)
    assert str(paper.geometry) == "720x480x49"
    with pytest.raises(ValidationError):
        TrainConfig.model_validate({"learning_rat": 1e-3})


def test_broken_settings_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"lora": {"rank": -1}}')
    with pytest.raises(DwmError, match=r"config\.json: lora\.rank: .*given: -1") as caught:
        read_train_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_command_line_errors_are_one_line_with_exit_codes(dataset: Dataset, tiny_base: Path, tmp_path: Path) -> None:
    environment = os.environ | {"COLUMNS": "200"}
    command = training_command(dataset, tmp_path / "no-base", tmp_path / "run", CONFIG)
    failed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: ")
    assert "no such folder" in failed.stderr
    assert "Traceback" not in failed.stderr
    usage = subprocess.run(command[:3], capture_output=True, text=True, check=False, env=environment)
    assert usage.returncode == 2


def test_seeds_are_the_same_on_every_machine() -> None:
    assert clip_order.stable_seed("training", 0, 0) == clip_order.stable_seed("training", 0, 0)
    assert clip_order.stable_seed("training", 0, 0) != clip_order.stable_seed("training", 0, 1)


@pytest.mark.slow
def test_trainer_whose_parent_is_gone_writes_a_checkpoint_and_stops(dataset: Dataset, tiny_base: Path) -> None:
    run = dataset.root.parent / "run"
    config = CONFIG.model_copy(update={"max_steps": 5000, "checkpoint_every": 5000})
    nobody = "999999999"
    command = [*training_command(dataset, tiny_base, run, config), "--parent", nobody]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert finished.returncode == 128 + signal.SIGTERM, finished.stderr
    assert checkpoint_steps(run) == [1]


def test_two_processes_never_train_in_one_folder(
    dataset: Dataset, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = dataset.root.parent / "run"
    monkeypatch.setattr("dwm_model.training.LOCK_PATIENCE_S", 0.2)
    with exclusive_lock(run / ".lock"), pytest.raises(DwmError, match="another process is training here"):
        train(dataset, tiny_base, run, CONFIG)
    assert train(dataset, tiny_base, run, CONFIG).is_complete
