"""What is asked of the parts of a model, whoever made them: their configuration, and its autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar, overload

from jedi_diffusion.errors import ModelError

if TYPE_CHECKING:  # the command line reads models' names without torch
    import torch
    from torch import Tensor, nn

Value = TypeVar("Value", bool, int, float, str)
Config = Mapping[str, object]
"""What diffusers stores of a part beside its weights: plain JSON values by name."""


@overload
def setting(config: Config, name: str, kind: type[Value]) -> Value: ...
@overload
def setting(config: Config, name: str, kind: type[Value], default: Value) -> Value: ...
def setting(config: Config, name: str, kind: type[Value], default: Value | None = None) -> Value:
    """Return a value of a configuration; the default where it is missing or null.

    Raises ModelError for a value of another kind, and for a missing one without a default.
    """
    value = config.get(name)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) != (kind is bool) or not isinstance(
        value, (int, float) if kind is float else kind
    ):
        raise ModelError(
            f"A part of the model is configured with {name} {value!r}, which is no {kind.__name__}."
        )
    return kind(value)


class LatentDistribution(Protocol):
    """What an autoencoder's encoder knows of latents (B, C, H, W)."""

    def mode(self) -> Tensor: ...


class Encoded(Protocol):
    """Images, encoded."""

    @property
    def latent_dist(self) -> LatentDistribution: ...


class Decoded(Protocol):
    """Latents, decoded: images (B, 3, H, W)."""

    @property
    def sample(self) -> Tensor: ...


class Autoencoder(Protocol):
    """Images (B, 3, H, W) in [-1, 1] to latents (B, C, H, W) and back, as diffusers' autoencoders do it."""

    @property
    def config(self) -> Config: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def __call__(self, images: Tensor, /) -> Decoded: ...

    def encode(self, images: Tensor, /) -> Encoded: ...

    def decode(self, latents: Tensor, /) -> Decoded: ...
