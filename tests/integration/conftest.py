"""A run that other files' students can be tried in."""

import shutil

import pytest

from lcm_distill.pipeline.run_folder import RunFolder


@pytest.fixture
def run(tmp_path, finished_run) -> RunFolder:
    """The finished run without what its evaluation made."""
    own = RunFolder(tmp_path / "run")
    own.root.mkdir()
    for folder in (finished_run.images, finished_run.cache):
        (own.root / folder.name).symlink_to(folder)
    shutil.copy(finished_run.config, own.config)
    shutil.copy(finished_run.student, own.student)
    return own
