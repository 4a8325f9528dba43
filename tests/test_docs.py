"""The pages of docs/: their commands are ones that exist, their snippets run, their links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lcm_distill.cli import app
from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from tests.command_line import lcm
from tests.conftest import SMALL

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def command_lines(page: str) -> list[list[str]]:
    """Words of each `lcm` command of a page's blocks, after `lcm`; those of a launcher and lines cut by `...` aside."""
    blocks = [block for kind, block in FENCED.findall(PAGES[page]) if kind in ("sh", "text")]
    words = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines() if "..." not in line]
    return [each[each.index("lcm") + 1 :] for each in words if "lcm" in each]


COMMANDS = [(page, words) for page in PAGES for words in command_lines(page)]


def test_there_are_commands_on_many_pages():
    assert len({page for page, _ in COMMANDS}) > 12 and len(COMMANDS) > 50


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_commands_exist_with_their_options_and_keys(page, words):
    command = typer.main.get_command(app)
    names = list[str]()
    while hasattr(command, "commands"):
        names.append(words[len(names)])
        command = command.commands[names[-1]]  # pyright: ignore[reportAttributeAccessIssue]
    context = command.make_context(" ".join(names), list(words[len(names) :]))
    load_preset(context.params.get("preset") or "shapes", context.params.get("set") or [])


def test_keys_in_tables_exist():
    for page, text in PAGES.items():
        for key in re.findall(r"^\| `([a-z]+\.[\w.]+)` \|", text, re.MULTILINE) if page.startswith("stages/") else ():
            value = load_preset("microdit_xl_512")
            for part in key.split("."):
                assert hasattr(value, part), f"{page}: there is no {key}"
                value = getattr(value, part)


def anchors(text: str) -> set[str]:
    """Names of headings as links have them."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def test_links_lead_to_pages_and_headings():
    found = 0
    for page, text in PAGES.items():
        for link in re.findall(r"\]\(([^)\s]+)\)", re.sub(FENCED, "", text)):
            if link.startswith(("http://", "https://")):
                continue
            file, _, anchor = link.partition("#")
            target = (DOCS / page).parent / file if file else DOCS / page
            assert target.resolve().is_relative_to(DOCS) and target.is_file(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target.read_text()), f"{page}: {link}"
            found += 1
    assert found > 25


def test_the_site_has_every_page():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(PAGES)


def test_a_stranger_reads_the_cache(finished_run, tmp_path):
    """By the snippets of the specification, in a process without the package."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "shapes").symlink_to(finished_run.root)
    snippets = [block for kind, block in FENCED.findall(PAGES["cache-format.md"]) if kind == "python"]
    code = "import sys; sys.modules['lcm_distill'] = None\n" + "\n".join(snippets)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 40 < len(lines) < 72 and all(line.endswith("(8, 8, 8) (16, 64)") for line in lines)


@pytest.mark.slow
def test_the_tutorial_works_on_the_embedded_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [word for setting in SMALL for word in ("--set", setting)]
    for words in command_lines("tutorial.md"):
        if words[0] == "fetch":
            continue
        text = re.sub(r" --set (data.root|data.archives|model.teacher)=\S+", "", " ".join(words))
        extra = [*small, "--set", "schedule.samples=16"] if "--preset" in words else []
        result = lcm(*text.replace("microdit_xl_512", "shapes").split(), *extra)
        assert result.exit_code == 0, (words, result.output)
    run = RunFolder(Path("runs/xl"))
    assert run.metrics.is_file() and (run.root / "report.html").is_file() and Path("student/README.md").is_file()


@pytest.mark.slow
def test_the_site_builds(tmp_path):
    pytest.importorskip("material", reason="the site needs the extra [docs]")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(PAGES)
    elsewhere = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)"')
    assert [url for page in pages for url in elsewhere.findall(page.read_text())] == []
