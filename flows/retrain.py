"""Build what is new, train from the run in use, measure both, and promote the new one only where it is better."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from dwm_model.checkpoints import RunIdentity
from dwm_model.train_config import PRESETS, TrainConfig, get_preset, profile_geometry
from dwm_model.training import identify_run
from dwm_model.warm_start import warm_start_from
from flows.build_dataset import BuildDatasetParameters, DatasetRecipe, build_dataset
from flows.train import TrainParameters, train
from flows.verify_promotion import VerifyPromotionParameters, Yardstick, verify_promotion
from manifests.dataset import Dataset
from manifests.registry import history, reconcile, run_in_use
from manifests.schema import RegistryAction, Run
from tasks.artifacts import show_markdown
from tasks.registry import decide_promotion


class RetrainParameters(BaseModel):
    """What to train, on what, and when it is good enough."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path = Field(description="The dataset folder, whose `runs` table is the registry.")
    base: Path = Field(description="The base model's folder in the diffusers layout.")
    profile: str = Field(default="paper", description="Size and length that the clips are encoded at.")
    build: DatasetRecipe | None = Field(default=None, description="What is built first; null takes what is there.")
    runs: Path | None = Field(default=None, description="Folder of the runs; `runs` beside the dataset when absent.")
    begin_with: Literal["promoted", "base"] = Field(
        default="promoted", description="Weights to begin with: those of the run in use, or fresh ones on the base."
    )
    preset: str | None = Field(
        default=None,
        description="Training settings by name, paper, mini or tiny; those of the profile's size when absent.",
    )
    steps: int | None = Field(default=None, description="Training steps; the preset's when absent.", gt=0)
    config: TrainConfig | None = Field(default=None, description="Training settings in full, instead of a preset.")
    processes: int = Field(default=1, description="Processes on the worker's machine: one a GPU.", gt=0)
    yardstick: Yardstick = Field(default_factory=Yardstick, description="How both runs are measured and compared.")
    force: bool = Field(
        default=False, description="Promote whatever comes out; it is checked afterwards and rolled back where worse."
    )

    def training(self) -> TrainConfig:
        """Training settings, without where they begin."""
        if self.config is not None:
            return self.config
        geometry = profile_geometry(self.profile)
        fitting = next((name for name, known in PRESETS.items() if known.geometry == geometry), "paper")
        preset = get_preset(self.preset or fitting)
        return preset.model_copy(update={"geometry": geometry, "max_steps": self.steps or preset.max_steps})

    def run_folder(self, run_id: str) -> Path:
        """Folder of a run: its id names it, so that an interrupted retraining continues it."""
        return (self.runs or self.dataset.resolve().parent / "runs") / run_id


class RetrainResult(BaseModel):
    """What came of it."""

    run_id: str | None = Field(description="The run that was trained or looked at; null where nothing was new.")
    outcome: Literal["promoted", "kept", "rolled_back", "nothing new"] = Field(description="What was decided.")
    in_use: str | None = Field(description="The run in use now.")
    reason: str = Field(description="Why.")


@flow(name="retrain")
def retrain(parameters: RetrainParameters) -> RetrainResult:
    """Build, train, measure, decide; a forced promotion is verified at once."""
    if parameters.build is not None:
        build_dataset(build_parameters(parameters, parameters.build))
    dataset = Dataset.open(parameters.dataset)
    reconcile(dataset)
    now = run_in_use(dataset)
    config = warm(parameters, dataset, now)
    candidate = identify_run(dataset, parameters.base, config)
    settled = nothing_new(dataset, now, candidate)
    if settled and not parameters.force:
        show_markdown("retrain-outcome", settled, "Nothing was trained")
        return RetrainResult(run_id=None, outcome="nothing new", in_use=now.run_id if now else None, reason=settled)
    run, yardstick = parameters.run_folder(candidate.run_id), parameters.yardstick
    yardstick.freeze(dataset, config.geometry)
    train(
        TrainParameters(
            dataset=parameters.dataset, base=parameters.base, run=run, config=config, processes=parameters.processes
        )
    )
    if not parameters.force:
        measured = [run] if now is None else [run, dataset.absolute(now.run_path)]
        for folder in measured:
            yardstick.measure(parameters.dataset, parameters.base, folder)
    decision = decide_promotion(
        parameters.dataset, candidate.run_id, yardstick.rule, yardstick.sampler, force=parameters.force
    )
    if parameters.force:
        check = VerifyPromotionParameters(dataset=parameters.dataset, base=parameters.base, yardstick=yardstick)
        decision = verify_promotion(check) or decision
    used = run_in_use(dataset)
    return RetrainResult(
        run_id=candidate.run_id,
        outcome=decision.action.value,
        in_use=used.run_id if used else None,
        reason=decision.reason,
    )


def build_parameters(parameters: RetrainParameters, recipe: DatasetRecipe) -> BuildDatasetParameters:
    """How the dataset is built; not announced, since the training follows here: it would be done twice."""
    return BuildDatasetParameters(
        **recipe.model_dump(),
        dataset=parameters.dataset,
        profile=parameters.profile,
        base=parameters.base,
        announce=False,
    )


def warm(parameters: RetrainParameters, dataset: Dataset, now: Run | None) -> TrainConfig:
    """The training settings, with the weights of the run in use where they are to begin with."""
    config = parameters.training()
    if now is None or parameters.begin_with == "base":
        return config
    return config.model_copy(update={"warm_start": warm_start_from(dataset.absolute(now.run_path))})


def nothing_new(dataset: Dataset, now: Run | None, candidate: RunIdentity) -> str | None:
    """Why there is nothing to train; None where there is."""
    goes_on = candidate.config.warm_start is not None
    if now is not None and (now.run_id == candidate.run_id or (goes_on and now.dataset_hash == candidate.dataset_hash)):
        return f"run {now.run_id}, which is in use, was trained on the same clips"
    if any(each.run_id == candidate.run_id and each.action is RegistryAction.KEPT for each in history(dataset)):
        return f"run {candidate.run_id} would be the same as before, and was not better then"
    return None
