"""What every denoiser keeps: it takes coupling, reference cache and attention record, or says why not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.cache import ReferenceCache
from jedi_diffusion.joint.record import AttentionRecord
from jedi_diffusion.methods.conditioned import ConcatenationBaseline, JointWithTokens, TokenBaseline
from jedi_diffusion.methods.free_custom import MultiReferenceDenoiser
from jedi_diffusion.methods.image_tokens import LearnedTokens
from jedi_diffusion.methods.training_free import HiddenReferences
from tests.helpers.small_models import random_batch, tiny_unet


def learned(unet: Any) -> LearnedTokens:
    return LearnedTokens(unet.config.out_channels, unet.config.cross_attention_dim, 16, 2)


def multi_reference(backbone: UNetBackbone) -> MultiReferenceDenoiser:
    return MultiReferenceDenoiser(backbone, frozenset(backbone.attention_layers[-2:]), 3.0)


DENOISERS: dict[str, Callable[[Any, int], Any]] = {
    "backbone": lambda unet, _: UNetBackbone(unet),
    "hidden references": lambda unet, _: HiddenReferences(UNetBackbone(unet)),
    "multi-reference": lambda unet, _: multi_reference(UNetBackbone(unet)),
    "concatenation": lambda unet, _: ConcatenationBaseline(unet),
    "tokens": lambda unet, text: TokenBaseline(unet, learned(unet), text),
    "joint with tokens": lambda unet, text: JointWithTokens(unet, learned(unet), text),
}


@pytest.mark.parametrize("name", list(DENOISERS))
def test_a_denoiser_takes_every_argument_or_refuses_it_in_a_sentence(name: str) -> None:
    unet = make_joint(tiny_unet())
    batch = random_batch(unet, (2, 3), references=(0, 2))
    denoiser = DENOISERS[name](unet, batch.text.shape[1])
    noisy = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    time = torch.tensor(5)

    def ask(*given: Any, **more: Any) -> torch.Tensor | None:
        try:
            with torch.no_grad():
                return denoiser(noisy, time, *given, **more)
        except UsageError as error:
            said = str(error)
            assert said.endswith(".")
            assert len(said) < 200
            return None

    plain = ask(batch)
    assert plain is not None
    assert plain.shape == noisy.shape
    for coupling in ("joint", "cached"):
        made = ask(batch, coupling)
        assert made is None or made.shape == noisy.shape
    size = (noisy.shape[-2], noisy.shape[-1])
    record = AttentionRecord((0.5, 0.5))
    made = ask(batch, attention_record=record.writer(0, [1], size))
    if made is not None:
        assert torch.equal(made, plain), "recording changes nothing"
    with pytest.raises(UsageError):
        denoiser(noisy, time, batch, "joint", ReferenceCache().for_sets([None] * len(noisy)))
