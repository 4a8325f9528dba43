"""How a training uses its machines: ranks, precision, memory, what is watched, and when it is stopped."""
