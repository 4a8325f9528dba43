"""Triton kernels, imported when the first one is launched: a machine without a GPU needs no Triton."""
