"""A second family of networks enters by one class: a small flow-matching transformer that is no UNet."""

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from PIL import Image
from torch import nn

from jedi_diffusion import backbones
from jedi_diffusion.backbones.base import Backbone
from jedi_diffusion.backbones.text import encode_text
from jedi_diffusion.errors import ModelError
from jedi_diffusion.joint import JointLoss
from jedi_diffusion.pipeline import JeDiPipeline
from jedi_diffusion.randomness import seeded_generator
from jedi_diffusion.sets import SetBatch
from tests.helpers.small_pipelines import sd_parts


class Mixer(ModelMixin, ConfigMixin):
    """One layer of attention over all tokens of a set."""

    @register_to_config
    def __init__(self, channels: int = 4, width: int = 16, sample_size: int = 4) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(2 * channels + 2, width), nn.Linear(width, channels)
        self.mix, self.text = nn.Linear(width, 3 * width), nn.LazyLinear(width)

    def forward(self, tokens, text, reads):
        hidden = self.enter(tokens) + self.text(text.mean(1, keepdim=True))
        query, key, value = self.mix(hidden).unflatten(-1, (3, 2, -1)).unbind(2)
        return self.leave(hidden + reads.attend("mix", query, key, value).flatten(2))


class MixerBackbone(Backbone):
    lora_targets, shard_units = "mix", ()

    def __init__(self, mixer):
        super().__init__()
        self.mixer = mixer

    network = property(lambda self: self.mixer)
    attention_layers = ("mix",)
    latent_channels = property(lambda self: self.mixer.config.channels)
    make_joint = couple = classmethod(lambda cls, network, distance_slope=None: None)
    is_coupled = classmethod(lambda cls, network: True)

    def encode_text(self, reader, captions, device):
        return encode_text(captions, reader, device)

    def example_conditions(self, count, text_tokens):
        return {"text": torch.zeros(count, text_tokens, 16)}

    def predict(self, noisy, timestep, batch, reads):
        time = torch.as_tensor(timestep).float().view(-1, 1, 1, 1).expand(len(noisy), 1, *noisy.shape[2:])
        mask = batch.mask.expand_as(time)
        seen = torch.cat([noisy, batch.reference_latents, mask, time], dim=1)
        out = self.mixer(seen.flatten(2).mT, batch.text, reads)
        return out.mT.unflatten(2, noisy.shape[2:])


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> JeDiPipeline:
    monkeypatch.setitem(backbones.FAMILIES, "Mixer", f"{__name__}.MixerBackbone")
    parts = sd_parts() | {"unet": None, "scheduler": FlowMatchEulerDiscreteScheduler()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mixer = Mixer()
        mixer.text(torch.zeros(1, 1, parts["text_encoder"].config.hidden_size))
    made = JeDiPipeline(**parts, transformer=mixer)
    made.set_progress_bar_config(disable=True)
    return made


def photo(value: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (value, 90, 255 - value))


def draw(pipe: JeDiPipeline, *references: Image.Image, **settings) -> np.ndarray:
    generators = [seeded_generator(seed) for seed in (3, 4)]
    settings = {"num_inference_steps": 3, "output_type": "np", "generator": generators} | settings
    return pipe(["a robot", "a dog"], references, "a cup", **settings).images


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_the_pipeline_samples_it_with_references_and_guidance(pipe: JeDiPipeline, coupling: str) -> None:
    dark, light = (draw(pipe, photo(value), coupling=coupling) for value in (0, 255))
    assert dark.shape == (2, 32, 32, 3)
    assert np.isfinite(dark).all()
    assert not np.allclose(dark, light, atol=1e-3)
    np.testing.assert_array_equal(dark, draw(pipe, photo(0), coupling=coupling))
    alone = pipe("a dog", [photo(0)], "a cup", num_inference_steps=3, coupling=coupling, output_type="np",
                 generator=[seeded_generator(4)]).images  # fmt: skip
    np.testing.assert_allclose(alone[0], dark[1], atol=1e-5)


def test_the_cache_gives_what_one_masked_pass_would(pipe: JeDiPipeline) -> None:
    backbone = pipe.backbone
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([0.0, 0, 1]).view(3, 1, 1, 1)
    text = torch.randn(3, 2, pipe.text_encoder.config.hidden_size, generator=torch.Generator().manual_seed(1))
    batch = SetBatch(latents, mask, {"text": text}, (3,))
    times = torch.full((3,), 0.5)
    with torch.no_grad():
        whole = backbone(latents, times, batch, "cached")[2:]
        cache = backbone.fill_cache(batch.select([0, 1], (2,)))
        target = batch.select([2], (1,))
        read = backbone(latents[2:], times[2:], target, "cached", cache.for_sets([0]))
    torch.testing.assert_close(read, whole)


def test_it_learns_sets_by_the_same_loss(pipe: JeDiPipeline) -> None:
    latents = torch.randn(8, 4, 4, 4, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, dim=0)
    mask = torch.tensor([0.0, 1.0]).repeat(8).view(16, 1, 1, 1)
    with torch.no_grad():
        batch = SetBatch(latents, mask, pipe.encode_captions(["a dog"] * 16), (2,) * 8)
    loss = JointLoss.from_scheduler(pipe.scheduler)
    optimizer = torch.optim.Adam(pipe.network.parameters(), 2e-2)
    values = []
    for step in range(150):
        value = loss(pipe.backbone, batch, torch.Generator().manual_seed(step), "cached")
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert np.mean(values[-30:]) < 0.9 * np.mean(values[:10])


def test_a_network_of_no_known_family_is_named(pipe: JeDiPipeline) -> None:
    with pytest.raises(ModelError, match="A Linear cannot be made joint"):
        backbones.family_of(nn.Linear(1, 1))
    with pytest.raises(ModelError, match="neither a unet nor a transformer"):
        JeDiPipeline(**sd_parts() | {"unet": None})
