"""The automation that ends runs whose process is gone: ``python -m flows.zombies`` makes it, once.

A flow run sends a heartbeat while it lives (``PREFECT_FLOWS_HEARTBEAT_FREQUENCY``). When neither another one nor the
end of the run follows within 90 seconds, the run is marked as crashed instead of staying "Running" for ever.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

NAME = "Crash runs whose process is gone"
SILENCE = timedelta(seconds=90)
_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


async def make_automation() -> None:
    """Make the automation unless the server has it."""
    try:
        await Automation.aread(name=NAME)
    except ValueError:
        await Automation(
            name=NAME,
            trigger=EventTrigger(
                after={_HEARTBEAT},
                expect={_HEARTBEAT, *(f"prefect.flow-run.{end}" for end in _ENDS)},
                match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=SILENCE,
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message="Its process is gone: no heartbeat.")],
        ).acreate()


if __name__ == "__main__":
    asyncio.run(make_automation())
