"""What the tests of flows look up in Prefect's API."""

from __future__ import annotations

import time
from typing import Any

from prefect.client.orchestration import SyncPrefectClient


def events_named(client: SyncPrefectClient, name: str, dataset: str, patience_s: float = 30.0) -> list[dict[str, Any]]:
    """Events of a name about a dataset's folder; waits for the first, since they travel on their own."""
    deadline = time.monotonic() + patience_s
    while True:
        told = client.request("POST", "/events/filter", json={"filter": {"event": {"name": [name]}}}).json()
        found = [event for event in told["events"] if dataset in str(event)]
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)
