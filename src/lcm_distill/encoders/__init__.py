"""Between pictures and latents, and from captions to token embeddings."""
