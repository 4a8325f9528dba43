"""From prompts to figures: generated images, their features, reference statistics and results."""
