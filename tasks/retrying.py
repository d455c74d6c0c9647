"""Which failures of a task are worth another try."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from manifests.errors import DwmError


def is_worth_retrying(_task: Task[Any, Any], _task_run: TaskRun, state: State[Any]) -> bool:
    """Try again unless the failure is one that only a person can mend (a bad file, a wrong setting)."""
    return not isinstance(state.data, DwmError)
