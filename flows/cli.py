"""The one command line, `dwm`: thin commands over the flows and the library."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from flows.cli_data import build_app, check, check_lists, explain, export_app, gc, split
from flows.cli_gallery import gallery
from flows.cli_generate import benchmark, generate
from flows.cli_mini import pretrain_mini
from flows.cli_model import encode, metrics
from flows.cli_registry import promote, rollback, runs
from flows.cli_run import demo, doctor
from flows.cli_services import down, pool_template, status, up
from flows.cli_support import set_up_logging
from flows.cli_train import train
from flows.cli_weights import import_lora

app = typer.Typer(
    name="dwm",
    help="Dexterous World Models: raw captures -> aligned triplets -> LoRA fine-tuning -> benchmark tables.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def show_version(wanted: bool) -> None:
    """Print the version and stop."""
    if wanted:
        typer.echo(f"dwm {version('dwm-pipeline')}")
        raise typer.Exit


@app.callback()
def switches(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages.")] = False,
    version_wanted: Annotated[  # noqa: ARG001 - its callback has acted on it already
        bool, typer.Option("--version", help="Show the version and stop.", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Set what holds for every command."""
    set_up_logging(debug)


app.add_typer(build_app, name="build")
app.add_typer(export_app, name="export")
for command in (demo, split, check, explain, encode, train, generate, metrics, benchmark, runs, promote, rollback):
    app.command()(command)
for command in (gallery, gc, doctor, up, status, down):
    app.command()(command)
app.command("check-lists")(check_lists)
app.command("import-lora")(import_lora)
app.command("pool-template")(pool_template)
app.command("pretrain-mini")(pretrain_mini)


def main() -> None:
    """Entry point of the `dwm` console script."""
    app()


if __name__ == "__main__":
    main()
