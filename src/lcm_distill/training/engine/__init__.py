"""How a training uses its devices: ranks, sharding, precision and activation checkpointing."""
