"""The cache of latents and text embeddings."""
