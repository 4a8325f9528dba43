"""A GPU's memory that runs out."""

import gc

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.encoders.adaptive_batches import AdaptiveBatches
from tests.gpu.conftest import GPU

pytestmark = GPU


@pytest.fixture
def free() -> int:
    """Bytes that a batch may take."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def test_a_batch_that_does_not_fit_is_halved_until_it_does(free):
    def compute(items: torch.Tensor) -> torch.Tensor:
        """Two tensors of a twelfth an item are alive at a time, so six items fit."""
        large = items.cuda().view(-1, 1).expand(-1, free // 12).to(torch.uint8)
        return (large + 1)[:, -1].cpu()

    batches = AdaptiveBatches(compute, 64)
    with pytest.warns(UserWarning, match="does not fit the GPU's memory") as warned:
        assert batches(torch.arange(20)).tolist() == list(range(1, 21))
    assert [str(warning.message).split(": ")[1] for warning in warned] == [f"{n} from now on" for n in (10, 5)]
    assert batches.size == 5 and torch.cuda.memory_allocated() < free // 12


def test_what_does_not_fit_at_all_is_one_line(free):
    batches = AdaptiveBatches(lambda items: torch.empty(len(items), 2 * free, dtype=torch.uint8, device="cuda"), 2)
    with pytest.warns(UserWarning), pytest.raises(UserError, match="the GPU's memory is too small"):
        batches(range(2))
    assert torch.empty(free // 2, dtype=torch.uint8, device="cuda").numel() == free // 2
