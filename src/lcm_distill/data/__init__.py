"""Data on disk: data sets, their catalog, the latent cache, and training batches."""
