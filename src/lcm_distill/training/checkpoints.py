"""Checkpoints that a training resumes from: one folder for each step, with a list of file hashes that is written last.

Tensors are stored by `torch.distributed.checkpoint`: every rank writes its share, and any number of ranks can read it.
Rank 0 commits the folder once all have written.
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
"""Step, and fingerprint of the training."""
HASHES = "SHA256SUMS"
"""Hex SHA-256 of every file, in the format of `sha256sum`."""

Decision = TypeVar("Decision")


class Checkpoints:
    """The checkpoints of one training in one folder. `save`, `load` and `load_latest` are collective calls.

    Args:
        fingerprint: identity of the training; checkpoints of another one are refused.
        keep: number of newest checkpoints to keep on disk.
        background: write in a thread while training continues, which pays where tensors are on a GPU. It needs a
            process group, even for a single process.
    """

    def __init__(self, folder: Path, fingerprint: str, keep: int = 2, background: bool = False) -> None:
        self.folder, self.fingerprint, self.keep = folder, fingerprint, keep
        self._background = _Background() if background else None
        self._is_main = not dist.is_initialized() or dist.get_rank() == 0

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocate pinned memory for copies of such tensors in the background: pinning gigabytes takes seconds."""
        if self._background is not None:
            self._background.reserve(tensors)

    def save(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Commit `tensors` after `step` steps, then delete the oldest checkpoints.

        In the background the call returns once the tensors are copied.
        """
        if self._background is None:
            self._write(step, tensors, None)
            return
        self.wait()
        group, copies = self._background.group, self._background.copy(tensors)
        self._background.start(lambda: self._write(step, copies, group))

    def wait(self) -> None:
        """Wait until saved checkpoints are committed.

        Raises:
            OSError: the checkpoint could not be written.
        """
        if self._background is not None:
            self._background.finish()

    def load_latest(self, tensors: Callable[[], Mapping[str, Tensor]]) -> int | None:
        """Fill tensors from the newest intact checkpoint and return its step.

        A warning names each damaged checkpoint, and the one before it is used.

        Args:
            tensors: called only if there is a checkpoint.

        Returns:
            The step; None if there is no checkpoint.

        Raises:
            DataError: every checkpoint is damaged.
            UserError: the checkpoint belongs to a training with other settings.
        """
        step = _decide_on_main(self._newest_intact)
        if step is not None:
            self.load(step, tensors())
        return step

    def load(self, step: int, tensors: Mapping[str, Tensor]) -> None:
        """Fill `tensors` from the checkpoint of a step, which may hold further tensors."""
        with _without_single_process_warning():
            load(dict(tensors), storage_reader=FileSystemReader(self._path(step)))

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def damage(self, step: int) -> str | None:
        """A short description of damage to the files of a step's checkpoint; None if they are as they were written."""
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
        if not self._is_main:
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

    def _newest_intact(self) -> int | None:
        steps = self.steps()
        for step in reversed(steps):
            damage = self.damage(step)
            if damage is None:
                self._require_own(step)
                return step
            before = ": training resumes from the one before" if step != steps[0] else ""
            warnings.warn(f"checkpoint damaged: {damage}{before}", stacklevel=2)
        if steps:
            raise DataError(
                f"every checkpoint in {self.folder} is damaged: delete the folder, and training starts from scratch"
            )
        return None

    def _require_own(self, step: int) -> None:
        about = self._path(step) / ABOUT
        if not about.is_file() or json.loads(about.read_text())["fingerprint"] != self.fingerprint:
            raise UserError(f"{self.folder} was trained with other settings: choose another --run, or delete it")

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:07d}"


class _Background:
    """One thread that writes, with a process group of its own so that its messages cannot mix with others."""

    def __init__(self) -> None:
        self.group = dist.new_group(backend="gloo")
        self._copies: dict[str, Tensor] = {}
        self._thread = _thread_on_this_device()
        self._written: Future[None] | None = None

    @torch.no_grad()
    def copy(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Copies in CPU memory, of the same shapes and tensor types; the next call overwrites them."""
        self._allocate(tensors)
        for name, tensor in tensors.items():
            for copy, part in zip(_parts(self._copies[name]), _parts(tensor), strict=True):
                copy.copy_(part, non_blocking=True)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return {name: self._copies[name] for name in tensors}

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocate memory for copies in the thread."""
        self.start(lambda: self._allocate(tensors))

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in the thread."""
        self._written = self._thread.submit(work)

    def finish(self) -> None:
        """Wait for the last work, and raise its error if there was one."""
        if self._written is not None:
            self._written.result()
            self._written = None

    def _allocate(self, tensors: Mapping[str, Tensor]) -> None:
        for name in tensors.keys() - self._copies.keys():
            self._copies[name] = _empty_on_cpu(tensors[name])


def _thread_on_this_device() -> ThreadPoolExecutor:
    """A thread with the current GPU of the calling thread; otherwise it would open a context on GPU 0."""
    if not torch.cuda.is_initialized():
        return ThreadPoolExecutor(1, "checkpoint")
    return ThreadPoolExecutor(1, "checkpoint", torch.cuda.set_device, (torch.cuda.current_device(),))


def _empty_on_cpu(tensor: Any) -> Any:
    """An uninitialised tensor of the same kind on the CPU, pinned if the original is on a GPU.

    DTensors and quantised tensors remain such, with their parts on the CPU.
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
    """The plain tensors inside a tensor: itself, a DTensor's local tensor, or the codes and scales of an 8-bit one."""
    if hasattr(tensor, "__tensor_flatten__"):
        for name in tensor.__tensor_flatten__()[0]:
            yield from _parts(getattr(tensor, name))
    elif isinstance(tensor, Tensor):
        yield tensor


def _save(folder: Path, tensors: Mapping[str, Tensor], group: Any) -> None:
    with _without_single_process_warning():
        save(dict(tensors), storage_writer=FileSystemWriter(folder), process_group=group)


@contextmanager
def _without_single_process_warning() -> Generator[None]:
    """Suppress PyTorch's warning that there is no process group, which a single process does not need."""
    if dist.is_initialized():  # perhaps in a thread, where changing warning filters is not safe
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _broadcast(value: Any, group: Any) -> Any:
    """Rank 0's value, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=group)
    return box[0]


def _decide_on_main(decide: Callable[[], Decision]) -> Decision:
    """The result of `decide` on rank 0, or the `UserError` that it raised there, on every rank."""
    decided: Any = None
    if not dist.is_initialized() or dist.get_rank() == 0:
        try:
            decided = decide()
        except UserError as error:
            decided = error
    decided = _broadcast(decided, None)
    if isinstance(decided, UserError):
        raise decided
    return cast(Decision, decided)
