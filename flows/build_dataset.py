"""Chosen sources -> one dataset: built, split, audited for leaks, encoded, committed, announced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.dataset as ds
from prefect import flow
from pydantic import BaseModel, ConfigDict, Field

from flows.build_aria import AriaSource, BuildAriaParameters, build_aria
from flows.build_fixed_camera import BuildFixedCameraParameters, FixedCameraSource, build_fixed_camera
from flows.build_generated import BuildGeneratedParameters, GeneratedSource, build_generated
from flows.build_official import BuildOfficialParameters, OfficialSource, build_official
from flows.build_trumans import BuildTrumansParameters, TrumansSource, build_trumans
from flows.encode import EncodeParameters, encode
from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.schema import ClipStatus
from manifests.splits import SplitPolicy, SplitReport, SplitSettings
from tasks.building import audit_splits, build_source, commit_dataset, split_dataset
from tasks.events import announce_dataset
from tasks.fixed_camera import group_duplicates


class DatasetRecipe(BaseModel):
    """What a dataset is made of, and how it is split. A source that is left out is not looked at."""

    model_config = ConfigDict(extra="forbid")

    official: OfficialSource | None = Field(default=None, description="Triplets in the official layout.")
    trumans: TrumansSource | None = Field(default=None, description="TRUMANS recordings.")
    fixed_camera: FixedCameraSource | None = Field(default=None, description="TASTE-Rob or other fixed-camera videos.")
    aria: AriaSource | None = Field(default=None, description="Captures with Aria glasses.")
    demo: GeneratedSource | None = Field(default=None, description="Generated data, a little of each kind.")
    policy: SplitPolicy = Field(default=SplitPolicy.SCENE_DISJOINT, description="What no two splits may share.")
    splits: SplitSettings = Field(default=SplitSettings(), description="Seed and fractions of the splits.")
    stop_on_leaks: bool = Field(
        default=True, description="Stop where splits share what the policy forbids; else only show the table."
    )
    fill_every_split: bool = Field(
        default=True, description="Stop where train, validation or test has no ready clip: nothing could be learned."
    )

    def builds(self, dataset: Path, profile: str) -> Iterator[tuple[Callable[[], int], bool]]:
        """Each chosen source's build, which returns its number of failures, and whether it draws elsewhere.

        One that draws in worker processes of its own (``workers`` above 1) may run beside others; one that draws in
        the flow's process has its OpenGL context there, and runs alone.
        """
        place = {"dataset": dataset, "profile": profile}
        if self.official is not None:
            official = BuildOfficialParameters(**self.official.model_dump(), dataset=dataset)
            yield lambda: len(build_official(official).failures), True
        if self.trumans is not None:
            trumans = BuildTrumansParameters(**self.trumans.model_dump(), **place)
            yield lambda: len(build_trumans(trumans).failures), trumans.workers > 1
        if self.fixed_camera is not None:
            videos = BuildFixedCameraParameters(**self.fixed_camera.model_dump(), **place)
            yield lambda: len(build_fixed_camera(videos).failures), videos.workers > 1
        if self.aria is not None:
            aria = BuildAriaParameters(**self.aria.model_dump(), **place)
            yield lambda: len(build_aria(aria).failures), False
        if self.demo is not None:
            demo = BuildGeneratedParameters(**self.demo.model_dump(), **place)
            yield lambda: build_generated(demo).failures, False


class BuildDatasetParameters(DatasetRecipe):
    """What to build, and where to."""

    dataset: Path = Field(description="Dataset folder; made when absent, added to when it exists.")
    profile: str = Field(default="paper", description="Size and length of the clips, drawn and encoded.")
    base: Path | None = Field(
        default=None, description="Base model that the clips are encoded for; without one they are not."
    )
    announce: bool = Field(
        default=True, description="Send the event dataset.build.completed, which starts a training on the server."
    )


class BuildDatasetResult(BaseModel):
    """What the dataset is now."""

    dataset: Path = Field(description="The dataset folder.")
    dataset_hash: str = Field(description="Hash of its clips and their content.")
    ready_clips: int = Field(description="Clips that can be trained on or tested with.")
    failed_clips: int = Field(description="Clips that this build could not make; their rows say why.")
    encoded_clips: int = Field(description="Clips encoded by this build; those of earlier ones are kept.")


@flow(name="build-dataset")
def build_dataset(parameters: BuildDatasetParameters) -> BuildDatasetResult:
    """Build the chosen sources, split, audit, encode, commit, announce; what is there already is passed over.

    Raises:
        DwmError: no source is chosen and there is no dataset yet, a split is empty, or splits share what the policy
            forbids.
    """
    dataset, base = parameters.dataset, parameters.base
    failed = build_sources(parameters)
    group_duplicates(dataset)
    report = split_dataset(dataset, parameters.policy, parameters.splits)
    audit_splits(report, stop=parameters.stop_on_leaks)
    if parameters.fill_every_split:
        require_every_split(dataset, report)
    encoded = 0
    if base is not None:
        encoded = encode(EncodeParameters(dataset=dataset, base=base, profile=parameters.profile)).encoded
    commit = commit_dataset(dataset)
    if parameters.announce:
        announce_dataset(dataset, commit, base, parameters.profile)
    return BuildDatasetResult(
        dataset=dataset,
        dataset_hash=commit.dataset_hash,
        ready_clips=Dataset.open(dataset).clips.count(ds.field("status") == ClipStatus.READY.value),
        failed_clips=failed,
        encoded_clips=encoded,
    )


def build_sources(parameters: BuildDatasetParameters) -> int:
    """Build side by side what draws in processes of its own, and meanwhile the others in turn; counts failures."""
    builds = list(parameters.builds(parameters.dataset, parameters.profile))
    if not builds:
        return 0
    Dataset.create_or_open(parameters.dataset)
    beside = [build for build, draws_elsewhere in builds if draws_elsewhere]
    here = [build for build, draws_elsewhere in builds if not draws_elsewhere] or [beside.pop()]
    futures = [build_source.submit(build) for build in beside]
    failed = sum(build() for build in here)
    return failed + sum(future.result() for future in futures)


def require_every_split(dataset: Path, report: SplitReport) -> None:
    """Stop before the long work where there is nothing to train on, to validate with or to test on.

    Raises:
        DwmError: a split has no ready clip.
    """
    empty = [count.split.value for count in report.counts if not count.ready_clips]
    if empty:
        ready = sum(count.ready_clips for count in report.counts)
        raise DwmError(
            f"{dataset}: {ready} ready clip{'s' if ready > 1 else ''}, too few: none for {' and '.join(empty)}; "
            "give at least three whole triplets"
        )
