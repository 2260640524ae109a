"""Stages 5 to 8: pasting, inpainting, styles, captions and sets."""

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.records import Group, Instance, Key, Reason, Scene
from jedi_diffusion.synthesis.scenes import (
    EMPTY,
    assemble_sets,
    caption_scenes,
    clean_caption,
    draft_scenes,
    draw_style,
    inpaint_scenes,
    paste,
    set_sizes,
    stylize_scenes,
)
from jedi_diffusion.synthesis.settings import StageSettings
from jedi_diffusion.vision.detection import Box
from tests.helpers.synthesis_models import Captioner, Inpainter, Stylizer, Writer

DISC = ObjectName("disc", "shape")
SETTINGS = StageSettings(scene_size=64)


def instance(width: int = 20, height: int = 12, number: int = 0) -> Instance:
    """Every pixel of another color; the mask leaves the corners out."""
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.ones((height, width), bool)
    mask[:2, :2] = mask[-2:, -2:] = False
    key = Key(DISC, 0, 0, number)
    return Instance(key, Image.fromarray(pixels), mask, Box(0, 0, width, height), 0.9, ())


def group(count: int) -> Group:
    return Group(Key(DISC, 0, 0), tuple(instance(number=number) for number in range(count)))


def scenes(count: int, collage: int = 0) -> list[Scene]:
    picture, mask = Image.new("RGB", (16, 16)), Image.new("L", (16, 16))
    return [
        Scene(Key(DISC, collage, 0, number), picture, mask, (), f"caption {number}")
        for number in range(count)
    ]


def test_pasting_at_the_same_scale_moves_every_pixel_and_changes_none() -> None:
    settings = StageSettings(scene_size=64, min_scale=20 / 64, max_scale=20 / 64)
    one = instance()
    canvas, mask, (left, top, width, height) = paste(one, settings, np.random.default_rng(3))
    assert (width, height) == one.cutout.size
    pixels, inside = np.asarray(canvas), np.asarray(mask)
    window = np.s_[top : top + height, left : left + width]
    assert np.array_equal(inside[window] == 255, one.mask)
    assert np.array_equal(pixels[window][one.mask], np.asarray(one.cutout)[one.mask])
    assert set(np.unique(inside)) == {0, 255}
    assert (inside == 255).sum() == one.mask.sum()
    assert (pixels[inside == 0] == EMPTY).all()


@pytest.mark.parametrize(("width", "height"), [(20, 12), (7, 50), (300, 200), (1, 1)])
def test_places_and_scales_cover_their_ranges(width: int, height: int) -> None:
    settings = StageSettings(scene_size=64, min_scale=0.25, max_scale=0.75, max_enlargement=16)
    one = instance(width, height)
    chance = np.random.default_rng(0)
    places = np.array([paste(one, settings, chance)[2] for _ in range(200)])
    left, top, wide, high = places.T
    assert (places >= [0, 0, 1, 1]).all()
    assert (left + wide <= 64).all()
    assert (top + high <= 64).all()
    longest = np.maximum(wide, high)
    bound = min(48, 16 * max(width, height))
    assert longest.min() >= min(16, bound)
    assert longest.max() in (bound, bound - 1)
    assert np.abs(wide * height - high * width).max() <= max(width, height)  # the shape is kept
    free_x, free_y = 64 - wide, 64 - high
    for place, free in ((left, free_x), (top, free_y)):
        assert (place / free).min() < 0.03
        assert (place / free).max() > 0.97
        assert abs((place / free).mean() - 0.5) < 0.08


def test_cut_outs_are_not_enlarged_without_limit() -> None:
    settings = StageSettings(scene_size=256, min_scale=0.9, max_scale=1, max_enlargement=1.5)
    assert paste(instance(20, 12), settings, np.random.default_rng(0))[2][2:] == (30, 18)


def test_scenes_are_drawn_around_the_subject_which_stays_as_it_was() -> None:
    seen = []

    class Watching(Inpainter):
        def inpaint(self, pictures: Sequence, masks: Sequence, prompts: Sequence, seeds: Sequence) -> list:
            seen.extend(zip(masks, prompts, seeds, strict=True))
            return super().inpaint(pictures, masks, prompts, seeds)

    drafts = draft_scenes([group(3)], Writer(), SETTINGS, 1).kept
    made = inpaint_scenes(drafts, Watching(), SETTINGS, 1).kept
    assert len(made) == 3
    for draft, scene, (mask, prompt, seed) in zip(drafts, made, seen, strict=True):
        inside = np.asarray(scene.mask) == 255
        assert np.array_equal(np.asarray(mask), np.where(inside, 0, 255))
        assert np.array_equal(np.asarray(scene.picture)[inside], np.asarray(draft.canvas)[inside])
        assert not (np.asarray(scene.picture)[~inside] == EMPTY).all(axis=1).any()
        details = scene.history[-1].as_json()
        assert (details["prompt"], details["seed"]) == (prompt, seed)
        assert details["model"] == "test-inpainter"
        assert details["prompt_model"] == "test-writer"
    assert len({prompt for _, prompt, _ in seen}) == len({seed for _, _, seed in seen}) == 3
    assert len({tuple(scene.history[-1].details["place"]) for scene in made}) == 3


def test_instances_without_a_scene_prompt_are_rejected() -> None:
    writer = Writer([json.dumps({"prompts": ["a disc on a table", "a plate on a table"]})])
    made = draft_scenes([group(3)], writer, SETTINGS, 0)
    assert [draft.key.instance for draft in made.kept] == [0]
    assert [(each.key.instance, each.reason) for each in made.rejected] == [
        (1, Reason.NAME_MISSING),
        (2, Reason.MISSING_PROMPT),
    ]


def test_a_mask_that_vanishes_in_a_small_scene_is_rejected() -> None:
    thin = np.zeros((400, 400), bool)
    thin[200, 200] = True
    one = Instance(Key(DISC, 0, 0, 0), Image.new("RGB", (400, 400)), thin, Box(0, 0, 400, 400), 0.9, ())
    made = draft_scenes([Group(Key(DISC, 0, 0), (one,))], Writer(), SETTINGS, 0)
    assert [each.reason for each in made.rejected] == [Reason.EMPTY_MASK]


def test_half_of_the_pictures_get_one_of_the_styles_each_as_often_as_any() -> None:
    keys = [Key(DISC, collage, 0, number) for collage in range(400) for number in range(5)]
    drawn = [draw_style(key, SETTINGS, 0) for key in keys]
    counts = Counter(style for style in drawn if style)
    styled = counts.total()
    assert abs(styled - 1000) < 4 * np.sqrt(2000 * 0.25)
    assert counts.keys() == set(SETTINGS.styles)
    expected = styled / len(SETTINGS.styles)
    squares = sum((count - expected) ** 2 / expected for count in counts.values())
    assert squares < 50  # chi squared with 21 degrees of freedom: one in 2,500 is larger
    assert drawn == [draw_style(key, SETTINGS, 0) for key in keys]
    assert drawn != [draw_style(key, SETTINGS, 1) for key in keys]


@pytest.mark.parametrize("probability", [0, 1])
def test_styles_redraw_the_chosen_pictures_only(probability: int) -> None:
    settings = StageSettings(style_probability=probability)
    before = scenes(3)
    after = stylize_scenes(before, Stylizer(), settings, 0).kept
    for old, new in zip(before, after, strict=True):
        assert new.mask is old.mask
        assert new.caption == old.caption
        details = new.history[-1].as_json()
        assert (details["style"] in settings.styles) == bool(probability)
        assert new.picture.getpixel((0, 0)) == ((255,) * 3 if probability else (0,) * 3)


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("a disc", "a disc"),
        ("  a\n disc\t.\x00", "a disc ."),
        ("a<|split|>disc", "a disc"),
        (" \n", ""),
        ("one two three four", "one two"),
        ("abcdefghijkl", "abcdefghij"),
        ("abcd efghi jk", "abcd efghi"),
    ],
)
def test_captions_are_one_clean_line(answer: str, caption: str) -> None:
    assert clean_caption(answer, 10) == caption


def test_a_picture_without_caption_is_rejected() -> None:
    class Silent(Captioner):
        def caption(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[str]:
            return ["one", " ", "three"]

    made = caption_scenes(scenes(3), Silent(), SETTINGS, 0)
    assert [scene.caption for scene in made.kept] == ["one", "three"]
    assert [(each.key.instance, each.reason) for each in made.rejected] == [(1, Reason.EMPTY_CAPTION)]


@pytest.mark.parametrize(("least", "most"), [(2, 4), (2, 2), (3, 4), (4, 4), (2, 16)])
def test_set_sizes_lose_as_few_pictures_as_any_division(least: int, most: int) -> None:
    for pictures in range(40):
        sizes = set_sizes(pictures, least, most)
        assert all(least <= size <= most for size in sizes)
        # The most that sets of these sizes can hold, by brute force over how many sets there are.
        best = max(min(pictures, count * most) for count in range(pictures + 1) if count * least <= pictures)
        assert sum(sizes) == best


def test_every_picture_ends_in_one_set_or_is_rejected() -> None:
    batch = [*scenes(1, 0), *scenes(2, 1), *scenes(7, 2)]
    made = assemble_sets(batch, SETTINGS, 4)
    assert [(each.info["collage"], each.info["set"], len(each)) for each in made.kept] == [
        (1, 0, 2),
        (2, 0, 4),
        (2, 1, 3),
    ]
    assert [(each.key.collage, each.reason) for each in made.rejected] == [(0, Reason.TOO_FEW_PICTURES)]
    used = [
        (each.info["collage"], picture["instance"]) for each in made.kept for picture in each.info["pictures"]
    ]
    assert sorted(used) == [(1, 0), (1, 1), *((2, number) for number in range(7))]
    for each in made.kept:
        assert [f"caption {picture['instance']}" for picture in each.info["pictures"]] == list(each.captions)
        assert json.loads(json.dumps(each.info)) == each.info
    rest = assemble_sets(scenes(4), StageSettings(min_pictures=3, max_pictures=3), 0)
    assert [len(each) for each in rest.kept] == [3]
    assert [each.reason for each in rest.rejected] == [Reason.TOO_MANY_PICTURES]
