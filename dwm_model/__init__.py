"""The model: conditioning, latents, training, sampling, metrics and benchmark."""
