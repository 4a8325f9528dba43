"""The mathematics of diffusion and consistency: tensors and functions, no files and no logging."""
