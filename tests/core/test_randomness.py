"""Addressed random numbers: streams that never change, and seeds of 64 bits."""

import pytest
import torch

from lcm_distill.core.errors import UserError
from lcm_distill.core.randomness import normal, permutation, uniform

RECORDED = [
    (
        0,
        [[0.2132253795862198, -1.0613378286361694], [-2.3075129985809326, 0.6828699707984924]],
        [0.23242777585983276],
        [0, 1, 2, 3, 5, 4],
    ),
    (
        7,
        [[1.6561708450317383, 2.4018709659576416], [1.7361717224121094, 0.2900821566581726]],
        [0.8802307844161987],
        [4, 2, 3, 1, 5, 0],
    ),
    (
        4611686018427387907,
        [[-2.1784346103668213, 0.8667528033256531], [-0.621562659740448, 0.015660468488931656]],
        [0.5747582316398621],
        [4, 0, 2, 5, 1, 3],
    ),
    (
        9223372036854775807,
        [[1.5519781112670898, 0.7065777778625488], [1.2142678499221802, 0.261544406414032]],
        [0.959217369556427],
        [3, 4, 2, 1, 5, 0],
    ),
]


@pytest.mark.parametrize(("seed", "normals", "uniforms", "order"), RECORDED)
def test_streams_are_what_they_have_always_been(seed, normals, uniforms, order):
    """Recorded; they are part of every result."""
    assert torch.equal(normal(seed, "generate", 3, [5, 2**40], (2,)), torch.tensor(normals))
    assert uniform(seed, "guidance", 9, [1]).tolist() == uniforms
    assert permutation(seed, "order", 2, 6).tolist() == order


@pytest.mark.parametrize("where", ["seed", "index"])
def test_neighbours_above_two_to_the_63_differ(where):
    numbers = [2**63 - 1, 2**63, 2**63 + 1, 2**63 + 1024, 2**64 - 1]
    drawn = [normal(n, "x", 0, [0], (4,)) if where == "seed" else normal(0, "x", 0, [n], (4,)) for n in numbers]
    assert len({tuple(values.flatten().tolist()) for values in drawn}) == len(numbers)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seeds_beyond_64_bits_are_refused(seed):
    with pytest.raises(UserError, match=f"seed is {seed}: it must be a whole number from 0 to"):
        uniform(seed, "x", 0, [0])
