"""Latent consistency distillation of MicroDiT: precompute, distill, evaluate."""
