"""`lcm doctor` finds what is not right on a machine and for a preset, and says what to do."""

import json
import re
import tomllib
from pathlib import Path

import huggingface_hub.constants
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from lcm_distill import assets
from lcm_distill.commands.doctor import show_findings
from lcm_distill.config import load_preset
from lcm_distill.core import machine
from lcm_distill.core.machine import Gpu, Release
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.doctor import TESTED, Finding, beside_tested, doctor, releases_of_tests
from tests.command_line import lcm
from tests.documents import ROOT

VERSIONS = Path(__file__).parents[2] / "docs" / "versions.md"


def findings(root: Path, preset: str = "shapes", *settings: str) -> dict[str, Finding]:
    """A finding about each thing; a wrong one where there is one."""
    found = sorted(
        doctor(load_preset(preset, settings), RunFolder(root)), key=lambda finding: finding.verdict != "wrong"
    )
    return {finding.what: finding for finding in reversed(found)}


def test_nothing_is_wrong_with_the_default(tmp_path):
    result = lcm("doctor", "--preset", "shapes", "--json", "--run", tmp_path / "run")
    rows = json.loads(result.stdout)
    assert result.exit_code == 0 and {row["verdict"] for row in rows} == {"fine"}
    assert {"python", "torch", "libraries", "device", "memory", "disk", "encoders.vae", "lcm evaluate"} <= {
        row["what"] for row in rows
    }
    assert not (tmp_path / "run").exists()


def test_what_a_preset_lacks_is_wrong_with_its_remedy(tmp_path):
    result = lcm("doctor", "--preset", "microdit_xl_512", "--json", "--run", tmp_path / "run")
    wrong = [row for row in json.loads(result.stdout) if row["verdict"] == "wrong"]
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"lcm: {len(wrong)} of ")
    remedies = "\n".join(row["remedy"] for row in wrong)
    assert all(key in remedies for key in ("data.root", "model.teacher", "evaluate.reference", "evaluate.weights"))
    assert {row["what"] for row in wrong} == {"lcm precompute", "lcm distill", "lcm evaluate"}


@pytest.mark.parametrize(("gigabytes", "verdict"), [(56.0, "fine"), (55.9, "note")])
def test_memory_and_disk_are_held_against_what_a_distillation_keeps(tmp_path, monkeypatch, gigabytes, verdict):
    """XL/2: 56.0 GB of weights and states, in a GPU's memory where there is one; four checkpoints of 28.0 GB."""
    monkeypatch.setattr(machine, "gpus", lambda: [])
    monkeypatch.setattr(machine, "memory_bytes", lambda: gigabytes * 1e9)
    monkeypatch.setattr(machine, "free_disk_bytes", lambda _: 2.001 * gigabytes * 1e9)
    found = findings(tmp_path, "microdit_xl_512")
    assert (found["memory"].verdict, found["disk"].verdict) == (verdict, verdict)
    assert ("56.0 GB" in found["memory"].remedy) == ("112.0 GB" in found["disk"].remedy) == (verdict == "note")
    small = [Gpu(0, "a small one", int(24e9), int(24e9))]
    monkeypatch.setattr(machine, "gpus", lambda: small)
    assert findings(tmp_path, "microdit_xl_512")["memory"].verdict == "note"


def test_releases_that_do_not_do_are_wrong(tmp_path, monkeypatch):
    known = [("torch>=99", "2.14.1"), ("zarr>=3.1", None), ("rich>=14.2", "15.0")]
    monkeypatch.setattr(machine, "releases", lambda: [Release(Requirement(name), here) for name, here in known])
    found = findings(tmp_path)
    assert found["torch"] == Finding("torch", "2.14.1", "wrong", "pip install 'torch>=99'")
    assert found["zarr"] == Finding("zarr", "not installed", "wrong", "pip install 'zarr>=3.1'")
    assert found["libraries"].found == "1 of 3 in a required release"


def test_every_requirement_is_looked_at():
    names = {canonicalize_name(release.required.name) for release in machine.releases()}
    assert {"torch", "diffusers", "open-clip-torch", "pyarrow", "duckdb", "typer", "zarr", "rich"} <= names
    assert "ray" not in names  # of an extra
    assert all(release.fits for release in machine.releases())


def test_gpus_are_named_and_one_that_is_not_there_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: [Gpu(0, "NVIDIA H100", 80 * 10**9, 79 * 10**9)])
    found = findings(tmp_path, "shapes", "device=cuda:3")
    assert found["cuda:0"].found == "NVIDIA H100, 80.0 GB, 79.0 GB free"
    assert found["device"].verdict == "wrong" and found["device"].remedy.endswith("set device=auto for what is here")


def test_a_driver_without_a_device_is_wrong(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "gpus", list)
    monkeypatch.setattr(machine, "NVIDIA_DRIVER", tmp_path)
    assert findings(tmp_path)["gpu"].verdict == "wrong"


@pytest.mark.parametrize(("offline", "verdict"), [(False, "note"), (True, "wrong")])
def test_weights_that_are_not_here(tmp_path, monkeypatch, offline, verdict):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    found = findings(tmp_path, "microdit_xl_512")
    for key in ("encoders.vae", "encoders.text"):
        assert found[key].verdict == verdict and "lcm fetch" in found[key].remedy


def test_a_vae_that_cannot_be_is_wrong(tmp_path):
    found = findings(tmp_path, "shapes", "encoders.vae=nowhere.safetensors")["encoders.vae"]
    assert found.verdict == "wrong" and "nowhere.safetensors" in found.remedy


def test_one_wrong_protocol_is_one_thing(finished_run):
    """Found by the checks of captions, of the file format and of the networks."""
    command = ["doctor", "--run", finished_run.root, "--set", "evaluate.protocols=['nope']", "--json"]
    result = lcm(*command)
    wrong = [row for row in json.loads(result.stdout) if row["verdict"] == "wrong"]
    assert [row["what"] for row in wrong] == ["lcm evaluate"] and result.exit_code == 2
    assert wrong[0]["remedy"].startswith("evaluate.protocols: metric protocol 'nope' is unknown: choose from shapes")
    assert "lcm: 1 of " in result.stderr.splitlines()[-1]


def test_random_encoders_are_noted(tmp_path):
    assert findings(tmp_path, "shapes", "encoders.weights=random")["encoders.weights"].verdict == "note"


def test_tested_releases_are_those_of_the_documents():
    text = VERSIONS.read_text()
    releases = re.findall(r"PyTorch (\d+\.\d+)\.\d+, torchvision", text)
    passed = re.findall(r"^\| Python (\d+\.\d+)\.\d+ \|(.*)$", text, re.MULTILINE)
    assert TESTED["torch"] == tuple(releases)
    assert TESTED["python"] == tuple(version for version, cells in passed if "passes" in cells)


def test_a_release_between_those_that_were_tested_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "python_version", lambda: Version("3.12.1"))
    assert findings(tmp_path)["python"].verdict == "note"


def test_a_stage_that_waits_for_another_cannot_begin(tmp_path):
    found = findings(tmp_path, "shapes", "data.source=folder", f"data.root={tmp_path / 'nothing'}")
    assert {name for name, finding in found.items() if finding.verdict == "wrong"} >= {"lcm precompute", "lcm distill"}


def test_a_run_that_can_be_nowhere_is_wrong(tmp_path):
    (tmp_path / "file").touch()
    assert findings(tmp_path / "file" / "run")["disk"] == Finding(
        "disk", f"{tmp_path / 'file'} is a file", "wrong", "choose another --run"
    )


def test_tested_releases_are_those_of_constraints():
    """One source: the package has the lines of constraints.txt that are about what it requires."""
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {canonicalize_name(Requirement(line).name) for line in required}
    pinned = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    lines = [line for line in pinned if canonicalize_name(line.partition("==")[0]) in names]
    assert assets.TESTED_RELEASES.read_text().splitlines() == lines and len(lines) == len(names)


def test_releases_that_are_not_the_tested_ones_are_named():
    here = [Release(Requirement(name), releases_of_tests()[name]) for name in ("torch", "numpy")]
    older = Release(Requirement("torch"), "2.11.0+cu130")
    assert beside_tested([older, here[1]]).found == (
        f"1 of 2 in the release that the tests ran with; torch 2.11.0+cu130, not {releases_of_tests()['torch']}"
    )
    assert beside_tested(here).found == "2 of 2 in the release that the tests ran with"


def test_a_terminal_has_remedies_below_the_table(capsys, monkeypatch):
    rows = [{"what": "disk", "found": "a file", "verdict": "wrong", "remedy": "choose /a/very/long/path " * 8}]
    monkeypatch.setattr("lcm_distill.commands.doctor.terminal_width", lambda: 80)
    show_findings(rows)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"disk: {rows[0]['remedy']}" and not any("remedy" in line for line in lines)
    monkeypatch.setattr("lcm_distill.commands.doctor.terminal_width", lambda: None)
    show_findings(rows)
    assert "remedy" in capsys.readouterr().out
