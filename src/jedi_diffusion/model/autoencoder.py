"""Where saved models look for the small model's autoencoder (`model_index.json`)."""

from jedi_diffusion.networks.autoencoder import PatchAutoencoder

__all__ = ["PatchAutoencoder"]
