"""What a run was, in words that leave out what is not known."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from lcm_distill.report.overview import lacking_text, overview_lines

NIGHT = datetime(2026, 11, 28, 23, 59, tzinfo=UTC)


def test_all_that_is_known_is_said():
    times = [NIGHT + timedelta(minutes=2), NIGHT, NIGHT.astimezone(timezone(timedelta(hours=9)))]
    trainings = {"training of the teacher": {"steps": 0, "seconds": None}, "training": {"steps": 300, "seconds": 256.0}}
    assert overview_lines("shapes", "cuda:1", "Linux-6.1-x86_64", times, trainings, 979.0) == [
        ["preset", "shapes"],
        ["measured", "2026-11-28 23:59 UTC to 2026-11-29 00:01 UTC"],
        ["device", "cuda:1, Linux-6.1-x86_64"],
        ["training", "300 steps in 4 min 16 s"],
        ["time in all", "16 min 19 s, the sum of where time went"],
    ]


def test_what_is_not_known_is_left_out():
    assert overview_lines("original", "auto", None, [], {}, 0) == [["preset", "original"], ["device", "auto"]]
    assert ["measured", "2026-11-28 23:59 UTC"] in overview_lines("shapes", "cpu", None, [NIGHT] * 2, {}, 0)


def test_what_is_lacking_is_one_sentence():
    assert lacking_text(["figures", "response to guidance"], Path("run")) == (
        "Not here yet: figures (`lcm evaluate`); response to guidance (`lcm evaluate --guidance 1,2,3`)."
    )


def test_what_cannot_be_measured_is_no_advice():
    assert lacking_text(["figures", "images during training"], Path("runs/mine"), "shapes cannot see 'a dog'") == (
        "Not here yet: figures (shapes cannot see 'a dog': set evaluate.protocols to others for `lcm evaluate --run "
        "runs/mine`, or `lcm evaluate --run runs/mine --images-only` makes images alone); images during training "
        "(`engine.validate_every` before `lcm distill`)."
    )
