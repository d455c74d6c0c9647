"""The documents: pages that code writes are current, commands that pages show exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli import app
from manifests.documentation import PAGE, manifest_page

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = "docs|gallery|render|sources|manifests|dwm_model|flows|tasks"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def shown_commands(page: Path) -> list[list[str]]:
    """Words of each `dwm` command in the page's shell blocks, without comments."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("dwm ")]


def test_manifest_page_is_what_the_schema_writes() -> None:
    assert PAGE.read_text() == manifest_page(), "run `python -m manifests.documentation`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_take_the_options_they_are_given(page: Path) -> None:
    root = get_command(app)
    for words in shown_commands(page):
        command, rest = root, words
        while hasattr(command, "commands") and rest:
            assert rest[0] in command.commands, f"{page.name}: no command {rest[0]} in `dwm {' '.join(words)}`"
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = [word for word in rest if word.startswith("--") and word not in known]
        assert not unknown, f"{page.name}: `dwm {' '.join(words)}` has no option {unknown[0]}"


def test_make_targets_that_pages_name_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    for page in PAGES:
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page.name}: no target {target}"


def test_linked_files_exist() -> None:
    for page in [*PAGES, REPOSITORY / "ARCHITECTURE.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target} is missing"
        for target in re.findall(rf"`((?:{ROOMS})/[\w./-]+\.\w+)`", page.read_text()):
            assert (REPOSITORY / target).exists(), f"{page.name}: {target} is missing"


def test_help_of_the_tool_lists_every_command() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    for name in get_command(app).commands:
        assert name in shown
