"""Checkpoints a run resumes from: one folder a step, hash-listed, the list written last.

Tensors go through `torch.distributed.checkpoint`: every rank writes its share, and what some ranks wrote is read by any
other number of them. The first rank commits what all have written.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load  # pyright: ignore[reportUnknownVariableType]
from torch.distributed.checkpoint.state_dict_saver import save  # pyright: ignore[reportUnknownVariableType]

from lcm_distill.core.errors import DataError, UserError
from lcm_distill.core.hashing import file_sha256
from lcm_distill.pipeline.atomic import commit_bytes, commit_folder

ABOUT = "about.json"
HASHES = "SHA256SUMS"

Agreed = TypeVar("Agreed")


class Checkpoints:
    """The checkpoints below one folder, of one training identified by its fingerprint. Every rank calls alike.

    Args:
        keep: how many of the newest stay on disk.
        background: write in a thread while training goes on. It pays where tensors are on a GPU; ranks then need a
            process group, and so does a process alone.
    """

    def __init__(self, folder: Path, fingerprint: str, keep: int = 2, background: bool = False) -> None:
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep
        self._background = _Background() if background else None
        self._leads = not dist.is_initialized() or dist.get_rank() == 0

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room to copy such tensors to while training goes on: pinning gigabytes takes seconds."""
        if self._background is not None:
            self._background.reserve(tensors)

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Commit `tensors` after `step` steps, then drop the oldest; in the background, once they are copied."""
        if self._background is None:
            self._write(step, tensors, None)
            return
        self.wait()
        group, copies = self._background.group, self._background.copy(tensors)
        self._background.start(lambda: self._write(step, copies, group))

    def wait(self) -> None:
        """Until what was saved is committed.

        Raises:
            OSError: it could not be written.
        """
        if self._background is not None:
            self._background.finish()

    def load_latest(self, tensors: Callable[[], Mapping[str, Tensor]]) -> int | None:
        """Fill tensors from the newest sound checkpoint and say its step; None, and not asked, when there is none.

        A checkpoint that is not what was written is named in a warning, and the one before it is taken.

        Raises:
            DataError: none of them is sound.
            UserError: it belongs to a training with other settings.
        """
        step = _agree(self._newest_sound)
        if step is not None:
            self.load(step, tensors())
        return step

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Fill `tensors` from the checkpoint of a step, which may hold more than these."""
        with _alone_without_a_word():
            load(dict(tensors), storage_reader=FileSystemReader(self._path(step)))

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def damage(self, step: int) -> str | None:
        """What is wrong with the bytes of a step's checkpoint, in a few words; None if they are what was written."""
        folder = self._path(step)
        if not (folder / HASHES).is_file():
            return f"{folder / HASHES} is missing"
        for line in (folder / HASHES).read_text().splitlines():
            sha256, name = line.split("  ")
            if not (folder / name).is_file():
                return f"{folder / name} is missing"
            if file_sha256(folder / name) != sha256:
                return f"{folder / name} is not what was written"
        return None

    def _write(self, step: int, tensors: Mapping[str, Tensor], group: Any) -> None:
        if not self._leads:
            _save(_broadcast(None, group), tensors, group)
            return

        def fill(folder: Path) -> None:
            _save(_broadcast(folder, group), tensors, group)
            (folder / ABOUT).write_text(json.dumps({"step": step, "fingerprint": self.fingerprint}))
            files = sorted(path for path in folder.iterdir() if path.is_file())
            commit_bytes(folder / HASHES, "".join(f"{file_sha256(path)}  {path.name}\n" for path in files).encode())

        commit_folder(self._path(step), fill)
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self._path(old))

    def _newest_sound(self) -> int | None:
        steps = self.steps()
        for step in reversed(steps):
            damage = self.damage(step)
            if damage is None:
                self._require_own(step)
                return step
            before = ": training goes on from the one before" if step != steps[0] else ""
            warnings.warn(f"checkpoint damaged: {damage}{before}", stacklevel=2)
        if steps:
            raise DataError(
                f"every checkpoint in {self.folder} is damaged: delete the folder, and training starts anew"
            )
        return None

    def _require_own(self, step: int) -> None:
        about = self._path(step) / ABOUT
        if not about.is_file() or json.loads(about.read_text())["fingerprint"] != self.fingerprint:
            raise UserError(f"{self.folder} was trained with other settings: choose another --run, or delete it")

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"


class _Background:
    """One thread that writes, with a process group of its own so that its messages meet no others."""

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo")
        self._copies: dict[str, Tensor] = {}
        self._thread = _thread_on_this_device()
        self._written: Future[None] | None = None

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copies in CPU memory, of the same shapes and kinds; the next call fills the same memory again."""
        self._allocate(tensors)
        for name, tensor in tensors.items():
            for copy, part in zip(_parts(self._copies[name]), _parts(tensor), strict=True):
                copy.copy_(part, non_blocking=True)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return {name: self._copies[name] for name in tensors}

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        self.start(lambda: self._allocate(tensors))

    def start(self, work: Callable[[], None]) -> None:
        self._written = self._thread.submit(work)

    def finish(self) -> None:
        if self._written is not None:
            self._written.result()
            self._written = None

    def _allocate(self, tensors: Mapping[str, Tensor]) -> None:
        for name in tensors.keys() - self._copies.keys():
            self._copies[name] = _empty_on_cpu(tensors[name])


def _thread_on_this_device() -> ThreadPoolExecutor:
    """A thread whose current GPU is this one's; by itself it would open a context on the first."""
    if not torch.cuda.is_initialized():
        return ThreadPoolExecutor(1, "checkpoint")
    return ThreadPoolExecutor(1, "checkpoint", torch.cuda.set_device, (torch.cuda.current_device(),))


def _empty_on_cpu(tensor: Any) -> Any:
    """A tensor like it, in CPU memory that is pinned where a GPU will be read.

    A DTensor remains one, over a local tensor on the CPU, and so does a quantised tensor.
    """
    if not isinstance(tensor, Tensor):  # a DTensor's device mesh
        return tensor
    if not hasattr(tensor, "__tensor_flatten__"):
        return torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    kind: Any = type(tensor)
    names, context = kind.__tensor_flatten__(tensor)
    parts = {name: _empty_on_cpu(getattr(tensor, name)) for name in names}
    return kind.__tensor_unflatten__(parts, context, tensor.shape, tensor.stride())


def _parts(tensor: Any) -> Iterator[Tensor]:
    """The plain tensors that hold the values of one: itself, a DTensor's local tensor, codes and scales in 8 bit."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    elif isinstance(tensor, Tensor):
        yield tensor


def _save(folder: Path, tensors: Mapping[str, Tensor], group: Any) -> None:
    with _alone_without_a_word():
        save(dict(tensors), storage_writer=FileSystemWriter(folder), process_group=group)


@contextmanager
def _alone_without_a_word() -> Generator[None]:
    """Without a process group there is one process, which PyTorch thinks worth a warning."""
    if dist.is_initialized():  # and perhaps in a thread, where filters of warnings must be left alone
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _broadcast(value: Any, group: Any) -> Any:
    """The first rank's value."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def _agree(decide: Callable[[], Agreed]) -> Agreed:
    """What the first rank decides, or the error it meets, on every rank."""
    decided: Any = None
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            decided = decide()
        except UserError as error:
            decided = error
    decided = _broadcast(decided, None)
    if isinstance(decided, UserError):
        raise decided
    return cast(Agreed, decided)
