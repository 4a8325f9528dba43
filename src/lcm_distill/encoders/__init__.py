"""Between images and latents, and from captions to token embeddings."""
