"""What people open a trained model with in other tools: folders for diffusers, and model cards."""
