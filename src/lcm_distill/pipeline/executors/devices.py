"""How workers of one machine share its GPUs."""


def worker_gpu(number: int, device: str) -> str | None:
    """The GPU (`cuda:N`) of the worker or rank with this number on its machine; None if all use the configured device.

    Args:
        number: counted from 0.
        device: the configured device.
    """
    gpus = shared_gpus(device)
    return f"cuda:{number % gpus}" if gpus else None


def shared_gpus(device: str) -> int:
    """How many GPUs the workers of this machine share; 0 if the configured device is one GPU or a CPU."""
    return count_gpus() if device in ("auto", "cuda") else 0


def count_gpus() -> int:
    """CUDA devices of this machine that this process may use."""
    import torch

    return torch.cuda.device_count()


def count_threads() -> int:
    """Threads that PyTorch uses for an operation on the CPU."""
    import torch

    return torch.get_num_threads()
