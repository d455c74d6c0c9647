"""Training's settings: mixtures, whole networks, averages, checkpointing policies, trackers, and what stops a run."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dwm_model import checkpoints
from dwm_model.base_model import load_base
from dwm_model.checkpoints import checkpoint_folder, checkpoint_steps, load_weights, read_identity
from dwm_model.clip_order import MIX_LENGTH, ClipOrder, positions_of_rank
from dwm_model.lora import LoraSettings, export_adapter
from dwm_model.loss_watch import WINDOW, LossWatch
from dwm_model.train import StopRequest
from dwm_model.train_config import TrainConfig
from dwm_model.trainable import make_trainable_denoiser
from dwm_model.training import train
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import RunStatus
from tests.helpers_model import GEOMETRY, base_with_dropout, encode_all

pytest_plugins = ("tests.fixtures_model",)

CONFIG = TrainConfig(
    geometry=GEOMETRY,
    lora=LoraSettings(rank=2, alpha=2),
    max_steps=6,
    batch_size=2,
    accumulation_steps=1,
    learning_rate=1e-2,
    warmup_steps=2,
    gradient_checkpointing="none",
    checkpoint_every=2,
    keep_checkpoints=3,
    validate_every=6,
    num_validation_timesteps=2,
    tensorboard=False,
)


def changed(**changes: object) -> TrainConfig:
    return TrainConfig.model_validate(CONFIG.model_dump() | changes)


@pytest.fixture
def dataset(encoded_dataset_root: Path, tmp_path: Path) -> Dataset:
    return Dataset.open(Path(shutil.copytree(encoded_dataset_root, tmp_path / "dataset")))


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "losses.jsonl").read_text().splitlines()]


def stop_at(run: Path, step: int) -> bool:
    return len(losses(run)) >= step


@given(ranks=st.integers(1, 5), batch=st.integers(1, 4), accumulation=st.integers(1, 3), count=st.integers(1, 23))
def test_ranks_together_visit_every_clip_once_an_epoch(ranks: int, batch: int, accumulation: int, count: int) -> None:
    order = ClipOrder([f"c{index}" for index in range(count)], seed=3)
    step = ranks * batch * accumulation
    taken = [
        position
        for start in range(0, 3 * count + step, step)
        for rank in range(ranks)
        for part in positions_of_rank(start, rank=rank, ranks=ranks, batch_size=batch, accumulation_steps=accumulation)
        for position in part
    ]
    assert sorted(taken) == list(range(len(taken)))
    for epoch in range(3):
        visited = [order.at(position) for position in sorted(taken)[epoch * count : (epoch + 1) * count]]
        assert len(set(visited)) == count


def test_mixture_gives_each_source_its_share_and_each_of_its_clips_once_before_any_comes_again() -> None:
    sources = {f"t{index}": "trumans" for index in range(10)} | {f"r{index}": "taste_rob" for index in range(4)}
    order = ClipOrder(list(sources), 0, sources, {"trumans": 3.0, "taste_rob": 1.0})
    visited = [order.at(position) for position in range(2 * MIX_LENGTH)]
    assert Counter(sources[clip] for clip in visited) == {"trumans": 1500, "taste_rob": 500}
    for start in range(0, 2 * MIX_LENGTH, 40):
        assert 28 <= sum(sources[clip] == "trumans" for clip in visited[start : start + 40]) <= 32
    for source, count in (("trumans", 10), ("taste_rob", 4)):
        own = [clip for clip in visited if sources[clip] == source]
        assert all(len(set(own[start : start + count])) == count for start in range(0, len(own) - count, count))
    only = ClipOrder(list(sources), 0, sources, {"trumans": 0, "taste_rob": 2})
    assert {sources[only.at(position)] for position in range(50)} == {"taste_rob"}


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        ({"synthetic": 1, "aria": 1}, "no train clip has the source 'aria'"),
        ({"trumans": 0}, "source 'synthetic' has no weight"),
        ({"synthetic": 0}, "all weights are zero"),
    ],
)
def test_mixture_that_does_not_fit_the_clips_is_refused(
    dataset: Dataset, tiny_base: Path, weights: dict[str, float], told: str
) -> None:
    with pytest.raises(DwmError, match=told):
        train(dataset, tiny_base, dataset.root.parent / "run", changed(source_weights=weights))


def test_full_training_with_an_average_resumes_exactly_and_diffusers_loads_it(
    dataset: Dataset, tiny_base: Path, tmp_path: Path
) -> None:
    config = changed(mode="full", ema_decay=0.5, learning_rate=1e-3)
    train(dataset, tiny_base, tmp_path / "whole", config)
    run = tmp_path / "run"
    train(dataset, tiny_base, run, config, should_stop=lambda: stop_at(run, 3))
    train(dataset, tiny_base, run, config, resume=True)
    assert losses(run) == losses(tmp_path / "whole")
    for name in ("transformer", "ema/transformer"):
        file = checkpoint_folder(Path(), 6) / name / "diffusion_pytorch_model.safetensors"
        assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    trained, average, before = (
        CogVideoXTransformer3DModel.from_pretrained(str(folder)).state_dict()
        for folder in (
            checkpoint_folder(run, 6) / "transformer",
            checkpoint_folder(run, 6) / "ema" / "transformer",
            checkpoint_folder(run, 4) / "transformer",
        )
    )
    assert trained["patch_embed.proj.weight"].shape[1] == 49
    name = "transformer_blocks.0.attn1.to_q.weight"
    assert not torch.equal(trained[name], before[name])
    assert not torch.equal(average[name], trained[name])


def test_a_network_that_draws_dropout_resumes_exactly(dataset: Dataset, tiny_base: Path, tmp_path: Path) -> None:
    """The loop itself draws nothing from torch's own generator; a base with dropout does, in every step."""
    base = base_with_dropout(tiny_base, tmp_path / "dropping")
    encode_all(dataset, load_base(base))
    train(dataset, base, tmp_path / "whole", CONFIG)
    train(dataset, tiny_base, tmp_path / "without", CONFIG)
    run = tmp_path / "run"
    train(dataset, base, run, CONFIG, should_stop=lambda: stop_at(run, 3))
    torch.manual_seed(1234)
    train(dataset, base, run, CONFIG, resume=True)
    assert losses(run) == losses(tmp_path / "whole")
    assert losses(run) != losses(tmp_path / "without")


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_every_checkpointing_policy_learns_the_same(dataset: Dataset, tiny_base: Path, mode: str) -> None:
    found = {}
    for policy in ("none", "selective", "full"):
        run = dataset.root.parent / policy
        train(dataset, tiny_base, run, changed(gradient_checkpointing=policy, max_steps=3, mode=mode))
        found[policy] = losses(run)
    assert found["selective"] == pytest.approx(found["none"], abs=1e-5)
    assert found["full"] == pytest.approx(found["none"], abs=1e-5)


@pytest.mark.slow
def test_compiled_blocks_learn_the_same(dataset: Dataset, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiler front end of torch and no code generator, which would take minutes."""
    compiled: list[bool] = []
    compile_module = torch.nn.Module.compile

    def without_generator(module: torch.nn.Module, *args: object, **options: object) -> None:
        compiled.append(True)
        compile_module(module, *args, **{**options, "backend": "eager"})

    monkeypatch.setattr(torch.nn.Module, "compile", without_generator)
    for name, is_compiled in (("plain", False), ("compiled", True)):
        train(dataset, tiny_base, dataset.root.parent / name, changed(compile_blocks=is_compiled, max_steps=2))
    assert len(compiled) == 4
    runs = (losses(dataset.root.parent / name) for name in ("plain", "compiled"))
    assert next(runs) == pytest.approx(next(runs), abs=1e-5)


def test_trainables_are_float32_and_move_by_less_than_bfloat16_could_hold(dataset: Dataset, tiny_base: Path) -> None:
    config = changed(precision="bfloat16", learning_rate=1e-5, max_steps=2, warmup_steps=1)
    denoiser = make_trainable_denoiser(tiny_base, config, "cpu")
    kinds = {parameter.requires_grad: parameter.dtype for parameter in denoiser.transformer.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    run = dataset.root.parent / "run"
    train(dataset, tiny_base, run, config)
    name = "patch_embed.proj.weight"
    after = load_file(checkpoint_folder(run, 2) / "non_lora_weights.safetensors")[name]
    before = denoiser.transformer.get_parameter(name).detach()
    moved = (after - before).abs()
    assert after.dtype == torch.float32
    assert 0 < float(moved.max()) < 1e-4
    assert float((after.bfloat16() == before.bfloat16()).float().mean()) > 0.5


def test_divergence_is_noticed_against_the_beginning_and_the_same_after_a_resume() -> None:
    rising = [1.0] * WINDOW + [1.0 + 0.3 * step for step in range(100)]

    def stops_at(watch: LossWatch, start: int) -> int | None:
        steps = enumerate(rising[start:], start)
        return next((step for step, loss in steps if watch.problem(loss, 1.0) is not None), None)

    step = stops_at(LossWatch(5.0), 0)
    assert step is not None
    mean = sum(rising[step - WINDOW + 1 : step + 1]) / WINDOW
    assert 5.0 < mean < 5.5
    assert stops_at(LossWatch(5.0, rising[:70]), 70) == step
    assert stops_at(LossWatch(None), 0) is None
    assert LossWatch(None).problem(float("nan"), 1.0) is not None
    assert LossWatch(None).problem(1.0, float("inf")) is not None


def test_diverging_run_stops_and_keeps_its_checkpoint(
    dataset: Dataset, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dwm_model.loss_watch.WINDOW", 1)
    config = changed(divergence_ratio=1.05, learning_rate=5.0, warmup_steps=3, max_steps=40)
    run = dataset.root.parent / "run"
    with pytest.raises(DwmError, match=r"times the first .* at step \d+; checkpoint \d+ is kept"):
        train(dataset, tiny_base, run, config)
    assert checkpoint_steps(run)
    assert dataset.runs.get(read_identity(run).run_id).status is RunStatus.FAILED


def test_disk_that_fills_during_a_checkpoint_is_one_line_and_keeps_the_older_one(
    dataset: Dataset, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(dataset, tiny_base, tmp_path / "whole", CONFIG)
    write_weights, run = checkpoints.write_weights, tmp_path / "run"

    def full_at_step_4(*arguments: object) -> None:
        write_weights(*arguments)
        if len(losses(run)) == 4:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "write_weights", full_at_step_4)
    with pytest.raises(DwmError, match="step-000004: the disk is full; free some space") as caught:
        train(dataset, tiny_base, run, CONFIG)
    assert "\n" not in str(caught.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000002"]
    monkeypatch.undo()
    assert train(dataset, tiny_base, run, CONFIG, resume=True).is_complete
    assert losses(run) == losses(tmp_path / "whole")


def test_checkpoint_of_another_rank_or_conditioning_is_refused(
    dataset: Dataset, tiny_base: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train(dataset, tiny_base, run, CONFIG, should_stop=lambda: stop_at(run, 2))
    other = changed(lora=LoraSettings(rank=4, alpha=4))
    folder = checkpoint_folder(run, 2)
    export_adapter(make_trainable_denoiser(tiny_base, other, "cpu").transformer, other.lora, folder)
    with pytest.raises(DwmError, match=r"lora_A.* is \[4, 128\], the network needs \[2, 128\]"):
        train(dataset, tiny_base, run, CONFIG, resume=True)
    none = make_trainable_denoiser(tiny_base, changed(conditioning="none"), "cpu").transformer
    export_adapter(make_trainable_denoiser(tiny_base, CONFIG, "cpu").transformer, CONFIG.lora, folder)
    with pytest.raises(DwmError, match=r"patch_embed\.proj\.weight is \[128, 49, 2, 2\], the network needs"):
        load_weights(run, 2, none, CONFIG)


def test_full_checkpoint_of_another_family_is_refused(dataset: Dataset, tiny_base: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", changed(mode="full", max_steps=2)
    train(dataset, tiny_base, run, config)
    other = make_trainable_denoiser(tiny_base, changed(mode="full", conditioning="adaln_frame"), "cpu").transformer
    with pytest.raises(DwmError, match=r"tensors are missing, such as .*use a checkpoint of this base's family"):
        load_weights(run, 2, other, config)
    narrow = CogVideoXTransformer3DModel.from_config({**other.config, "in_channels": 33})
    with pytest.raises(DwmError, match=r"patch_embed.proj.weight is \[128, 49, 2, 2\], the network needs"):
        load_weights(run, 2, narrow, config)


def test_prompt_embedding_of_another_encoder_is_refused(dataset: Dataset, tiny_base: Path) -> None:
    for path in dataset.latents_folder.glob("*/prompts/*.safetensors"):
        save_file({"embedding": torch.zeros(226, 4096, dtype=torch.float16)}, path)
    with pytest.raises(DwmError, match=r"embedding is \[226, 4096\], base tiny needs \[64, 64\]"):
        train(dataset, tiny_base, dataset.root.parent / "run", CONFIG)


def test_clips_without_hand_poses_are_left_out_or_refused(dataset: Dataset, tiny_base: Path) -> None:
    with pytest.raises(DwmError, match="conditioning adaln_frame can use none of 3 train clips, the first: clip clip0"):
        train(dataset, tiny_base, dataset.root.parent / "run", changed(conditioning="adaln_frame"))


def test_interrupted_run_has_one_curve_and_one_speed_a_step(dataset: Dataset, tiny_base: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, config = dataset.root.parent / "run", changed(tensorboard=True)
    train(dataset, tiny_base, run, config, should_stop=lambda: stop_at(run, 3))
    more = config.model_copy(update={"keep_checkpoints": 1})
    train(dataset, tiny_base, run, more, resume=True)
    speeds = [json.loads(line) for line in (run / "speed.jsonl").read_text().splitlines()]
    assert [speed["step"] for speed in speeds] == [1, 2, 3, 4, 5, 6]
    assert all(speed["samples_per_s"] > 0 for speed in speeds)
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "train/grad_norm", "train/samples_per_s", "validation/loss"} <= set(
        events.Tags()["scalars"]
    )
    curve = events.Scalars("train/loss")
    assert [point.step for point in curve] == [1, 2, 3, 4, 5, 6]
    assert [point.value for point in curve] == pytest.approx(losses(run), rel=1e-6)
    assert checkpoint_steps(run) == [6]


def test_weights_and_biases_is_refused_where_it_is_not_installed(
    dataset: Dataset, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DwmError, match="wandb is not installed; `pip install wandb`"):
        train(dataset, tiny_base, dataset.root.parent / "run", changed(wandb_project="dwm"))


def test_signals_in_quick_succession_are_one_request_and_a_later_one_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    killed: list[int] = []
    try:
        stop = StopRequest()
        assert not stop.is_asked()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.is_asked()
        assert stop.signal_number == signal.SIGINT
        times = itertools.count(1e6, 10)
        monkeypatch.setattr("time.monotonic", lambda: next(times))
        monkeypatch.setattr("os.kill", lambda _pid, number: killed.append(number))
        signal.raise_signal(signal.SIGTERM)
        assert killed == [signal.SIGTERM]
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_run_of_an_earlier_version_has_its_checkpointing_named() -> None:
    assert TrainConfig.model_validate({"gradient_checkpointing": True}).gradient_checkpointing == "full"
    assert TrainConfig.model_validate({"gradient_checkpointing": False}).gradient_checkpointing == "none"
