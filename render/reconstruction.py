"""Reconstructing the static scene from posed frames (paper section 3.3, "Real-World Captures"; Appendix C).

The pre-action frames of a capture become a scene of Gaussians: initialised at the semi-dense points, fitted with L1 and
D-SSIM over the pixels that masks leave, one frame a step, while gsplat's strategy adds and removes Gaussians and each
frame gets a gain a colour channel. Some frames are held out and only measured. A reconstruction that was killed
continues from its checkpoint; on the CPU it ends in the same bytes.

The folder of a reconstruction holds ``reconstruction.json`` (what it is), ``steps.jsonl`` and ``evaluations.jsonl``,
``checkpoint.safetensors``, and at the end ``scene.ply`` and ``result.json``.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from manifests.atomic import write_text
from manifests.errors import DwmError
from manifests.hashing import hash_config, short_id
from manifests.journal import Journal, Record
from manifests.locks import exclusive_lock
from render.gaussian_cuda import require_cuda_kernels
from render.gaussian_ply import write_ply
from render.gaussian_scene import GaussianScene, scene_from_points
from render.reconstruction_loss import cross_fitted_error, decibel, fitted_log_gain, image_loss, squared_error
from render.reconstruction_settings import ReconstructionSettings
from render.reconstruction_state import CHECKPOINT_FILE, ReconstructionState
from render.reconstruction_views import LoadedView, ReconstructionView, hash_views, load_view, see_points
from render.rotations import Floats

logger = logging.getLogger(__name__)

SCENE_FILE, RESULT_FILE, IDENTITY_FILE = "scene.ply", "result.json", "reconstruction.json"
STEPS_FILE, EVALUATIONS_FILE, LOCK_FILE = "steps.jsonl", "evaluations.jsonl", ".lock"

LOCK_PATIENCE_S = 5.0
"""How long to wait for a process that was told to stop."""

UNSEEN_ALPHA = 0.5
"""A pixel covered less than this was not reconstructed."""


class FitStep(Record):
    """A step of the fit."""

    loss: float = Field(description="(1 - w) L1 + w D-SSIM of the step's frame.")
    view: str = Field(description="Name of the frame.")
    num_gaussians: int = Field(description="Gaussians after the step.")


class FrameQuality(BaseModel):
    """A held-out frame against the scene."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="Name of the frame.")
    psnr_db: float = Field(description="PSNR with cross-fitted gains where gains are fitted, else as `plain_psnr_db`.")
    plain_psnr_db: float = Field(description="PSNR of the scene as it is.")
    unseen_share: float = Field(description="Share of the used pixels with alpha below 0.5.")


class Evaluation(Record):
    """The held-out frames at one step. PSNR is of one mean squared error over all their used pixels."""

    psnr_db: float = Field(
        description="PSNR; where gains are fitted, each half of a frame has the gain that fits its other half."
    )
    plain_psnr_db: float = Field(description="PSNR of the scene as it is, without gains.")
    frames: tuple[FrameQuality, ...] = Field(description="Frame by frame.")


class ReconstructionResult(BaseModel):
    """Outcome of `reconstruct`."""

    model_config = ConfigDict(frozen=True)

    steps: int = Field(description="Steps done in all.")
    is_complete: bool = Field(description="False when it was asked to stop before the last step.")
    num_gaussians: int = Field(description="Gaussians of the scene.")
    num_points: int = Field(description="Points that it began with.")
    scene_scale_m: float = Field(description="Metres that learning rates and sizes are relative to.")
    loss_last: float | None = Field(description="Mean loss of the last hundred steps.")
    evaluation: Evaluation | None = Field(description="Held-out frames at the end; null without such frames.")
    held_out: tuple[str, ...] = Field(description="Names of the held-out frames.")
    log_gains: dict[str, tuple[float, float, float]] = Field(
        description="Logarithm of the gain of red, green and blue of each training frame, by name."
    )


def reconstruct(
    views: Sequence[ReconstructionView],
    points: npt.ArrayLike,
    folder: Path,
    settings: ReconstructionSettings,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[FitStep], None] = lambda _: None,
) -> ReconstructionResult:
    """Fit a scene to posed frames; all pictures are held in memory, as bytes.

    Args:
        views: frames in the order of time, with different names.
        points: [P,3] semi-dense points, world, metres.
        folder: of the reconstruction; see the module.
        settings: see `render.reconstruction_settings`.
        resume: continue from the checkpoint, or begin where there is none.
        should_stop: asked after each step; True writes a checkpoint and returns.
        on_step: told of each step.

    Returns:
        What was reached.

    Raises:
        DwmError: views or points cannot be used, the folder holds a reconstruction and ``resume`` is false or it is of
            other inputs, another process works there, gsplat's kernels do not load, or the loss is not finite.
    """
    loaded, held_out = _load_views(views, settings)
    cloud = np.asarray(points, np.float64)
    training = [view for number, view in enumerate(loaded) if number not in held_out]
    identity = short_id(hash_views(loaded, cloud), hash_config(settings))
    if settings.device == "cuda":
        require_cuda_kernels()
    busy = f"{folder}: another process reconstructs here; wait for it, or stop it and run this again"
    with exclusive_lock(folder / LOCK_FILE, patience_s=LOCK_PATIENCE_S, busy=busy), _torch_threads(settings.threads):
        checkpoint = folder / CHECKPOINT_FILE
        if (folder / IDENTITY_FILE).exists() and not resume:
            raise DwmError(f"{folder}: holds a reconstruction already; resume it, or choose another folder")
        state = _first_state(training, len(loaded), cloud, settings)
        write_text(folder / IDENTITY_FILE, f'{{"identity": "{identity}", "settings": {settings.model_dump_json()}}}\n')
        num_points = len(state.parameters["means"])
        if checkpoint.exists():
            state.load(checkpoint, identity)
        fit = _Fit(loaded, held_out, state, folder, identity)
        fit.run(should_stop, on_step)
        result = fit.result(num_points)
        if result.is_complete:
            write_ply(folder / SCENE_FILE, state.scene)
            write_text(folder / RESULT_FILE, result.model_dump_json(indent=2) + "\n")
        return result


def _load_views(
    views: Sequence[ReconstructionView], settings: ReconstructionSettings
) -> tuple[list[LoadedView], frozenset[int]]:
    """All views, and the numbers of those that are held out: the middle one of every n."""
    every = settings.held_out_every
    held_out = frozenset(number for number in range(len(views)) if every and number % every == every // 2)
    if len(views) - len(held_out) < 2:
        raise DwmError(f"views: {len(views)} frames, {len(held_out)} held out; at least 2 must be left to learn from")
    names = [view.name for view in views]
    if len(set(names)) < len(names):
        raise DwmError("views: two frames have one name; name each by its number or timestamp")
    return [load_view(view, settings.width, settings.height) for view in views], held_out


def _first_state(
    training: Sequence[LoadedView], num_views: int, points: Floats, settings: ReconstructionSettings
) -> ReconstructionState:
    """Gaussians at the points that training views see."""
    if len(points) > settings.max_points:
        chosen = np.random.default_rng(settings.seed).choice(len(points), settings.max_points, replace=False)
        points = points[np.sort(chosen)]
    seen = see_points(points, training)
    logger.info("reconstruction: %d of %d points are seen", len(seen.points), len(points))
    scene = scene_from_points(
        seen.points,
        seen.colours,
        sh_degree=settings.sh_degree,
        opacity=settings.initial_opacity,
        scale=settings.initial_scale,
    )
    eyes = np.stack([view.camera.world_from_camera[:3, 3] for view in training])
    spread = 1.1 * float(np.linalg.norm(eyes - eyes.mean(axis=0), axis=1).max())
    # A head that only turns has no spread: the distance of what it sees bounds the scale from below.
    return ReconstructionState(scene, num_views, max(spread, 0.25 * seen.median_depth_m), settings)


class _Fit:
    """The loop over the steps, with the journals."""

    def __init__(
        self,
        views: Sequence[LoadedView],
        held_out: frozenset[int],
        state: ReconstructionState,
        folder: Path,
        identity: str,
    ) -> None:
        self.views, self.held_out, self.state = views, sorted(held_out), state
        self.settings = state.settings
        self.training = [number for number in range(len(views)) if number not in held_out]
        self.folder, self.identity = folder, identity
        self.steps = Journal(folder / STEPS_FILE, FitStep)
        self.evaluations = Journal(folder / EVALUATIONS_FILE, Evaluation)
        self.steps.cut_after(state.step)
        self.evaluations.cut_after(state.step)

    def run(self, should_stop: Callable[[], bool], on_step: Callable[[FitStep], None]) -> None:
        """Fit until the last step, or until asked to stop."""
        settings = self.settings
        began = time.monotonic()
        while self.state.step < settings.steps:
            record = self._fit_step()
            self.steps.append(record)
            is_last = record.step == settings.steps
            if self.held_out and (is_last or record.step % settings.evaluate_every == 0):
                self.evaluations.append(self._evaluate())
                logger.info(
                    "step %d: held-out PSNR %.2f dB, %d Gaussians, %.0f s",
                    record.step,
                    self.evaluations.records()[-1].psnr_db,
                    record.num_gaussians,
                    time.monotonic() - began,
                )
            is_stopping = not is_last and should_stop()
            if is_last or is_stopping or record.step % settings.checkpoint_every == 0:
                self.steps.flush_to_disk()
                self.evaluations.flush_to_disk()
                self.state.save(self.folder / CHECKPOINT_FILE, self.identity)
            on_step(record)
            if is_stopping:
                return

    def result(self, num_points: int) -> ReconstructionResult:
        """What was reached."""
        losses = [record.loss for record in self.steps.records()[-100:]]
        evaluations = self.evaluations.records()
        gains = self.state.log_gains.cpu().tolist()
        return ReconstructionResult(
            steps=self.state.step,
            is_complete=self.state.step >= self.settings.steps,
            num_gaussians=len(self.state.parameters["means"]),
            num_points=num_points,
            scene_scale_m=self.state.scene_scale,
            loss_last=sum(losses) / len(losses) if losses else None,
            evaluation=evaluations[-1] if evaluations else None,
            held_out=tuple(self.views[number].name for number in self.held_out),
            log_gains={self.views[number].name: tuple(gains[number]) for number in self.training},
        )

    def _view_at(self, step: int) -> int:
        """Number of a step's view: each training view once in every round, in a random order."""
        rounds, place = divmod(step - 1, len(self.training))
        return self.training[
            int(np.random.default_rng([self.settings.seed, rounds]).permutation(len(self.training))[place])
        ]

    def _fit_step(self) -> FitStep:
        state, settings = self.state, self.settings
        step = state.begin_step()
        number = self._view_at(step)
        target, used = self._frame(number)
        scene = state.scene
        image, _, meta = self._render(scene, number, min(settings.sh_degree, step // settings.sh_every))
        if settings.densification.strategy == "default":
            state.strategy.step_pre_backward(state.parameters, state.optimizers, state.strategy_state, step, meta)
        gained = image * state.log_gains[number].exp()
        loss = image_loss(gained, target, used, settings.structure_weight)
        if settings.opacity_weight:
            loss = loss + settings.opacity_weight * scene.opacity_logits.sigmoid().mean()
        if settings.scale_weight:
            loss = loss + settings.scale_weight * scene.log_scales.exp().mean()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DwmError(
                f"{self.folder}: loss {value} at step {step}, frame '{self.views[number].name}'; resume from the "
                "checkpoint with lower learning rates in another folder"
            )
        loss.backward()  # type: ignore[no-untyped-call]
        state.finish_step(meta)
        if settings.fit_exposure and step >= settings.exposure_start:
            wanted = fitted_log_gain(image, target, used, settings.exposure_ridge)
            state.log_gains[number] += settings.exposure_rate * (wanted - state.log_gains[number])
        return FitStep(
            step=step, loss=value, view=self.views[number].name, num_gaussians=len(state.parameters["means"])
        )

    def _frame(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Colours [H,W,3] and used pixels [H,W] of a view, 0-1."""
        view, device = self.views[number], self.settings.device
        colours = torch.from_numpy(view.image).to(device).float() / 255
        return colours, torch.from_numpy(view.used).to(device).float()

    def _render(
        self, scene: GaussianScene, number: int, sh_degree: int
    ) -> tuple[torch.Tensor, torch.Tensor, dict[str, object]]:
        """Picture [H,W,3], alphas [H,W] and gsplat's meta of a view."""
        camera, settings = self.views[number].camera, self.settings
        viewmat, lens = (
            torch.tensor(matrix, dtype=torch.float32, device=settings.device)[None]
            for matrix in (camera.camera_from_world, camera.intrinsics)
        )
        image, alphas, meta = scene.rasterize(
            viewmat, lens, settings.width, settings.height, sh_degree=sh_degree, threads=settings.threads
        )
        return image[0], alphas[0, ..., 0], meta

    @torch.no_grad()
    def _evaluate(self) -> Evaluation:
        """Measure the held-out frames."""
        scene, step = self.state.scene, self.state.step
        degree = min(self.settings.sh_degree, step // self.settings.sh_every)
        frames, totals = [], np.zeros(3)
        for number in self.held_out:
            target, used = self._frame(number)
            image, alphas, _ = self._render(scene, number, degree)
            plain = squared_error(image, target, used)
            error = cross_fitted_error(image, target, used) if self.settings.fit_exposure else plain
            count = float(used.sum()) * 3
            totals += [error, plain, count]
            unseen = float(((alphas < UNSEEN_ALPHA) * used).sum() / used.sum())
            frames.append(
                FrameQuality(
                    name=self.views[number].name,
                    psnr_db=decibel(error, count),
                    plain_psnr_db=decibel(plain, count),
                    unseen_share=unseen,
                )
            )
        error, plain, count = (float(total) for total in totals)
        return Evaluation(
            step=step, psnr_db=decibel(error, count), plain_psnr_db=decibel(plain, count), frames=tuple(frames)
        )


@contextmanager
def _torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use a number of threads within the block; None leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
