"""The README and docs/: commands and keys that they name exist, links lead somewhere, and the site builds."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from lcm_distill.cli import app
from lcm_distill.config import Config, load_preset
from lcm_distill.config.ablation import load_ablation
from tests.documents import FENCED, FULL_SIZE, KINDS, PAGES, ROOT, code_in_prose, commands, lines, prose

DOCS = ROOT / "docs"
COMMANDS = [(page, words) for page in PAGES for words in commands(page, "sh", "text")]
LAUNCHED = [words[words.index("torchrun") :] for page in PAGES for words in lines(page, "text") if "torchrun" in words]
MAKE = {target for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")
        for target in line.split()[1:]}  # fmt: skip
FILES = {".json", ".md", ".parquet", ".png"}
"""Suffixes of names that look like keys."""
OPTIONS_OF_OTHERS = {"--signal"}
"""Of SLURM."""
EXAMPLES_OF_CHANGES = "docs/extending.md"
"""Its keys are those that the reader adds."""


def descend(words: Sequence[str]) -> tuple[Any, str, list[str]]:
    """The command that words begin with, its name, and the words after it."""
    command: Any = typer.main.get_command(app)
    rest, names = list(words), list[str]()
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        names.append(rest.pop(0))
        assert names[-1] in command.commands, f"there is no `lcm {' '.join(names)}`"
        command = command.commands[names[-1]]
    return command, " ".join(names), rest


def options(command: Any) -> set[str]:
    """Names of a command's options."""
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"--help", "-h"}


def all_options(group: Any) -> set[str]:
    """Those of a group and of all commands below it."""
    below = getattr(group, "commands", {}).values()
    return options(group).union(*map(all_options, below))


def given(words: Sequence[str]) -> set[str]:
    """Options among words, without their values."""
    return {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}


def require_key(key: str) -> None:
    """A key of the configuration, or one of a table within it."""
    value: Any = load_preset(FULL_SIZE)
    for part in key.split("."):
        if isinstance(value, dict):
            return
        assert hasattr(value, part), f"there is no key {key}"
        value = getattr(value, part)


def test_there_are_commands_on_many_pages():
    assert len({page for page, _ in COMMANDS}) > 15 and len(COMMANDS) > 80 and len(LAUNCHED) > 2


def test_every_block_says_whether_it_is_run():
    assert {kind for text in PAGES.values() for kind, _ in FENCED.findall(text)} == KINDS
    assert all(text.count("```") == 2 * len(FENCED.findall(text)) for text in PAGES.values())


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_commands_exist_with_their_options_and_keys(page, words):
    command, name, rest = descend(words)
    if hasattr(command, "commands"):  # options of `lcm` itself, some of which act as they are read
        assert given(rest) <= options(command)
        return
    context = command.make_context(name, rest)
    load_preset(context.params.get("preset") or "shapes", context.params.get("set") or [])


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_in_sentences_exist(page):
    everywhere = all_options(typer.main.get_command(app)) | OPTIONS_OF_OTHERS
    for code in code_in_prose(page):
        words = code.partition("...")[0].split()
        if words and words[0] == "lcm":
            command, _, rest = descend(words[1:])
            assert given(rest) <= options(command)
        elif words and words[0].startswith("--"):
            assert given(words) <= everywhere


@pytest.mark.parametrize("page", [page for page in PAGES if page != EXAMPLES_OF_CHANGES])
def test_keys_in_sentences_exist(page):
    for code in code_in_prose(page):
        key = re.match(r"([a-z]+)(?:\.[\w-]+)+(?=$| ?=)", code)
        if key and key[1] in Config.model_fields and Path(code).suffix not in FILES:
            load_preset("shapes", [code]) if "=" in code else require_key(code)
    for key in re.findall(r"--set '?([a-z]+(?:\.[\w-]+)+)=", prose(page)):
        assert key == "section.key" or require_key(key) is None


@pytest.mark.parametrize("words", LAUNCHED, ids=lambda words: words[-1])
def test_the_launcher_takes_none_of_our_options_for_its_own(words):
    from torch.distributed.run import parse_args

    arguments = parse_args(words[1:])
    assert arguments.training_script == "lcm" and arguments.training_script_args[0] in ("distill", "run")
    assert (
        arguments.nproc_per_node == words[words.index("--nproc-per-node") + 1]
        and words[-len(arguments.training_script_args) :] == arguments.training_script_args
    )


def test_extras_and_targets_of_make_exist():
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    named, targets = set[str](), set[str]()
    for page, text in PAGES.items():
        named |= set(re.findall(r"(?:lcm-distill|'\.|extra `)\[(\w+)\]", text))
        named |= set(re.findall(r"\[(\w+)\](?!\()", text.partition("extras: ")[2].partition("\n")[0]))
        targets |= {words[1] for words in lines(page, "sh", "text") if words[0] == "make"}
        targets |= {code.split()[1] for code in code_in_prose(page) if code.startswith("make ")}
    assert len(named) > 3 and named <= extras
    assert len(targets) > 4 and targets <= MAKE


def test_keys_in_tables_exist():
    keys = [key for page, text in PAGES.items() for key in re.findall(r"^\| `([a-z]+\.[\w.]+)` \|", text, re.MULTILINE)
            if page.startswith("docs/stages/")]  # fmt: skip
    assert len(keys) > 40
    for key in keys:
        require_key(key)


def test_every_step_of_the_ablation_is_explained():
    """The table has a row a step of the chain, in its order, by its name and in words; the README has its ends."""
    table = PAGES["docs/stages/ablate.md"].partition("| | change |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")[1:]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [step.name for step in load_ablation("shapes").steps if step.in_chain]
    assert all(" " in row[1] for row in rows)
    quoted = re.findall(r"from ([\d.]+) to ([\d.]+) in (one step|four)", prose("README.md"))
    ends = [(column, how) for column, how in ((2, "one step"), (4, "four"))]
    assert quoted == [(rows[0][column].split()[0], rows[-1][column].split()[0], how) for column, how in ends]


def test_the_readme_is_read_in_minutes():
    assert len(PAGES["README.md"].splitlines()) <= 150


def anchors(text: str) -> set[str]:
    """Names of headings as links have them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_links_lead_to_pages_and_headings():
    found, linked = 0, set[str]()
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(FENCED, "", text)):
            if link.startswith(("http://", "https://")):
                continue
            file, _, anchor = link.partition("#")
            target = ((ROOT / page).parent / file if file else ROOT / page).resolve()
            assert target.is_relative_to(ROOT if page == "README.md" else DOCS) and target.is_file(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target.read_text()), f"{page}: {link}"
            found += 1
            linked |= {str(target.relative_to(ROOT))} if page == "README.md" else set()
    assert found > 60
    assert set(PAGES) - {"README.md"} <= linked, "the README leads to every page"


def test_the_site_has_every_page():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(f"docs/{name}" for name in listed) == sorted(set(PAGES) - {"README.md"})


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    pytest.importorskip("material", reason="the site needs the extra [docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES) - 1
    elsewhere = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"')
    assert [url for page in pages for url in elsewhere.findall(page.read_text())] == []
