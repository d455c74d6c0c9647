"""Base models as tasks."""

from __future__ import annotations

from pathlib import Path

from prefect import task

from dwm_model.tiny import make_tiny_base
from tasks.retrying import is_worth_retrying


@task(name="make-untrained-base", retries=1, retry_condition_fn=is_worth_retrying)
def make_untrained_base(folder: Path) -> Path:
    """Write the tiny base with random weights, unless it is there."""
    return make_tiny_base(folder)
