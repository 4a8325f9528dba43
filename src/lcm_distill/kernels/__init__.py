"""Fused kernels for GPUs: chains of elementwise operations in one pass, and as plain PyTorch elsewhere."""
