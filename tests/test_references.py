"""References with masks and strengths as the pipeline takes them: their forms, geometry, what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion import JeDiPipeline, Reference
from jedi_diffusion.backbones import family_of
from jedi_diffusion.backbones.flux import FluxBackbone
from jedi_diffusion.backbones.flux2 import Flux2Backbone
from jedi_diffusion.backbones.unet import UNetBackbone, make_joint
from jedi_diffusion.errors import UsageError
from jedi_diffusion.references import listed_references, mask_image, visibility_of
from jedi_diffusion.vision.subject_mask import subject_masks
from tests.helpers.drawn_photos import ball_on_a_lawn
from tests.helpers.small_flux2 import tiny_transformer
from tests.helpers.small_mmdit import tiny_flux
from tests.helpers.small_models import randomize_new_channels, tiny_unet
from tests.helpers.small_pipelines import sd_parts

WIDTH, HEIGHT = 90, 70


@pytest.fixture(scope="module")
def pipe() -> JeDiPipeline:
    parts = sd_parts()
    made = JeDiPipeline(**parts | {"unet": randomize_new_channels(make_joint(parts["unet"]))})
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)) for _ in range(2)]


def box(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    return mask


def latents(pipe: JeDiPipeline, references: object, **settings: object) -> torch.Tensor:
    usual = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(0)}
    return pipe("a dog", references, output_type="latent", **usual | settings).images


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_plain_pictures_and_references_may_be_mixed_and_whole_ones_change_no_bit(pipe, photos, coupling):
    want = latents(pipe, photos, coupling=coupling)
    white = Image.new("L", (WIDTH, HEIGHT), 255)
    mixed = [Reference(photos[0], mask=white), photos[1]]
    assert torch.equal(latents(pipe, mixed, coupling=coupling), want)
    assert torch.equal(latents(pipe, [Reference(each) for each in photos], coupling=coupling), want)
    assert torch.equal(
        latents(pipe, Reference(photos[0]), coupling=coupling), latents(pipe, photos[0], coupling=coupling)
    )


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_masks_and_strengths_change_the_picture_each_in_its_own_way(pipe, photos, coupling):
    masks = [box(0, 0, 45, 70), box(45, 0, 90, 70)]
    made = [
        latents(pipe, [Reference(photos[0], mask=mask, strength=strength), photos[1]], coupling=coupling)
        for mask, strength in ((None, 1), (masks[0], 1), (masks[1], 1), (masks[0], 0.3), (None, 3.0))
    ]
    for number, one in enumerate(made):
        for other in made[number + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_a_reference_of_hardly_any_strength_is_as_if_it_were_not_there(pipe, photos, coupling):
    weak = [Reference(each, strength=1e-9) for each in photos]
    plain = latents(pipe, (), guidance_scale=1.0)
    torch.testing.assert_close(
        latents(pipe, weak, coupling=coupling, guidance_scale=1.0), plain, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_the_subject_is_found_where_a_reference_has_no_mask(pipe, photos, coupling):
    ball = ball_on_a_lawn(120, 120, (30, 40, 90, 100))
    (found,) = subject_masks([ball])
    drawn = box(0, 0, 45, 70)
    want = latents(pipe, [Reference(ball, mask=found), Reference(photos[0], mask=drawn)], coupling=coupling)
    given = [ball, Reference(photos[0], mask=drawn)]
    assert torch.equal(latents(pipe, given, coupling=coupling, auto_mask=True), want)
    assert not torch.equal(latents(pipe, given, coupling=coupling), want)


def test_a_reference_without_a_subject_is_read_whole_with_a_warning(pipe, caplog):
    plain = Image.new("RGB", (64, 64), (120, 120, 120))
    assert torch.equal(latents(pipe, plain, auto_mask=True), latents(pipe, plain))
    assert "No subject was found in reference 1: all of it is read." in caplog.text
    assert latents(pipe, (), auto_mask=True).shape[0] == 1


@pytest.mark.parametrize("coupling", ["joint", "cached"])
def test_masking_white_is_a_picture_that_was_painted_white_by_hand(pipe, photos, coupling):
    mask = box(20, 10, 70, 60)
    painted = Image.composite(photos[0], Image.new("RGB", photos[0].size, "white"), mask)
    # of one size with the pictures that are made, so that nothing is resized between mask and paint
    given = {"height": HEIGHT // 8 * 8, "width": WIDTH // 8 * 8, "coupling": coupling}
    crop = (1, 3, 89, 67)
    photo, mask, painted = (each.crop(crop) for each in (photos[0], mask, painted))
    assert photo.size == (given["width"], given["height"])
    want = latents(pipe, [Reference(painted, strength=0.5), photos[1]], **given)
    made = latents(pipe, [Reference(photo, mask=mask, strength=0.5), photos[1]], masking="white", **given)
    torch.testing.assert_close(made, want, atol=1e-4, rtol=0)
    tokens = latents(pipe, [Reference(photo, mask=mask, strength=0.5), photos[1]], **given)
    assert not torch.allclose(made, tokens, atol=1e-3)


def test_masking_is_the_models_own_where_a_call_says_nothing(photos):
    parts = sd_parts()
    unet = randomize_new_channels(make_joint(parts["unet"]))
    own = JeDiPipeline(**parts | {"unet": unet}, masking="white")
    own.set_progress_bar_config(disable=True)
    given = Reference(photos[0], mask=box(0, 0, 45, 70))
    assert torch.equal(latents(own, given), latents(own, given, masking="white"))
    assert not torch.equal(latents(own, given), latents(own, given, masking="tokens"))
    encoded = own.encode_references(given)
    torch.testing.assert_close(
        latents(own, encoded), latents(own, given, coupling="cached"), atol=1e-5, rtol=0
    )
    with pytest.raises(UsageError, match="masking"):
        latents(own, given, masking="black")


def test_captions_are_the_references_own_or_the_calls(pipe, photos):
    own = [Reference(photos[0], "a robot"), Reference(photos[1], "a dog")]
    want = latents(pipe, photos, reference_prompts=["a robot", "a dog"])
    assert torch.equal(latents(pipe, own), want)
    assert [each.caption for each in listed_references([photos[0], own[0]], None)] == ["", "a robot"]
    assert [each.caption for each in listed_references(photos, "a")] == ["a", "a"]
    stack = torch.zeros(3, 3, 8, 8)
    assert len(listed_references(stack, None)) == 3
    assert len(listed_references(stack[0], None)) == 1


FAMILIES = {
    "unet": (UNetBackbone, lambda: make_joint(tiny_unet())),
    "kontext": (FluxBackbone, tiny_flux),
    "flux2": (Flux2Backbone, tiny_transformer),
}


@pytest.mark.parametrize(("family", "network"), FAMILIES.values(), ids=FAMILIES)
def test_a_mask_goes_the_way_of_its_picture(family, network):
    """Of a picture that is its own mask, what is bright after fitting is what is read."""
    made = network()
    family_of(made).couple(made)
    drawn = box(100, 50, 260, 330, size=(400, 360))

    def fit(pictures):
        return family(made).fit_references(pictures, (64, 48))

    (pixels,) = fit([drawn.convert("RGB")])
    (visibility,) = visibility_of([Reference(drawn.convert("RGB"), mask=drawn)], fit)
    assert visibility.mask.shape == pixels.shape[1:]
    assert torch.equal(visibility.mask > 0.5, pixels[0] > 0)
    assert 0.2 < visibility.mask.mean() < 0.5


MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[10:60, 20:50] = True
CUTOUT = np.dstack([np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.where(MASK, 255, 0).astype(np.uint8)])
FORMS = {
    "bool array": MASK,
    "8 bits": MASK.astype(np.uint8) * 255,
    "0 and 1": MASK.astype(np.uint8),
    "floats": MASK.astype(np.float32),
    "a channel": MASK[:, :, None],
    "tensor": torch.from_numpy(MASK),
    "tensor of floats": torch.from_numpy(MASK)[None].float(),
    "gray": Image.fromarray(MASK.astype(np.uint8) * 255),
    "1 bit": Image.fromarray(MASK),
    "colours": Image.fromarray(MASK.astype(np.uint8) * 255).convert("RGB"),
    "cut out": Image.fromarray(CUTOUT),
}


@pytest.mark.parametrize("mask", FORMS.values(), ids=FORMS)
def test_masks_come_in_many_forms(mask):
    assert np.array_equal(np.asarray(mask_image(mask, (WIDTH, HEIGHT), 1)) > 127, MASK)


def test_the_picture_is_turned_as_its_exif_says_before_sizes_are_compared(photos):
    turned = photos[0].copy()
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.info["exif"] = exif.tobytes()
    upright = Reference(turned, mask=box(0, 0, 70, 45, size=(HEIGHT, WIDTH)))
    (made,) = visibility_of([upright], lambda pictures: [torch.ones(3, 8, 8) * 2 - 1 for _ in pictures])
    assert made is None


BAD = [
    ({"mask": box(0, 0, 9, 9, size=(9, 9))}, "mask of reference 2 has 9x9 pixels, but its picture has 90x70"),
    ({"mask": Image.new("L", (WIDTH, HEIGHT))}, "mask of reference 2 is empty"),
    ({"mask": box(0, 0, 2, 70)}, "Reference 2 is cut to its centre, where its mask shows nothing"),
    ({"mask": "mask.png"}, "mask of reference 2 is neither a picture"),
    ({"mask": np.full((HEIGHT, WIDTH), 2.0)}, "mask of reference 2 is neither a picture"),
    ({"mask": np.zeros((2, HEIGHT, WIDTH), bool)}, "mask of reference 2 is neither a picture"),
    ({"mask": Image.new("F", (WIDTH, HEIGHT), 1.0)}, "mask of reference 2 is neither a picture"),
    ({"strength": 0}, "Of reference 2 the strength is 0, but must be greater than 0"),
    ({"strength": -0.5}, "Of reference 2 the strength is -0.5, but must be greater than 0"),
    ({"strength": float("nan")}, "Of reference 2 the strength is nan"),
]


@pytest.mark.parametrize(("how", "said"), BAD)
def test_what_is_wrong_with_a_reference_is_said_before_any_network_runs(pipe, photos, monkeypatch, how, said):
    monkeypatch.setattr(pipe.vae, "encode", lambda *_, **__: pytest.fail("a network ran"))
    monkeypatch.setattr(pipe.unet, "forward", lambda *_, **__: pytest.fail("a network ran"))
    with pytest.raises(UsageError, match=said):
        pipe("a dog", [photos[0], Reference(photos[1], **how)])


def test_captions_twice_and_masks_for_a_denoiser_of_ones_own_are_refused(pipe, photos):
    with pytest.raises(UsageError, match="have captions of their own: leave reference_prompts out"):
        pipe("a dog", [Reference(photos[0], "a dog")], reference_prompts="a dog")
    with pytest.raises(UsageError, match="2 reference prompts for 1 references"):
        pipe("a dog", [Reference(photos[0])], reference_prompts=["a", "b"])
    with pytest.raises(UsageError, match="reads whole references: leave masks and strengths out"):
        pipe("a dog", [Reference(photos[0], strength=2)], denoiser=pipe.backbone, coupling="joint")


def test_encoded_references_keep_their_masks_and_strengths(pipe, photos):
    how = [Reference(photos[0], mask=box(20, 10, 60, 60), strength=0.5), photos[1]]
    want = latents(pipe, how, coupling="cached")
    encoded = pipe.encode_references(how)
    torch.testing.assert_close(latents(pipe, encoded), want, atol=1e-5, rtol=0)
    assert encoded.nbytes < pipe.encode_references(photos).nbytes
    with pytest.raises(UsageError, match="mask of reference 1 has 9x9 pixels"):
        pipe.encode_references(Reference(photos[0], mask=box(0, 0, 9, 9, size=(9, 9))))
