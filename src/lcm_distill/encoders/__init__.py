"""The VAE between images and latents, and the text encoder from captions to token embeddings."""
