"""The metric protocols that ship, a module for each feature network; `lcm_distill.metrics.registry` lists them."""
