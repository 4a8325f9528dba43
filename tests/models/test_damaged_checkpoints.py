"""Checkpoints that are empty, cut off or something else are one line that says so, with what to do."""

import pytest
import torch

from lcm_distill.core.errors import DataError
from lcm_distill.models.checkpoint import read_description, read_tensors


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_off_says_so(tmp_path, zipped, suffix):
    """Wherever it was cut, in the pickle, in the tensors or in the table at the end; within seconds."""
    path = tmp_path / f"cut{suffix}"
    torch.save({"x": torch.arange(3.0)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for size in range(4, len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(DataError) as caught:
            read_tensors(path)
        assert str(caught.value) == (
            f"checkpoint {path} cannot be read (it is damaged or incomplete): copy or download it again, or run the "
            "command that trained it again, which publishes it again"
        ), size


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"P", "it is damaged or incomplete"),
        (b"\x80", "it is damaged or incomplete"),
        (b"<!DOCTYPE html>", "it begins with b'<!DO' and is neither PyTorch's nor a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1", "it begins with b'vers' and is neither PyTorch's nor a"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_what_is_no_checkpoint_is_named(tmp_path, content, said, suffix):
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(content)
    for read in (read_tensors, read_description):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"checkpoint {path} cannot be read ({said}")
        assert "copy or download it again" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".index.json"])
def test_other_empty_files_say_so(tmp_path, suffix):
    (tmp_path / f"model{suffix}").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot be read \(it is empty\): copy or download it again"):
        read_tensors(tmp_path / f"model{suffix}")
