"""Chains of elementwise operations as single kernels on a GPU, and as plain PyTorch elsewhere."""
