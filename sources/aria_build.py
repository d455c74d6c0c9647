"""Aria captures -> clips of a dataset: ingest, reconstruct, pair, check, row (paper 3.3, Appendix C).

The work on a capture has three stages, each of which can be run again and goes on where it stopped: its files are
opened and checked, its scene is fitted (``<dataset>/reconstructions/<capture>/``), its clips are made. A capture that
cannot be used gives a row with the reason and never ends the batch.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from manifests.dataset import Dataset
from manifests.errors import DwmError
from manifests.hashing import short_id
from manifests.schema import Clip, ClipStatus, Source
from render.framing import TooShortError
from render.hand_estimation.estimator import HandEstimator
from render.hand_estimation.settings import open_estimator
from render.resampling import ClipSampling, SourceTiming, plan_windows
from sources.aria import AriaCapture, CaptureLacksError, open_capture
from sources.aria_clip import FILE_COLUMNS, PairingWorkshop, empty_row, write_clip
from sources.aria_files import CaptureFiles, find_captures
from sources.aria_reconstruct import ReconstructedScene, reconstruct_scene
from sources.aria_settings import AriaSettings, hand_files_of, settings_from
from sources.aria_sheet import write_capture_sheets
from sources.building import (
    BuildFailure,
    BuildReport,
    build_chunks,
    hash_once,
    is_same,
    keep_decisions,
)
from sources.synthetic.marks import is_generated

__all__ = [
    "AriaSettings",
    "BuildPlan",
    "BuildReport",
    "CaptureWork",
    "build_aria",
    "build_capture",
    "ingest_capture",
    "pair_capture",
    "plan_build",
    "reconstruct_capture",
    "settings_from",
]

RECONSTRUCTIONS_FOLDER = "reconstructions"
_LOGGER = logging.getLogger(__name__)


class CaptureWork(BaseModel):
    """A capture to make clips of; complete in itself, so that a worker needs nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    raw: Path = Field(description="The folder that paths in messages are relative to.")
    files: CaptureFiles = Field(description="Where the capture lies.")
    settings: AriaSettings = Field(description="How clips are made.")
    config_hash: str = Field(description="Hash of the settings and of the files that they name.")

    @property
    def name(self) -> str:
        """What the work is, for messages."""
        return self.files.capture_id


class PlanFigures(BaseModel):
    """Size of a build (``--plan``)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    captures: int = Field(description="Recordings.")
    clips: int = Field(description="Clips to make, at most.")
    hours: float = Field(description="Length of the clips as they are written.")
    raw_bytes: int = Field(description="Bytes of the recordings.")
    without_trajectory: int = Field(description="Captures that the services have not processed.")
    without_phases: int = Field(description="Captures of which nobody says when the interaction begins.")

    def lines(self) -> list[str]:
        """The figures for people."""
        return [
            f"{self.clips} clips of {self.captures} captures ({self.raw_bytes / 1e9:.2f} GB), {self.hours:.3f} hours",
            f"{self.without_trajectory} without a trajectory, {self.without_phases} whose phases will be proposed",
        ]


class BuildPlan(BaseModel):
    """What a build is going to do; serialises, so that tasks can share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    captures: tuple[CaptureWork, ...] = Field(description="The captures, by name.")

    def recording_ids(self) -> list[str]:
        """Values of the column ``recording_id`` of the captures' clips."""
        return [_row_of_window(work, 0).recording_id for work in self.captures]

    def figures(self) -> PlanFigures:
        """How much there is."""
        clips = sum(work.settings.windows for work in self.captures)
        seconds = sum(
            work.settings.windows * work.settings.profile.num_frames / work.settings.profile.fps
            for work in self.captures
        )
        return PlanFigures(
            captures=len(self.captures),
            clips=clips,
            hours=seconds / 3600,
            raw_bytes=sum(work.files.vrs.stat().st_size for work in self.captures),
            without_trajectory=sum(work.files.trajectory is None for work in self.captures),
            without_phases=sum(
                work.files.phases is None and work.settings.interaction_start_s is None for work in self.captures
            ),
        )


def plan_build(raw: Path, settings: AriaSettings, *, limit: int | None = None, only: str | None = None) -> BuildPlan:
    """Find captures; nothing of them is opened.

    A folder that the project's own generator wrote gives clips of the source ``synthetic``, whatever the settings say,
    and its hand files where the settings ask for files and name no folder.

    Args:
        raw: folder of captures, or one VRS file.
        settings: how clips are made.
        limit: at most this many captures.
        only: shell pattern on a capture's name.

    Raises:
        DwmError: no such folder, no recording in it, or nothing fits ``only``.
    """
    found = find_captures(raw)
    wanted = [files for files in found if only is None or fnmatch(files.capture_id, only)]
    if not wanted:
        raise DwmError(f"{raw}: none of {len(found)} captures fits the pattern '{only}'; try '*{only}*'")
    root = raw.resolve() if raw.is_dir() else raw.resolve().parent
    if is_generated(root):
        settings = settings.model_copy(update={"source": Source.SYNTHETIC})
    hands = settings.hands
    if hands.estimator == "file" and hands.files is None and hand_files_of(root) is not None:
        settings = settings.model_copy(update={"hands": hands.model_copy(update={"files": hand_files_of(root)})})
    config_hash = settings.config_hash()
    return BuildPlan(
        captures=tuple(
            CaptureWork(raw=root, files=files, settings=settings, config_hash=config_hash) for files in wanted[:limit]
        )
    )


def ingest_capture(dataset_root: Path, work: CaptureWork) -> BuildReport | None:
    """Open a capture and check that it can be used; what was made before stays.

    Returns:
        What is known already (the capture cannot be used, or all was made); None where work remains.

    Raises:
        DwmError: there is no dataset or it cannot be written.
    """
    dataset = Dataset.open(dataset_root)
    row = _row(work, 0)
    before = dataset.clips.find(row.clip_id)
    if work.settings.windows == 1 and before is not None:
        done = _finished(dataset, before, row)
        if done is not None:
            return done

    def check() -> None:
        _open(work)

    return _guarded(dataset, work, row, check)


def reconstruct_capture(dataset_root: Path, work: CaptureWork) -> BuildReport | None:
    """Fit the capture's scene, or go on with it.

    Returns:
        The failure, or the rule that leaves the capture out; None where there is a scene.

    Raises:
        DwmError: as `ingest_capture`, or the hand estimator cannot be opened.
    """
    dataset = Dataset.open(dataset_root)
    estimator = _scene_estimator(work)

    def fit() -> None:
        _scene(dataset, work, _open(work), estimator)

    return _guarded(dataset, work, _row(work, 0), fit)


def pair_capture(dataset_root: Path, work: CaptureWork) -> BuildReport:
    """Make the clips of a capture whose scene is there (it is fitted here where it is not).

    Raises:
        DwmError: as `reconstruct_capture`, or there is no usable OpenGL.
    """
    dataset = Dataset.open(dataset_root)
    estimator = open_estimator(work.settings.hands)

    def pair() -> BuildReport:
        capture = _open(work)
        scene = _scene(dataset, work, capture, estimator)
        windows = _windows(work, capture, scene)
        with work.settings.open_renderer() as renderer:
            workshop = PairingWorkshop(work.settings, renderer, estimator, scene)
            parts = [
                _window(dataset, work, workshop, capture, number, sampling) for number, sampling in enumerate(windows)
            ]
            return BuildReport.merged(parts).model_copy(update={"gl_renderers": (renderer.description,)})

    report = _guarded(dataset, work, _row(work, 0), pair)
    return report or BuildReport()


def build_capture(dataset_root: Path, work: CaptureWork) -> BuildReport:
    """All stages of a capture in this process.

    Raises:
        DwmError: as `pair_capture`.
    """
    for stage in (ingest_capture, reconstruct_capture):
        report = stage(dataset_root, work)
        if report is not None:
            return report
    return pair_capture(dataset_root, work)


def build_aria(
    dataset_root: Path,
    plan: BuildPlan,
    *,
    workers: int = 1,
    watch: Callable[[list[CaptureWork]], Iterable[CaptureWork]] = iter,
) -> BuildReport:
    """Make the clips of a plan in a dataset, which is made when absent.

    Args:
        dataset_root: the dataset.
        plan: result of ``plan_build``.
        workers: processes, a capture each; 1 works in this process.
        watch: passes the captures on, one by one, such as a progress bar.

    Raises:
        DwmError: as ``build_capture``, or a worker process died.
    """
    dataset = Dataset.create_or_open(dataset_root)
    reports = build_chunks(partial(build_capture, dataset.root), plan.captures, workers=workers, watch=watch)
    write_capture_sheets(dataset, plan.recording_ids())
    return BuildReport.merged(reports)


def reconstruction_folder(dataset: Dataset, work: CaptureWork) -> Path:
    """Folder of a capture's scene: another one for other files or other settings of the fit."""
    roles = ("vrs", "trajectory", "points", "online_calibration", "phases")
    hashes = _input_hashes(work)
    key = short_id(*(hashes.get(role, "") for role in roles), work.settings.scene_hash())
    slug = re.sub(r"[^A-Za-z0-9]+", "-", work.files.capture_id).strip("-")
    return dataset.root / RECONSTRUCTIONS_FOLDER / f"{slug}-{key[:8]}"


def _open(work: CaptureWork) -> AriaCapture:
    capture = open_capture(work.files, pose_tolerance_s=work.settings.pose_tolerance_s)
    capture.files.required("points")
    return capture


def _scene(
    dataset: Dataset, work: CaptureWork, capture: AriaCapture, estimator: HandEstimator | None
) -> ReconstructedScene:
    return reconstruct_scene(capture, work.settings, reconstruction_folder(dataset, work), estimator)


def _scene_estimator(work: CaptureWork) -> HandEstimator | None:
    """Finds the first hand where nobody says when the interaction begins, and hands in the exploration."""
    settings = work.settings
    said = settings.interaction_start_s is not None or work.files.phases is not None
    masked = not settings.mask_hands or settings.explore_masks is not None
    if settings.hands.estimator == "file" or (said and masked):
        return None
    return open_estimator(settings.hands)


def _windows(work: CaptureWork, capture: AriaCapture, scene: ReconstructedScene) -> list[ClipSampling]:
    """The colour frames of each clip."""
    first, profile = scene.phases.first_frame, work.settings.profile
    times = capture.times_s[first:] - capture.times_s[first]
    timing = SourceTiming(times, capture.recording.width, capture.recording.height, 0)
    found = plan_windows(
        timing, profile.fps, profile.num_frames, work.settings.short, max_windows=work.settings.windows
    )
    return [ClipSampling(each.indices + first, each.found, each.length_policy) for each in found]


def _window(  # noqa: PLR0917
    dataset: Dataset,
    work: CaptureWork,
    workshop: PairingWorkshop,
    capture: AriaCapture,
    number: int,
    sampling: ClipSampling,
) -> BuildReport:
    row = _row(work, number)
    before = dataset.clips.find(row.clip_id)
    done = None if before is None else _finished(dataset, before, row)
    if done is not None:
        return done
    start = time.perf_counter()

    def make() -> BuildReport:
        return _kept(dataset, write_clip(dataset, workshop, capture, number, sampling, row))

    report = _guarded(dataset, work, row, make) or BuildReport()
    return report.model_copy(update={"seconds": time.perf_counter() - start if report.ready else 0.0})


def _guarded(
    dataset: Dataset, work: CaptureWork, row: Clip, step: Callable[[], BuildReport | None]
) -> BuildReport | None:
    """Run a step; what is wrong with the capture becomes its row."""
    try:
        return step()
    except (CaptureLacksError, TooShortError) as error:
        told = _relative(work, error)
        reason = f"{work.name}: the interaction {told}" if isinstance(error, TooShortError) else told
        return _kept(dataset, row.updated(status=ClipStatus.DROPPED, reason=reason))
    except (DwmError, OSError) as error:
        return _kept(dataset, row.updated(status=ClipStatus.FAILED, reason=_relative(work, error)))


def _kept(dataset: Dataset, row: Clip) -> BuildReport:
    """Write a row and say what became of its clip."""
    dataset.clips.upsert([keep_decisions(row, dataset.clips.find(row.clip_id))])
    if row.status is ClipStatus.FAILED:
        _LOGGER.warning("%s: %s", row.recording_id, row.reason)
        return BuildReport(failures=(BuildFailure.of(row),))
    if row.status is ClipStatus.DROPPED:
        _LOGGER.info("%s: %s", row.recording_id, row.reason)
        return BuildReport(dropped=1)
    return BuildReport(ready=1, frames=row.num_frames)


def _finished(dataset: Dataset, before: Clip, row: Clip) -> BuildReport | None:
    """What to say about a clip that was made, or left out by a rule, from the same inputs with these settings."""
    if is_same(dataset, before, row, FILE_COLUMNS):
        return BuildReport(unchanged=1)
    same_inputs = before.config_hash == row.config_hash and before.input_hashes == row.input_hashes
    return BuildReport(dropped=1) if same_inputs and before.status is ClipStatus.DROPPED else None


def _row(work: CaptureWork, window: int) -> Clip:
    return _row_of_window(work, window).updated(input_hashes=_input_hashes(work))


def _row_of_window(work: CaptureWork, window: int) -> Clip:
    return empty_row(work.settings, work.files.capture_id, window, work.config_hash)


def _input_hashes(work: CaptureWork) -> dict[str, str]:
    return {role: hash_once(path) for role, path in work.files.inputs().items()}


def _relative(work: CaptureWork, error: Exception) -> str:
    """The message with files named relative to the raw folder: the same wherever that lies."""
    told = f"{error.filename or ''}: {error.strerror}; check the file" if isinstance(error, OSError) else str(error)
    return told.replace(f"{work.raw}/", "")
