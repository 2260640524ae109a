"""The toybox in the place of pretrained models: what it says of its collages is so; seeds decide alone."""

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.synthesis.seams import find_tiles
from jedi_toybox import collages, world
from jedi_toybox.stand_ins import (
    ToyboxCaptioner,
    ToyboxEmbedder,
    ToyboxGenerator,
    ToyboxInpainter,
)

PROMPTS = [f"robot, example {number}, photos of the same" for number in range(12)]
SIZE = 96
CELL = SIZE // collages.CELLS


@pytest.fixture(scope="module")
def drawn() -> list[Image.Image]:
    return ToyboxGenerator(rays=1).generate(PROMPTS, range(len(PROMPTS)), (SIZE, SIZE))


def test_truth_is_where_the_subjects_are(drawn: list[Image.Image]) -> None:
    cut, tiled = [0, 0], []
    for picture in drawn:
        tiled.append(len(find_tiles(picture)) > 1)
        pixels = np.asarray(picture).astype(float)
        panels = picture.info["truth"]["panels"]
        seen = np.zeros((SIZE, SIZE), dtype=bool)
        for panel in panels:
            left, top, right, bottom = panel["box"]
            assert 0 <= left < right <= SIZE
            assert 0 <= top < bottom <= SIZE
            seen[top:bottom, left:right] = True
            edges = range(0, SIZE + 1, CELL) if tiled[-1] else (0, SIZE)
            at_edge = min(abs(side - edge) for side in panel["box"] for edge in edges) <= tiled[-1]
            assert panel["whole"] or at_edge
            cut[tiled[-1]] += not panel["whole"]
        for row, column in np.ndindex(3, 3) if tiled[-1] else ():
            inner = np.s_[row * CELL + 2 : (row + 1) * CELL - 2, column * CELL + 2 : (column + 1) * CELL - 2]
            assert_plain(pixels[inner][~seen[inner]])
        if not tiled[-1]:
            assert_plain(pixels[~seen])
    assert 0 < sum(tiled) < len(tiled)
    assert min(cut) > 0


def assert_plain(pixels: np.ndarray) -> None:
    """But for noise and a slope."""
    assert pixels.std(axis=0).max() < 10
    assert pixels.std(axis=0).min() > 0.5


def test_a_collage_has_several_views_of_one_subject_and_at_times_a_lookalike(
    drawn: list[Image.Image],
) -> None:
    others = 0
    for picture in drawn:
        names = [panel["subject"] for panel in picture.info["truth"]["panels"]]
        counts = {name: names.count(name) for name in names}
        assert len(counts) <= 2
        assert collages.VIEWS[0] <= max(counts.values()) <= collages.VIEWS[1]
        assert all(name.startswith("robot ") for name in names)
        others += len(counts) - 1
    assert 0 < others < len(drawn)


def test_the_prompt_says_who_and_the_seed_how() -> None:
    one, again, other_seed, other_prompt = ToyboxGenerator(rays=1).generate(
        [PROMPTS[0], PROMPTS[0], PROMPTS[0], PROMPTS[1]], [5, 5, 6, 5], (SIZE, SIZE)
    )
    assert one == again
    assert one != other_seed
    subjects = [each.info["truth"]["panels"][0]["subject"] for each in (one, other_seed, other_prompt)]
    assert subjects[0] == subjects[1] != subjects[2]


def test_what_the_toybox_cannot_draw_is_said() -> None:
    with pytest.raises(ModelError, match=r"'a cathedral'.* it knows airplane, apple"):
        ToyboxGenerator().generate(["a cathedral"], [0], (96, 96))
    with pytest.raises(ModelError, match="square"):
        ToyboxGenerator().generate(["a cat"], [0], (96, 64))
    with pytest.raises(UsageError, match="rays"):
        ToyboxInpainter(rays=0)
    assert collages.read_subject("an old Teapot beside a cat").noun == "teapot"


def test_inpainting_keeps_what_the_mask_spares_and_draws_the_scene() -> None:
    kept = Image.new("RGB", (64, 64), (255, 0, 255))
    mask = Image.new("L", (64, 64), 255)
    mask.paste(0, (20, 20, 40, 50))
    prompts = ["a cat in the desert", "a cat in the snow", "a cat in the desert"]
    made = ToyboxInpainter(rays=1).inpaint([kept] * 3, [mask] * 3, prompts, [1, 1, 2])
    for picture in made:
        pixels = np.asarray(picture)
        assert (pixels[20:50, 20:40] == (255, 0, 255)).all()
        assert not (pixels[:20] == (255, 0, 255)).all(axis=2).any()
    assert len({picture.tobytes() for picture in made}) == 3
    alone = ToyboxInpainter(rays=1).inpaint([kept], [mask], prompts[1:2], [1])
    assert alone[0] == made[1]  # a batch changes nothing


def test_scenes_are_found_in_prompts() -> None:
    assert collages.find_scene("A robot At night under the stars.", 0) == "at night under the stars"
    drawn = {collages.find_scene("a robot", seed) for seed in range(len(world.SCENES))}
    assert drawn == set(world.SCENES)


def test_captions_name_the_scene() -> None:
    scenes = world.SCENES[:12]
    pixels = collages.draw_scenes(scenes, range(12), 64, 1)
    captions = ToyboxCaptioner().caption([Image.fromarray(each) for each in pixels], range(12))
    right = [caption.endswith(scene) for caption, scene in zip(captions, scenes, strict=True)]
    assert sum(right) >= 10
    assert all(" a toy" in f" {caption}" for caption in captions)


def test_embeddings_tell_a_subject_from_its_lookalike() -> None:
    def cut(subject: world.Subject, view: int) -> Image.Image:
        spec = world.sample_picture(subject, view, "on a wooden floor", "", "")
        out = world.render([spec], 64, 1)
        pixels = out.pictures[0].permute(1, 2, 0).numpy().copy()
        pixels[~out.masks[0].numpy()] = 255
        return Image.fromarray(pixels)

    embed = ToyboxEmbedder().embed
    same, other = [], []
    for number in range(4):
        one, two = (world.sample_subject(10 * number + n, "train", "robot") for n in (0, 1))
        vectors = embed([cut(one, 0), cut(one, 1), cut(two, 0)])
        same.append(float(vectors[0] @ vectors[1]))
        other.append(float(vectors[0] @ vectors[2]))
    assert np.median(same) > 0.8 > np.median(other) + 0.1


def test_outlines_take_the_color_of_what_they_enclose() -> None:
    mask = np.zeros((12, 12), dtype=bool)
    mask[3:9, 3:9] = mask[1, 1:11] = True  # the line has nothing further in
    view = np.full((12, 12, 3), 40, dtype=np.uint8)
    view[4:8, 4:8] = (200, 100, 50)
    view[3, 3:9] = view[8, 3:9] = view[3:9, 3] = view[3:9, 8] = 255  # a fringe
    view[1, 1:11] = 7
    clean = collages.without_fringe(view, mask)
    assert (clean[3:9, 3:9] == (200, 100, 50)).all()
    assert (clean[1, 1:11] == 7).all()
    assert (clean[~mask] == view[~mask]).all()
