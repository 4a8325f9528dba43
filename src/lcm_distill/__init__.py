"""Latent consistency distillation of MicroDiT: precompute, distill, evaluate."""

import logging

# Where torchao is installed diffusers and peft import it, and then it is warned of what nothing here uses.
for _speaker in ("diffusers.quantizers", "torch.utils._pytree"):
    logging.getLogger(_speaker).setLevel(logging.ERROR)
