"""`python -m lcm_distill` is `lcm`."""

from lcm_distill.cli import main

main()
