"""What lies on disk: sources, catalog, latent cache, and the batches that training reads."""
