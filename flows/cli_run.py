"""`dwm demo` and `dwm doctor`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from flows.cli_support import EXIT_PROBLEMS, JsonOption, one_line_errors, report, say
from manifests import atomic
from manifests.profiles import get_profile


@one_line_errors
def demo(
    raw: Annotated[
        Path | None, typer.Option(help="Triplets in the official layout; generated ones when absent.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = Path("out/demo"),
    base: Annotated[
        Path | None, typer.Option(help="Base model in the diffusers layout; the small one of the project when absent.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Size and sampling of clips.")] = "mini",
    steps: Annotated[int | None, typer.Option(help="Training steps; the demo's own number when absent.", min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the whole DAG: triplets, manifest, latents, LoRA, benchmark table, report page.

    Example: `dwm demo --out out/demo`, then open `out/demo/benchmark/index.html`.
    """
    from sources.official import plan_import

    get_profile(profile)
    if raw is not None:
        plan_import(raw)  # a wrong folder is told at once, not after Prefect has started
    if use_own_prefect_home(out):
        start_temporary_api()
    from flows.demo import DemoParameters
    from flows.demo import demo as demo_flow

    result = demo_flow(DemoParameters(raw=raw, out=out, base=base, profile=profile, steps=steps))
    losses = f"{result.validation_loss_first:.3f} -> {result.validation_loss_last:.3f}"
    lines = (
        f"dataset    {result.dataset} ({result.ready_clips} ready clips, {result.failed_clips} failed)",
        f"training   {result.run} ({result.steps} steps, validation loss {losses})",
        f"benchmark  {result.table}",
        f"page       {result.page}",
    )
    report(result, as_json, lines)


def use_own_prefect_home(out: Path) -> bool:
    """Keep Prefect's database under ``out`` and its telemetry off, unless a server is configured.

    Must run before Prefect is imported: it reads its settings at import time.

    Returns:
        Whether there is no server, so that Prefect will start a temporary API.
    """
    tell_nobody()
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    if "PREFECT_API_URL" in os.environ:
        return False
    home = (out / "prefect").resolve()
    atomic.make_folder(home)
    os.environ["PREFECT_HOME"] = str(home)
    os.environ["PREFECT_PROFILES_PATH"] = str(home / "profiles.toml")
    return True


def tell_nobody() -> None:
    """Keep Prefect's telemetry off; before Prefect is imported."""
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def start_temporary_api() -> None:
    """Start Prefect's temporary API out of Ctrl-C's reach.

    A terminal sends Ctrl-C to every process of a command. An API that went with it would leave the flow trying, for
    minutes, to report that it was interrupted. A process inherits which signals are blocked, so the API never gets
    this one; Prefect ends it when the command ends.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True):
            pass
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@one_line_errors
def doctor(as_json: JsonOption = False) -> None:
    """Say what works on this machine, with remedies.

    Example: `dwm doctor`
    """
    from flows.doctor import Verdict, diagnose

    diagnosis = diagnose()
    lines = [
        f"{finding.verdict.value:>16}  {finding.part}: {finding.detail}"
        + (f"  -> {finding.remedy}" if finding.remedy and finding.verdict is not Verdict.WORKS else "")
        for finding in diagnosis.findings
    ]
    report(diagnosis, as_json, lines)
    if not diagnosis.healthy:
        say("something that is needed does not work here")
        raise typer.Exit(EXIT_PROBLEMS)
