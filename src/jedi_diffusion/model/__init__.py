"""Kept for saved models, which name classes by module; the rest is in `joint`, `backbones`, `networks`."""


def __getattr__(name: str) -> None:
    raise AttributeError(
        f"jedi_diffusion.model.{name} has moved: look in jedi_diffusion.joint, .backbones and .networks."
    )
