"""The memory plan: what it counts is what a real step holds, and it adds up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dwm_model.base_model import describe_base
from dwm_model.memory_plan import GPU_SIZES_GB, MemoryPlan, plan_for
from dwm_model.recomputation import RecomputationPolicy, set_recomputation
from dwm_model.symbolic_step import LiveBytes, fake_batch, measure_step
from dwm_model.train_config import TrainConfig
from dwm_model.trainable import LossModule, make_trainable_denoiser
from flows.cli import app
from tests.helpers_model import GEOMETRY

pytest_plugins = ("tests.fixtures_model",)


@pytest.mark.parametrize("policy", ["none", "selective", "full"])
@pytest.mark.parametrize(("mode", "conditioning"), [("lora", "hand_mesh"), ("full", "adaln_frame")])
def test_symbolic_step_holds_what_a_real_one_holds(
    tiny_base: Path, policy: RecomputationPolicy, mode: str, conditioning: str
) -> None:
    config = TrainConfig(geometry=GEOMETRY, mode=mode, conditioning=conditioning)
    description = describe_base(tiny_base)
    planned = measure_step(description, config, batch_size=2, policy=policy, bfloat16=False)
    denoiser = make_trainable_denoiser(tiny_base, config, "cpu")
    set_recomputation(denoiser.transformer, policy)
    batch = fake_batch(description, config, denoiser, 2)
    with LiveBytes([*denoiser.transformer.parameters(), *denoiser.transformer.buffers()]) as live:
        loss = LossModule(denoiser)(batch).mean()
        kept = live.bytes
        loss.backward()
    assert planned.kept == pytest.approx(kept, rel=0.01)
    assert planned.peak == pytest.approx(live.peak, rel=0.01)


def test_policies_keep_less_and_less(tiny_base: Path) -> None:
    config = TrainConfig(geometry=GEOMETRY)
    kept = [
        measure_step(describe_base(tiny_base), config, batch_size=2, policy=policy, bfloat16=True).kept
        for policy in ("none", "selective", "full")
    ]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 3 * kept[2]  # the last of four blocks keeps all in any case


def test_plan_adds_up_and_shards_are_shared(tiny_base: Path) -> None:
    config = TrainConfig(geometry=GEOMETRY, mode="full", ema_decay=0.9, parallelism="fsdp2")
    one, four = (plan_for(describe_base(tiny_base), config, processes, ("full",)) for processes in (1, 4))
    trained = one.trained_parameters
    assert trained == one.parameters
    assert one.weights_gb == pytest.approx(4 * trained / 1e9, abs=1e-3)
    assert one.resident_gb == pytest.approx(20 * trained / 1e9, abs=1e-3)
    assert (one.shards, four.shards) == (1, 4)
    assert four.resident_gb < one.resident_gb
    for policy in one.policies:
        assert policy.total_gb == pytest.approx(
            one.resident_gb + policy.fixed_gb + 1.5 + 7 * policy.per_clip_gb, abs=0.02
        )
        assert [policy.largest_batch[size] for size in GPU_SIZES_GB] == sorted(policy.largest_batch.values())


def test_plan_of_the_command_line_trains_nothing_and_needs_no_dataset(tiny_base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ["train", str(tmp_path / "none"), "--base", str(tiny_base), "--run", str(run), "--preset", "tiny"]
    shown = CliRunner().invoke(app, [*arguments, "--plan", "--json"])
    assert shown.exit_code == 0, shown.output
    plan = MemoryPlan.model_validate_json(shown.stdout.splitlines()[-1])
    assert plan.family == "fun_v1_1"
    assert [policy.policy for policy in plan.policies] == ["none", "selective", "full"]
    assert any(line.startswith("* none ") for line in plan.lines())
    assert not run.exists()


def test_plan_reads_no_weights(tiny_base: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_base, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    config = TrainConfig(geometry=GEOMETRY)
    plans = [plan_for(describe_base(folder), config, policies=("full",)) for folder in (bare, tiny_base)]
    assert plans[0] == plans[1]
