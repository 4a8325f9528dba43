"""Queries open the views that they name, and no others."""

from pathlib import Path

import pytest

from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages import queries


@pytest.mark.parametrize(
    ("sql", "views"),
    [
        ("SELECT images_per_second FROM Events", ["events"]),
        ("FROM pretrain_events", ["pretrain_events"]),
        ("SELECT 1", list(queries.VIEWS)),
    ],
)
def test_only_the_views_that_a_query_names_are_opened(monkeypatch, sql, views):
    opened = list[str]()
    monkeypatch.setattr(queries, "_open", lambda config, run, view: opened.append(view))
    rows = queries.inspect_view(load_preset("shapes"), RunFolder(Path("nowhere")), "events", sql)
    assert opened == views and rows == []  # as none has a file
