"""Checkpoints load strictly, and a student made from a teacher is that teacher."""

import pytest
import torch
from safetensors.torch import save_file

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.models import build, build_empty, fill, load_checkpoint
from lcm_distill.models.checkpoint import (
    checkpoint_sha256,
    has_weights,
    pickled,
    read_description,
    read_teacher_tensors,
    read_tensors,
    serialise,
    tensors_sha256,
)
from lcm_distill.models.checkpoint_identity import DTYPES
from lcm_distill.models.weight_wrappers import ANCHOR


def nano(guidance_embedding=False, seed=0):
    torch.manual_seed(seed)
    model = build("MicroDiT_Nano_2", 8, 64, guidance_embedding=guidance_embedding)
    with torch.no_grad():  # zero-initialised layers would hide differences
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(3, 4, 8, 8, generator=generator),
        torch.tensor([-1.0, 0.0, 1.0]),
        torch.randn(3, 16, 64, generator=generator),
    )


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_student_from_teacher_equals_it_exactly(tmp_path, inputs, suffix):
    teacher, path = nano(), tmp_path / f"teacher{suffix}"
    if suffix == ".pt":
        torch.save(teacher.state_dict(), path)
    else:
        save_file(teacher.state_dict(), path)
    student = build("MicroDiT_Nano_2", 8, 64, guidance_embedding=True).eval()
    load_checkpoint(student, path)
    with torch.no_grad():
        expected = teacher(*inputs)
        assert torch.equal(student(*inputs), expected)
        assert torch.equal(student(*inputs, guidance=torch.tensor([1.0, 3.0, 7.5])), expected)


def test_student_checkpoint_keeps_its_guidance_embedder(tmp_path, inputs):
    student, path = nano(guidance_embedding=True), tmp_path / "student.safetensors"
    path.write_bytes(serialise(student.state_dict(), {"role": "student"}))
    loaded = build("MicroDiT_Nano_2", 8, 64, guidance_embedding=True).eval()
    load_checkpoint(loaded, path)
    guidance = torch.tensor([1.0, 3.0, 7.5])
    with torch.no_grad():
        assert torch.equal(loaded(*inputs, guidance=guidance), student(*inputs, guidance=guidance))
        assert not torch.equal(loaded(*inputs, guidance=guidance), loaded(*inputs))
    assert read_description(path) == {"role": "student"}


def test_every_misfit_is_listed(tmp_path):
    tensors = nano().state_dict()
    del tensors["final_layer.linear.bias"]
    tensors["blocks.0.norm1.weight"] = torch.zeros(3)
    tensors["stranger"] = torch.zeros(1)
    save_file(tensors, tmp_path / "odd.safetensors")
    with pytest.raises(UserError) as caught:
        load_checkpoint(nano(), tmp_path / "odd.safetensors")
    message = str(caught.value)
    assert "missing final_layer.linear.bias" in message
    assert "unexpected stranger" in message
    assert "blocks.0.norm1.weight has shape (3,), the model wants (128,)" in message


def test_half_a_guidance_embedder_is_refused(tmp_path):
    tensors = nano(guidance_embedding=True).state_dict()
    del tensors["cfg_embedder.mlp.2.bias"]
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match=r"missing cfg_embedder\.mlp\.2\.bias"):
        load_checkpoint(nano(guidance_embedding=True), tmp_path / "half.safetensors")


def test_student_checkpoint_does_not_fit_a_teacher(tmp_path):
    path = tmp_path / "student.safetensors"
    path.write_bytes(serialise(nano(guidance_embedding=True).state_dict(), {"role": "student"}))
    with pytest.raises(UserError, match=r"is a student's checkpoint, as its description says, and a"):
        load_checkpoint(nano(), path)


def test_a_teachers_unused_guidance_embedder_is_left_out_with_a_warning(tmp_path, inputs):
    saved, path = nano(guidance_embedding=True), tmp_path / "fork.pt"
    torch.save(saved.state_dict(), path)
    teacher, student = nano(seed=1), build_empty("MicroDiT_Nano_2", 8, 64, guidance_embedding=True)
    with pytest.warns(UserWarning, match=r"fork\.pt has a guidance embedder .* left out"):
        load_checkpoint(teacher, path)
    with pytest.warns(UserWarning, match="left out"):
        weights = read_teacher_tensors(path)
    fill(student, weights, path)  # a student of this teacher starts equal to it, not with a random embedder
    with torch.no_grad():
        assert torch.equal(teacher(*inputs), saved(*inputs))
        assert torch.equal(student(*inputs, guidance=torch.tensor([1.0, 3.0, 7.5])), saved(*inputs))


def test_missing_and_foreign_files_are_one_line(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pt is missing"):
        load_checkpoint(nano(), tmp_path / "nowhere.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="cannot be read") as caught:
        load_checkpoint(nano(), tmp_path / "broken.pt")
    assert "\n" not in str(caught.value)


def test_pickled_code_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"x": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="cannot be read"):
        load_checkpoint(nano(), tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_guidance_without_embedder_is_refused(inputs):
    with pytest.raises(ValueError, match="guidance_embedding=True"):
        nano()(*inputs, guidance=torch.ones(3))


def test_unknown_variant_names_the_known():
    with pytest.raises(UserError, match="MicroDiT_XL_2"):
        build("MicroDiT_Huge_2", 64, 1024)


def test_captions_of_published_caches_have_an_axis_more(inputs):
    latents, c_noise, captions = inputs
    model = nano()
    with torch.no_grad():
        assert torch.equal(model(latents, c_noise, captions), model(latents, c_noise, captions[:, None]))


def test_an_empty_student_takes_a_teachers_weights_and_an_embedder_of_zero(tmp_path):
    teacher = nano()
    save_file(teacher.state_dict(), tmp_path / "teacher.safetensors")
    student = build_empty("MicroDiT_Nano_2", 8, 64, guidance_embedding=True)
    load_checkpoint(student, tmp_path / "teacher.safetensors")
    assert {tensor.device.type for tensor in student.state_dict().values()} == {"cpu"}
    inputs = torch.randn(2, 4, 8, 8), torch.zeros(2), torch.randn(2, 5, 64)
    with torch.no_grad():
        assert torch.equal(student(*inputs, torch.tensor([1.0, 3.0])), teacher(*inputs))


def test_identity_is_that_of_the_tensors_alone(tmp_path):
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(1.0)}
    paths = [tmp_path / name for name in ("one.safetensors", "other.safetensors", "plain.pt")]
    for path, role in zip(paths, ("student", "teacher"), strict=False):
        path.write_bytes(serialise(tensors, {"role": role}))
    torch.save(dict(reversed(tensors.items())), paths[2])
    assert {checkpoint_sha256(path) for path in paths} == {tensors_sha256(tensors)}
    assert has_weights(paths[0], tensors) and not has_weights(tmp_path / "none.safetensors", tensors)
    others = [
        {**tensors, "c": torch.tensor(2.0)},
        {**tensors, "b": tensors["b"].view(3, 2)},
        {**tensors, "a": tensors["a"].half().view(torch.bfloat16).view(torch.float16)},
        {("d" if name == "c" else name): tensor for name, tensor in tensors.items()},
    ]
    assert len({tensors_sha256(other) for other in [tensors, *others]}) == 5
    assert not any(has_weights(paths[0], other) for other in others)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_identity_of_stored_bytes_is_that_of_tensors_of_every_dtype(tmp_path, dtype):
    tensors = {"x": torch.arange(6).view(2, 3).to(getattr(torch, dtype)), "none": torch.zeros(0, 2)}
    save_file(tensors, tmp_path / "x.safetensors")
    assert checkpoint_sha256(tmp_path / "x.safetensors") == tensors_sha256(tensors)


def test_every_flipped_byte_of_a_published_file_is_found(tmp_path):
    """Tensors and description; a file without hashes, of an earlier version, opens."""
    path = tmp_path / "student.safetensors"
    content = serialise({"w": torch.arange(6.0), "n": torch.arange(3)}, {"role": "student", "sigmas": {"1": [80.0]}})
    for place in range(8, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match="run the command that trained it again"):
            read_tensors(path)
        path.unlink()
    path.write_bytes(content)
    assert read_description(path)["sigmas"] == {"1": [80.0]} and set(read_tensors(path)) == {"w", "n"}
    save_file({"w": torch.arange(6.0)}, path, {"lcm_distill": '{"role": "student"}'})
    assert read_description(path) == {"role": "student"} and set(read_tensors(path)) == {"w"}


def test_no_flipped_byte_of_a_pt_file_changes_what_is_read(tmp_path):
    """At each of two thousand places: seconds."""
    path, tensors = tmp_path / "student.pt", {ANCHOR: torch.arange(6.0), "n": torch.arange(3)}
    described = {"role": "student", "sigmas": {"1": [80.0]}}
    with path.open("wb") as file:
        torch.save(pickled(tensors, described), file)
    content, refused = path.read_bytes(), 0
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        try:
            found, held = read_description(path), read_tensors(path)
        except UserError:
            refused += 1
        else:
            assert found == described and held.keys() == tensors.keys()
            assert all(torch.equal(held[name], tensors[name]) for name in tensors), place
    assert 400 < refused < len(content)


@pytest.mark.parametrize("whole", [True, False])
def test_a_pt_file_is_a_state_dict_that_carries_its_description(tmp_path, whole):
    """For programs that know nothing of it, and with `weights_only`, which is how files from others are read."""
    saved, described = nano(guidance_embedding=True), {"role": "student", "diffusion": {"sigma_max": 40.0}}
    torch.save(pickled(saved.state_dict(), described), tmp_path / "student.pt", _use_new_zipfile_serialization=whole)
    held = torch.load(tmp_path / "student.pt", weights_only=True)
    assert list(held) == list(saved.state_dict()) and all(isinstance(tensor, torch.Tensor) for tensor in held.values())
    other = nano(guidance_embedding=True, seed=1)
    assert str(other.load_state_dict(held, strict=True)) == "<All keys matched successfully>"
    assert all(torch.equal(own, saved.state_dict()[name]) for name, own in other.state_dict().items())
    assert read_description(tmp_path / "student.pt") == described
    assert checkpoint_sha256(tmp_path / "student.pt") == tensors_sha256(saved.state_dict())
    torch.save({"state_dict": held, "step": 3}, tmp_path / "wrapped.pt")
    assert read_description(tmp_path / "wrapped.pt") == described
    held[ANCHOR].add_(1)  # by a program that knows nothing of the description
    torch.save(held, tmp_path / "other.pt")
    with pytest.raises(DataError, match="it is not what was written"):
        read_tensors(tmp_path / "other.pt")
    torch.save(dict(held), tmp_path / "other.pt")
    assert read_description(tmp_path / "other.pt") == {}
    assert torch.equal(read_tensors(tmp_path / "other.pt")[ANCHOR], held[ANCHOR])


def test_a_damaged_file_is_not_taken_for_the_same_weights(tmp_path):
    path, weights = tmp_path / "student.safetensors", {"w": torch.arange(6.0)}
    content = serialise(weights, {"role": "student", "sigmas": {"1": [80.0]}})
    path.write_bytes(content)
    assert has_weights(path, weights)
    path.write_bytes(content.replace(b"80.0", b"81.0"))
    assert not has_weights(path, weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    weights = nano().state_dict()
    next(iter(weights.values()))[0] = value
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pt"):
        save_file(weights, path) if path.suffix != ".pt" else torch.save(weights, path)
        with pytest.raises(DataError, match=r"has weights that are not finite \(1 of"):
            load_checkpoint(nano(), path)


@pytest.mark.parametrize(("value", "fits"), [(1e39, False), (-1e39, False), (3.4e38, True)])
def test_weights_that_float32_does_not_hold_are_refused(tmp_path, value, fits):
    """They would be infinite in the network."""
    weights = {name: tensor.double() for name, tensor in nano().state_dict().items()}
    weights["final_layer.linear.bias"][1] = value
    for path in (tmp_path / "a.safetensors", tmp_path / "a.pt"):
        save_file(weights, path) if path.suffix != ".pt" else torch.save(weights, path)
        if fits:
            load_checkpoint(nano(), path)
            continue
        with pytest.raises(
            DataError, match=r"not finite \(1 of \d+ tensors in float32, such as final_layer\.linear\.bias\)"
        ):
            load_checkpoint(nano(), path)
