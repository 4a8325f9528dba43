"""Models of `shapes` say which captions they have never seen; of others nothing is known."""

from lcm_distill import assets
from lcm_distill.config import load_preset
from lcm_distill.evaluation.known_captions import unknown_caption
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.serve import Studio
from tests.command_line import lcm

ASTRONAUT = "a photo of an astronaut"
TOLD = (
    "this model generates one coloured shape on a background: of 'a photo of an astronaut' it does not know photo, of, "
    "an, astronaut"
)


def test_the_model_that_ships_knows_shapes_alone(tmp_path):
    assert unknown_caption("shapes", ["a red circle", ASTRONAUT]) == TOLD
    assert unknown_caption("shapes", ["a red circle", "a small ring at the top"]) is None
    assert unknown_caption("shapes", ["a red background"]) == TOLD.partition("of 'a")[0] + (
        "of 'a red background' no shape is named"
    )
    assert unknown_caption("shapes", [ASTRONAUT], elsewhere=assets.STUDENT) is None
    assert unknown_caption(str(assets.STUDENT), [ASTRONAUT]) is None
    for name, chosen in (("own", ["data.source=folder", "data.root=images"]), ("generated", [])):
        RunFolder(tmp_path / name).open(load_preset("shapes", chosen))
    assert unknown_caption(str(tmp_path / "own"), [ASTRONAUT]) is None
    assert unknown_caption(str(tmp_path / "generated"), [ASTRONAUT]) == TOLD


def test_commands_and_page_say_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for command in (["sample", "--steps", "1"], ["compare-samplers", "--steps", "1", "--solver", "euler"]):
        made = lcm(*command, ASTRONAUT)
        assert made.exit_code == 0 and made.stderr.replace("\n", " ").count(TOLD) == 1, made.stderr
        assert "it does not know" not in lcm(*command, "a red circle").stderr
    assert Studio("shapes").unknown(f"a ring\n\n{ASTRONAUT}") == TOLD
