"""Fixture of the flows' tests: Prefect's API on an empty database, started once a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def client() -> Iterator[SyncPrefectClient]:
    with prefect_test_harness(server_startup_timeout=120), get_client(sync_client=True) as client:
        yield client
