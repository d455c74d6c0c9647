"""The command that trains."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_data import DatasetArgument
from flows.cli_model import BaseOption, RunOption
from flows.cli_support import JsonOption, one_line_errors, report, say, step_progress
from manifests import atomic
from manifests.dataset import Dataset
from manifests.errors import DwmError

if TYPE_CHECKING:
    from dwm_model.train import StopRequest
    from dwm_model.train_config import TrainConfig
    from dwm_model.training import TrainSummary


@one_line_errors
def train(
    dataset: DatasetArgument,
    base: BaseOption,
    run: RunOption,
    config: Annotated[Path | None, typer.Option(help="JSON file with training settings.")] = None,
    preset: Annotated[str, typer.Option(help="Settings by name when there is no file: paper, mini or tiny.")] = "paper",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of the settings' number.", min=1)] = None,
    keep: Annotated[int | None, typer.Option(help="Newest checkpoints that are kept, instead.", min=1)] = None,
    resume: Annotated[bool, typer.Option(help="Continue the run in the folder from its last checkpoint.")] = True,
    processes: Annotated[int, typer.Option(help="Processes on this machine: one a GPU, or one a CPU core.", min=1)] = 1,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the memory that training needs, and do not train.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a base model on cached latents; an interrupted run continues from its last checkpoint.

    SIGTERM and Ctrl-C finish the step, write a checkpoint and exit with 143 or 130.

    Example: `dwm train out/dataset --base models/mini --run out/run --preset mini`
    """
    from dwm_model.train import StopRequest
    from dwm_model.train_config import get_preset, read_train_config

    settings = read_train_config(config) if config else get_preset(preset)
    changes = {"max_steps": steps, "keep_checkpoints": keep}
    settings = settings.model_copy(update={name: value for name, value in changes.items() if value is not None})
    if plan:
        _show_plan(base, settings, processes, as_json=as_json)
        return
    stop = StopRequest()
    with step_progress("train", settings.max_steps) as advance_to:
        if processes == 1:
            result = _train_here(dataset, base, run, settings, stop, advance_to, resume=resume)
        else:
            result = _train_in_processes(dataset, base, run, settings, stop, advance_to, resume, processes)
    validation = f"validation loss {result.validation_loss_first} -> {result.validation_loss_last}"
    left_out = f", {result.refused_clips} clips left out" if result.refused_clips else ""
    report(result, as_json, [f"{run}: {result.steps} steps on {result.clips} clips{left_out}, {validation}"])
    if not result.is_complete:
        say(f"{run}: stopped at step {result.steps}; run the same command again to continue")
        raise typer.Exit(128 + (stop.signal_number or signal.SIGTERM))


def _train_here(
    dataset: Path,
    base: Path,
    run: Path,
    settings: TrainConfig,
    stop: StopRequest,
    advance_to: Callable[[int], None],
    *,
    resume: bool,
) -> TrainSummary:
    from dwm_model.training import train as train_model

    return train_model(
        Dataset.open(dataset),
        base,
        run,
        settings,
        resume=resume,
        should_stop=stop.is_asked,
        on_step=lambda record: advance_to(record.step),
    )


def _train_in_processes(
    dataset: Path,
    base: Path,
    run: Path,
    settings: TrainConfig,
    stop: StopRequest,
    advance_to: Callable[[int], None],
    resume: bool,
    processes: int,
) -> TrainSummary:
    from dwm_model.launcher import REQUESTED_CONFIG_FILE, run_ranks, train_arguments
    from dwm_model.run_log import LOSSES_FILE, last_step
    from dwm_model.training import TrainSummary

    requested = run / REQUESTED_CONFIG_FILE
    atomic.write_text(requested, settings.model_dump_json(indent=2) + "\n")
    outcome = run_ranks(
        train_arguments(dataset, base, run, ["--config", str(requested)], resume=resume),
        processes,
        run,
        should_stop=stop.is_asked,
        on_poll=lambda: advance_to(last_step(run / LOSSES_FILE)),
    )
    if not outcome.summary:
        raise DwmError(f"{run}: stopped before training began; run the same command again")
    return TrainSummary.model_validate_json(outcome.summary)


def _show_plan(base: Path, settings: TrainConfig, processes: int, *, as_json: bool) -> None:
    from dwm_model.memory_plan import plan_memory

    plan = plan_memory(base, settings, processes)
    report(plan, as_json, plan.lines())
