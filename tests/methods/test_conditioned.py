"""The finetuning-free methods: what each network reads, one way to train them all, and their pictures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.joint.attention import SetReads
from jedi_diffusion.joint.loss import JointLoss
from jedi_diffusion.joint.process import Diffusion
from jedi_diffusion.methods.conditioned import (
    ConcatenationBaseline,
    Conditioned,
    JointWithTokens,
    TokenBaseline,
)
from jedi_diffusion.methods.image_tokens import (
    ClipFeatures,
    DecoupledProcessor,
    LearnedTokens,
    PictureTokens,
    remove_image_layers,
    tokens_of_sets,
)
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_models import (
    TEXT_TOKENS,
    TEXT_WIDTH,
    random_batch,
    randomize_new_channels,
    tiny_unet,
)
from tests.helpers.small_pipelines import make_text_encoder, make_tokenizer, sd_parts

STEP = torch.tensor(300)


def joint_unet() -> Any:
    return randomize_new_channels(make_joint(tiny_unet()))


def clip_tokens() -> PictureTokens:
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
        projection_dim=12,
    )
    clip = CLIPVisionModelWithProjection(config)
    return PictureTokens(ClipFeatures(clip, lambda latents: latents[:, :3]), 12, TEXT_WIDTH, tokens=2)


def learned_tokens() -> LearnedTokens:
    torch.manual_seed(4)
    return LearnedTokens(4, TEXT_WIDTH, width=16, side=2)


METHODS: dict[str, Callable[[], nn.Module]] = {
    "clip": lambda: TokenBaseline(joint_unet(), clip_tokens(), TEXT_TOKENS),
    "learned": lambda: TokenBaseline(joint_unet(), learned_tokens(), TEXT_TOKENS),
    "concatenation": lambda: ConcatenationBaseline(joint_unet()),
    "jedi and clip": lambda: JointWithTokens(joint_unet(), clip_tokens(), TEXT_TOKENS),
}


def set_values(denoiser: Any, factor: float) -> None:
    """As if trained: values of image tokens away from zero."""
    random = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for layer in denoiser.layers.values():
            layer.to_v.weight.copy_(torch.randn(layer.to_v.weight.shape, generator=random) * factor)


def noise_like(x: Tensor, seed: int = 5) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))


def test_decoupled_attention_against_its_formula() -> None:
    denoiser: Any = METHODS["learned"]()
    set_values(denoiser, 0.5)
    layer = next(iter(denoiser.layers.values()))
    name = next(iter(denoiser.layers)).replace("-", ".").removesuffix(".processor")
    attn = denoiser.denoiser.unet.get_submodule(name)
    x, text, tokens = (
        noise_like(torch.empty(s), k) for k, s in enumerate([(2, 9, 32), (2, 7, 24), (2, 5, 24)])
    )
    tokens[0, 3:] = 0
    with torch.no_grad():
        found = attn(x, encoder_hidden_states=torch.cat([text, tokens], 1))
        plain = attn(x, encoder_hidden_states=text)
        assert torch.equal(plain, layer.stock(attn, x, text))
        for picture, seen in ((0, 3), (1, 5)):
            q, own = attn.to_q(x[picture]), tokens[picture, :seen]
            k, v = layer.to_k(own), layer.to_v(own)
            size = q.shape[1] // attn.heads
            heads = [slice(h * size, (h + 1) * size) for h in range(attn.heads)]
            mixed = torch.cat(
                [(q[:, h] @ k[:, h].T / size**0.5).softmax(-1) @ v[:, h] for h in heads], dim=-1
            )
            both = layer.stock(attn, x[picture : picture + 1], text[picture : picture + 1])[0]
            expected = both + mixed @ attn.to_out[0].weight.T
            assert torch.allclose(found[picture], expected, atol=1e-5)


def test_every_picture_reads_the_references_of_its_own_set() -> None:
    batch = random_batch(tiny_unet(), (3, 1, 2), references=(0, 1, 5))
    encoder = learned_tokens()
    with torch.no_grad():
        tokens = tokens_of_sets(encoder, batch)
        one = [encoder(batch.latents[row : row + 1])[0] for row in range(6)]
    assert tokens.shape == (6, 8, TEXT_WIDTH)
    for row in range(3):
        assert torch.allclose(tokens[row], torch.cat([one[0], one[1]]), atol=1e-6)
    assert not tokens[3].any()
    for row in (4, 5):
        assert torch.allclose(tokens[row, :4], one[5], atol=1e-6)
        assert not tokens[row, 4:].any()


@pytest.mark.parametrize("name", ["clip", "learned", "jedi and clip"])
def test_untrained_token_methods_are_their_backbone(name: str) -> None:
    plain, method = UNetBackbone(joint_unet()), METHODS[name]()
    batch = random_batch(plain.unet, (2, 1), references=(0,))
    noisy = noise_like(batch.latents)
    with torch.no_grad():
        found = method(noisy, STEP, batch)
        if name == "jedi and clip":
            expected = plain(noisy, STEP, batch)
        else:
            expected = plain(
                noisy, STEP, replace(batch, mask=torch.ones_like(batch.mask), set_sizes=(1, 1, 1))
            )
            expected[0] = 0
        assert torch.allclose(found, expected, atol=1e-5)
        set_values(method, 1.0)
        trained = method(noisy, STEP, batch)
    assert not torch.allclose(trained[1], expected[1], atol=1e-2), "the target reads its reference"
    assert torch.allclose(trained[2], expected[2], atol=1e-5), "without references nothing is added"


def test_the_concatenation_baseline_reads_the_first_reference_in_channels() -> None:
    method: Any = METHODS["concatenation"]()
    batch = random_batch(method.single.unet, (3, 1), references=(1, 2))
    noisy = noise_like(batch.latents)
    reference = batch.latents[1:2]
    ones, zeros = torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    with torch.no_grad():
        found = method(noisy, STEP, batch)
        rows = {
            0: torch.cat([noisy[:1], zeros, reference], 1),
            3: torch.cat([noisy[3:], ones, torch.zeros_like(reference)], 1),
        }
        for row, given in rows.items():
            text = batch.text[row : row + 1]
            expected = method.single.unet(
                given, STEP, text, cross_attention_kwargs={"reads": SetReads((1,))}
            ).sample
            assert torch.allclose(found[row], expected[0], atol=1e-5)
    assert not found[1:3].any()


@pytest.mark.parametrize("name", list(METHODS))
def test_training_lowers_the_joint_loss(name: str) -> None:
    method = METHODS[name]()
    unet = (method.single if name == "concatenation" else method.denoiser).unet
    batch = random_batch(unet, (2, 3), references=(0, 2))
    loss = JointLoss(Diffusion(torch.linspace(0.99, 0.01, 1000)))
    frozen = [each for each in method.parameters() if not each.requires_grad]
    before = [each.clone() for each in frozen]
    optimizer = torch.optim.AdamW([each for each in method.parameters() if each.requires_grad], 3e-3)
    losses = []
    for _ in range(6):
        value = loss(method, batch, torch.Generator().manual_seed(0), coupling="cached")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert bool(frozen) == ("clip" in name)
    assert all(torch.equal(a, b) for a, b in zip(frozen, before, strict=True))
    if name != "concatenation":
        values = [layer.to_v.weight for layer in method.layers.values()]
        learned = [each for each in method.encoder.parameters() if each.requires_grad]
        assert all(each.any() for each in values)
        assert all(each.grad is not None and each.grad.any() for each in learned)


def test_image_layers_come_off() -> None:
    plain = joint_unet()
    method: Any = TokenBaseline(joint_unet(), learned_tokens(), TEXT_TOKENS)
    unet = method.denoiser.unet
    assert any(isinstance(each, DecoupledProcessor) for each in unet.modules())
    remove_image_layers(unet)
    assert unet.state_dict().keys() == plain.state_dict().keys()
    batch = random_batch(unet, (2,), references=(0,))
    noisy = noise_like(batch.latents)
    with torch.no_grad():
        assert torch.equal(UNetBackbone(unet)(noisy, STEP, batch), UNetBackbone(plain)(noisy, STEP, batch))


class Counted(nn.Module):
    """An encoder that counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.calls = learned_tokens(), 0

    def forward(self, latents: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(latents)


@pytest.mark.parametrize("name", ["token", "concatenation", "joint"])
def test_pictures_show_the_references_and_nothing_of_other_prompts(name: str) -> None:
    tokenizer = make_tokenizer(TEXT_TOKENS + 9)
    parts = sd_parts(in_channels=9) | {
        "tokenizer": tokenizer,
        "text_encoder": make_text_encoder(tokenizer, TEXT_WIDTH),
    }
    pipe: Any = JeDiPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    encoder = Counted()
    build: dict[str, Callable[[], nn.Module]] = {
        "token": lambda: TokenBaseline(pipe.unet, encoder, tokenizer.model_max_length),
        "concatenation": lambda: ConcatenationBaseline(pipe.unet),
        "joint": lambda: JointWithTokens(pipe.unet, encoder, tokenizer.model_max_length),
    }
    denoiser = build[name]()
    if name != "concatenation":
        set_values(denoiser, 1.0)
    method = Conditioned(pipe, denoiser, {"num_inference_steps": 3, "height": 32, "width": 32})
    dark, light = (Image.new("RGB", (32, 32), (value,) * 3) for value in (0, 255))
    two = method([dark], ["a dog"], ["a robot", "a dog"], [1, 2])
    other = method([light], ["a dog"], ["a robot", "a dog"], [1, 2])
    alone = method([dark], ["a dog"], ["a dog"], [2])
    assert all(not np.array_equal(a, b) for a, b in zip(two, other, strict=True))
    assert np.abs(np.asarray(two[1], int) - np.asarray(alone[0], int)).max() <= 1
    assert encoder.calls == (0 if name == "concatenation" else 3), "once a call, not once a step"
    with pytest.raises(UsageError, match="coupling 'joint'"):
        Conditioned(pipe, denoiser, {"coupling": "cached"})
