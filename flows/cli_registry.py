"""`dwm runs`, `dwm promote` and `dwm rollback`: which training run of a dataset is in use."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from pydantic import BaseModel, Field

from flows.cli_data import DatasetArgument
from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, report
from manifests import benchmarks, registry
from manifests.dataset import Dataset
from manifests.schema import Decision, RegistryAction, Run


class RunsReport(BaseModel):
    """The runs of a dataset and what was decided about them."""

    runs: list[Run] = Field(description="All runs, the oldest first.")
    decisions: list[Decision] = Field(description="All decisions, the oldest first.")

    def lines(self) -> list[str]:
        """The report for people."""
        lines = []
        for run in self.runs:
            loss = run.metrics.get("validation_loss_last")
            figures = "" if loss is None else f", validation loss {loss:.4f}"
            in_use = " (in use)" if run.promoted else ""
            lines.append(f"{run.run_id}{in_use}: {run.status.value}, {run.steps} steps{figures}, {run.run_path}")
        told = [
            f"{each.created_at:%Y-%m-%d %H:%M} {each.action.value} {each.run_id}: {each.reason}"
            for each in self.decisions
        ]
        return [*(lines or ["no runs; train one with `dwm train`"]), *told]


@one_line_errors
def runs(dataset: DatasetArgument, as_json: JsonOption = False) -> None:
    """List the training runs of a dataset, which one is in use, and what was decided when.

    Example: `dwm runs out/demo/dataset`
    """
    opened = Dataset.open(dataset)
    registry.reconcile(opened)
    found = sorted(opened.runs.rows(), key=lambda run: (run.created_at, run.run_id))
    result = RunsReport(runs=found, decisions=registry.history(opened))
    report(result, as_json, result.lines())


@one_line_errors
def promote(
    dataset: DatasetArgument,
    run_id: Annotated[str, typer.Argument(help="The run, as `dwm runs` names it.")],
    benchmark: Annotated[str, typer.Option(help="Frozen benchmark that both runs were measured on.")] = "test",
    metric: Annotated[str, typer.Option(help="Figure that decides, such as psnr or lpips_vgg.")] = "psnr",
    margin: Annotated[float, typer.Option(help="By how much it must be better, in its own unit.", min=0)] = 0.1,
    num_inference_steps: Annotated[int, typer.Option(help="Denoising steps that both were measured at.", min=1)] = 50,
    guidance_scale: Annotated[float, typer.Option(help="Text guidance that both were measured at.", min=1)] = 6.0,
    force: Annotated[bool, typer.Option("--force", help="Promote it whatever the figures say.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put a run into use if it is better than the one in use on the same frozen benchmark (`dwm benchmark` both first).

    Ends with 1 where the run in use is kept.

    Example: `dwm promote out/demo/dataset RUN_ID --metric psnr --margin 0.1`
    """
    from dwm_model.run_scores import score_run
    from dwm_model.sampling import SamplerConfig

    opened = Dataset.open(dataset)
    rule = registry.PromotionRule.model_validate({"benchmark": benchmark, "metric": metric, "margin": margin})
    now = registry.run_in_use(opened)
    scores = []
    if not force and now is not None and now.run_id != run_id:
        frozen = benchmarks.load(opened, benchmark)
        sampler = SamplerConfig(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
        scores = [score_run(opened, frozen, each, sampler, rule) for each in (opened.runs.get(run_id), now)]
    decision = registry.promote(opened, run_id, rule, scores, decided_by=getpass.getuser(), force=force)
    report(decision, as_json, [f"{decision.action.value} {decision.run_id}: {decision.reason}"])
    if decision.action is RegistryAction.KEPT:
        raise typer.Exit(EXIT_PROBLEMS)


@one_line_errors
def rollback(
    dataset: DatasetArgument,
    reason: Annotated[str, typer.Option(help="Why, for the history.")],
    as_json: JsonOption = False,
) -> None:
    """Put the run back into use that was before the one in use.

    Example: `dwm rollback out/demo/dataset --reason "hands drift"`
    """
    decision = registry.rollback(Dataset.open(dataset), decided_by=getpass.getuser(), reason=reason)
    report(decision, as_json, [f"{decision.run_id} is in use again"])
