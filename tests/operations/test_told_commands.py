"""Every command and option that the README and the docs tell of exists."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
import typer

from gateway.cli import app
from provisioning.cli import app as bench
from tests.parts import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((PROJECT / "docs").glob("*.md"))), "hardware/README.md")
SEPARATORS = {"tocsin release 1", "tocsin checkpoint 1"}  # what signatures begin with: no commands
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def told(page: str) -> Iterator[list[str]]:
    """What stands behind `tocsin` in code, word by word, as far as it is plain."""
    text = (PROJECT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line.partition("  #")[0] for block in blocks for line in block.splitlines()]
    for one in (*lines, *re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))):
        found = re.search(r"(?:^|[/ ])tocsin ([a-z](?:[a-z-]+ ?)+.*)", one)
        if found and not one.startswith(("adduser", "install", "journalctl")) and one not in SEPARATORS:
            yield shlex.split(found[1].partition(" > ")[0].partition("`")[0].replace("'", ""))


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_exist(page: str) -> None:
    root: Any = typer.main.get_command(app)
    root.commands["provision"] = typer.main.get_command(bench)
    for words in told(page):
        command: Any = root
        rest = list(words)
        while hasattr(command, "commands") and rest and re.fullmatch(r"[a-z-]+", rest[0]):
            assert rest[0] in command.commands, f"{page}: tocsin {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        known |= {"--help"}
        if not hasattr(command, "commands"):
            for word in rest:
                option = re.match(r"--?[a-z][a-z-]*", word)
                assert not option or option[0] in known, f"{page}: {option and option[0]} of tocsin {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str) -> None:
    text = (PROJECT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|&& )make ([a-z-]+)", text, re.MULTILINE))
    assert named <= TARGETS, named - TARGETS


def test_the_pages_tell_of_commands() -> None:
    assert sum(len(list(told(page))) for page in PAGES) > 40
