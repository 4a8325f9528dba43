"""Errors of the file system, whatever library met them: the file, the reason, what to do."""

import errno
import io
import os

import pyarrow as pa
import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.core.io_errors import describe, naming_file, os_error_in


class Refusing(io.BytesIO):
    """A file that takes nothing."""

    def write(self, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG])
def test_the_line_names_file_reason_and_remedy(tmp_path, code):
    with pytest.raises(OSError) as raised, naming_file(tmp_path / "file"):
        raise OSError(code, os.strerror(code))
    line = describe(raised.value)
    assert line.startswith(f"{tmp_path / 'file'}: {os.strerror(code)}: ") and len(line.rpartition(": ")[2]) > 20


def test_what_torch_says_of_a_failed_write(tmp_path):
    with pytest.raises(OSError, match="No space left on device"), naming_file(tmp_path / "file"):
        torch.save({"x": torch.zeros(1000)}, Refusing())
    with pytest.raises(OSError) as raised, naming_file(tmp_path / "file"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    assert raised.value.filename == str(tmp_path / "file") and raised.value.errno == errno.EIO


def test_an_error_without_a_number_gets_one(tmp_path):
    with pytest.raises(OSError) as raised, naming_file(tmp_path / "folder"):
        raise OSError(None, "unexpected pos 704 vs 598", str(tmp_path / "folder/file"))
    assert describe(raised.value).startswith(f"{tmp_path / 'folder/file'}: Input/output error: check the device")


class NoException(BaseException):
    """As that of a distributed checkpoint, which aggregates the errors of ranks in its message."""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("I/O error: No space left on device (os error 28)"),
        pa.ArrowException("[Errno 28] Error writing bytes to file"),
        NoException("rank 0: OSError: [Errno 28] No space left on device"),
    ],
)
def test_messages_of_libraries_are_read(tmp_path, error):
    with pytest.raises(OSError) as raised, naming_file(tmp_path / "file"):
        raise error
    assert raised.value.errno == errno.ENOSPC and raised.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("other"), UserError("refused"), KeyboardInterrupt()])
def test_other_errors_stay(tmp_path, error):
    with pytest.raises(type(error)) as raised, naming_file(tmp_path / "file"):
        raise error from OSError(errno.ENOSPC, "x") if isinstance(error, UserError) else None
    assert raised.value is error
    assert os_error_in(ValueError("other")) is None
