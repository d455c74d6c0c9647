"""Job templates of Docker and Kubernetes work pools: Prefect's own defaults with this project's image, data and GPU.

A work pool's base job template says how a worker starts a flow run. Prefect ships one for each type; what is changed
here is small enough to read, and stays right when Prefect's template changes.
"""

from __future__ import annotations

import asyncio
from copy import deepcopy
from enum import StrEnum
from typing import Any

from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type
from pydantic import BaseModel, ConfigDict, Field

from manifests.errors import DwmError

PROJECT_ROOT_IN_IMAGE, DATA_IN_IMAGE = "/app", "/data"
"""Where the images of ``deploy/`` keep the code, and where datasets are mounted."""


class PoolType(StrEnum):
    """Kinds of work pools that run containers."""

    DOCKER = "docker"
    KUBERNETES = "kubernetes"


class PoolSettings(BaseModel):
    """What a pool's jobs run in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: PoolType = Field(description="Kind of the pool.")
    image: str = Field(description="Image of the jobs, such as dwm:cuda.", min_length=1)
    data: str = Field(description="Docker: folder of the host with the data; Kubernetes: persistent volume claim.")
    gpus: int = Field(default=0, description="GPUs of a job.", ge=0)
    memory: str | None = Field(default=None, description="Memory of a job, such as 64Gi (Docker: 64g).")
    shared_memory: str = Field(default="8Gi", description="Shared memory, which data-parallel training needs.")


def pool_template(settings: PoolSettings) -> dict[str, Any]:
    """Base job template of a pool, for `prefect work-pool create --base-job-template`.

    Raises:
        DwmError: this Prefect has no template for the type, or one of another form than is known.
    """
    default = asyncio.run(get_default_base_job_template_for_infrastructure_type(settings.type.value))
    if default is None:
        raise DwmError(
            f"pool type {settings.type}: Prefect has no job template for it; install prefect-{settings.type}"
        )
    template = deepcopy(default)
    try:
        _set_defaults(template, settings)
        if settings.type is PoolType.DOCKER:
            _for_docker(template, settings)
        else:
            _for_kubernetes(template, settings)
    except KeyError as error:
        raise DwmError(
            f"pool type {settings.type}: Prefect's job template has no {error}; use prefect 3.8, or edit it by hand"
        ) from error
    return template


def _set_defaults(template: dict[str, Any], settings: PoolSettings) -> None:
    variables = template["variables"]["properties"]
    variables["image"]["default"] = settings.image
    variables["env"]["default"] = {"PROJECT_ROOT": PROJECT_ROOT_IN_IMAGE, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}


def _for_docker(template: dict[str, Any], settings: PoolSettings) -> None:
    variables, job = template["variables"]["properties"], template["job_configuration"]
    variables["volumes"]["default"] = [f"{settings.data}:{DATA_IN_IMAGE}"]
    variables["mem_limit"]["default"] = settings.memory
    options: dict[str, Any] = {"shm_size": settings.shared_memory.replace("i", "").lower()}
    if settings.gpus:
        options["device_requests"] = [{"Driver": "nvidia", "Count": settings.gpus, "Capabilities": [["gpu"]]}]
    job["container_create_kwargs"] = options


def _for_kubernetes(template: dict[str, Any], settings: PoolSettings) -> None:
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    pod["volumes"] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": settings.data}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory}},
    ]
    container["volumeMounts"] = [
        {"name": "data", "mountPath": DATA_IN_IMAGE},
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount point, not a temporary file
    ]
    if settings.memory is not None:
        variables = template["variables"]["properties"]
        variables["memory_request"]["default"] = variables["memory_limit"]["default"] = settings.memory
    if settings.gpus:
        resources = container.setdefault("resources", {})
        resources.setdefault("limits", {})["nvidia.com/gpu"] = settings.gpus
