"""Operations of sampling: counted without data, against what real passes do and against closed forms."""

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.flux2 import Flux2Backbone
from jedi_diffusion.flops import SamplingFlops, count_sampling
from jedi_diffusion.joint.guidance import plan_guidance
from jedi_diffusion.models import outline, own_size
from jedi_diffusion.pipeline import JeDiPipeline
from tests.helpers.small_flux2 import KLEIN_4B
from tests.helpers.small_klein import klein_parts, save_klein
from tests.helpers.small_mmdit import tiny_flux, tiny_sd3
from tests.helpers.small_models import tiny_unet
from tests.helpers.small_pipelines import save_joint, save_sdxl, sd_parts


def test_klein_4b_with_three_references_of_a_megapixel_over_text_to_image():
    """Over 4 steps, on shapes alone: the bars of what a joint-image program may cost."""
    with torch.device("meta"):
        transformer = Flux2Transformer2DModel(**KLEIN_4B)
    Flux2Backbone.couple(transformer)
    targets, references = [(64, 64)], [(64, 64)] * 3
    whole, quarter = (
        count_sampling(Flux2Backbone(transformer), targets, references, share=share) for share in (1, 0.25)
    )
    plain = plan_guidance("text_first", 1.0, 1.0, pictures_matter=False)
    plan, steps = plan_guidance("text_first", 1.0, 1.0), 4
    alone = whole.of(plain, steps, "joint")
    assert alone == steps * whole.alone
    assert whole.of(plan, steps, "joint") / alone <= 5.5
    assert whole.of(plan, steps, "cached") / alone <= 2.4
    assert whole.of(plan, steps, "cached", is_kept=True) / alone <= 1.5
    assert quarter.of(plan, steps, "cached", is_kept=True) / alone <= 1.15


@pytest.mark.parametrize("coupling", ["joint", "cached"])
@pytest.mark.parametrize("kind", ["sd", "klein"])
def test_what_is_counted_is_what_a_call_computes(kind, coupling, monkeypatch):
    """The network's part of a real call with guidance on text and references."""
    parts = {**klein_parts(), "unet": None} if kind == "klein" else sd_parts(in_channels=9)
    pipe = JeDiPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    latents, tokens = (64 // pipe.vae_scale_factor,) * 2, pipe.encode_captions([""])["text"].shape[1]
    family, seen = family_of(pipe.network), []
    with torch.device("meta"):
        network = family.fresh(pipe.network)
    flops = count_sampling(family(network), [latents], [latents] * 2, tokens)
    forward = type(pipe.network).forward

    def watched(self, *args, **given):
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            made = forward(self, *args, **given)
        seen.append(counter.get_total_flops())
        return made

    monkeypatch.setattr(type(pipe.network), "forward", watched)
    given = {"coupling": coupling, "guidance_mode": "image_first", "image_guidance_scale": 2.0}
    given |= {"null_set": "single", "num_inference_steps": 2, "height": 64, "width": 64}
    pipe("a dog", torch.rand(2, 3, 64, 64), guidance_scale=3.0, output_type="latent", **given)
    want = flops.of(plan_guidance("image_first", 3.0, 2.0), 2, coupling, captioned=kind == "sd")
    assert sum(seen) == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize(
    ("coupling", "null_set", "is_kept", "steps"),
    [
        ("joint", "joint", False, 3 * (100 + 100)),
        ("joint", "single", False, 3 * (100 + 10)),
        ("cached", "joint", False, 1000 + 3 * (20 + 10)),
        ("cached", "single", True, 3 * (20 + 10)),
    ],
)
def test_a_call_is_its_passes(coupling, null_set, is_kept, steps):
    flops = SamplingFlops(alone=10, joint=100, references=1000, kept=20)
    assert flops.of(plan_guidance("joint", 3.0), 3, coupling, null_set, is_kept) == steps


def test_steps_outside_of_the_interval_of_guidance_have_one_branch():
    flops = SamplingFlops(alone=10, joint=100, references=0, kept=20)
    plan = plan_guidance("joint", 3.0, interval=(0.0, 0.5))
    assert flops.of(plan, 4, "joint") == 2 * (100 + 10) + 2 * 100


@pytest.mark.parametrize(
    "network",
    [
        lambda: tiny_flux(in_channels=16 * 2 + 256, out_channels=16),
        tiny_flux,
        tiny_sd3,
        lambda: tiny_unet(in_channels=9),
    ],
    ids=["fill", "flux", "sd3", "unet"],
)
def test_what_is_read_of_references_decides_what_they_cost(network):
    with torch.device("meta"):
        made = network()
    family = family_of(made)
    family.make_joint(made)
    none = count_sampling(family(made), [(8, 8)], [])
    part, whole = (count_sampling(family(made), [(8, 8)], [(8, 8)] * 2, share=share) for share in (0.25, 1))
    assert none.alone == whole.alone == part.alone
    assert none.references == 0
    assert whole.alone < part.kept < whole.kept < whole.joint
    assert part.joint < whole.joint


@pytest.mark.parametrize(
    ("save", "size", "steps", "coupling"),
    [
        (save_klein, 1024, 4, "joint"),
        (save_joint, 32, 25, "joint"),
        (save_sdxl, 1024, 25, "joint"),
    ],
    ids=["klein", "joint", "sdxl"],
)
def test_an_outline_has_the_sizes_and_settings_of_the_model_and_no_weights(
    save, size, steps, coupling, tmp_path
):
    save(tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    sketch = outline(str(tmp_path))
    assert (own_size(sketch), sketch.own_sampling.steps, sketch.own_coupling) == (size, steps, coupling)
    assert {each.device.type for each in sketch.network.parameters()} == {"meta"}
    assert sketch.text_encoder is None
