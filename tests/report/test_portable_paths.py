"""A page that is passed on says of no path where on a machine it lies."""

import pytest

from lcm_distill import assets
from lcm_distill.report.portable_paths import portable_path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("RUN/student.safetensors", "student.safetensors"),
        ("runs/mine/student.safetensors", "student.safetensors"),
        ("/before/it/moved/mine/student.safetensors", "student.safetensors"),
        ("/elsewhere/mine/other.safetensors", ".../mine/other.safetensors"),
        ("runs/full/teacher.safetensors", "runs/full/teacher.safetensors"),
        ("/home/me/runs/full/teacher.safetensors", ".../full/teacher.safetensors"),
        ("/teacher.pt", "/teacher.pt"),
        (str(assets.TEACHER), "lcm_distill/assets/shapes/teacher/model.safetensors"),
        ("/other/lcm_distill/assets/shapes/teacher/model.safetensors",
         "lcm_distill/assets/shapes/teacher/model.safetensors"),
        ("shapes", "shapes"),
        ("0.5", "0.5"),
        ("[1, 2]", "[1, 2]"),
    ],
)  # fmt: skip
def test_a_path_is_shown_from_its_run_or_package_on(tmp_path, path, shown):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "student.safetensors").write_bytes(b"weights")
    assert portable_path(path.replace("RUN", str(run)), run) == shown
