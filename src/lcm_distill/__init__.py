"""Latent consistency distillation of MicroDiT: precompute, distill, evaluate."""

import logging

# Without a log file nothing is written, to the terminal least of all.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Where torchao is installed diffusers and peft import it, and then it is warned of what nothing here uses.
for _speaker in ("diffusers.quantizers", "torch.utils._pytree"):
    logging.getLogger(_speaker).setLevel(logging.ERROR)
