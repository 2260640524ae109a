"""The world as promised: pure functions of seeds, disjoint splits, honest captions, pictures filled well."""

import numpy as np
import pytest
import torch

from jedi_diffusion.errors import UsageError
from jedi_toybox import sample_set, world
from jedi_toybox.packing import pack

COLOR_WORDS = {
    "red", "blue", "green", "yellow", "black", "white", "golden", "silver", "orange", "purple", "pink",
    "brown", "grey", "gray", "striped", "checkered", "dotted", "spotted", "plain", "marbled", "wooden",
}  # fmt: skip


def specs(count: int, split: world.Split = "train") -> list[world.PictureSpec]:
    return [world.sample_picture(world.sample_subject(seed, split), seed + 1) for seed in range(count)]


def test_the_world_is_as_large_as_promised() -> None:
    assert len(world.CLASSES) >= 24
    assert len(world.HELD_OUT_CLASSES) >= 4
    assert len(world.SCENES) >= 24
    assert len(world.STYLES) >= 6
    assert len(world.ATTRIBUTES) >= 5
    assert not set(world.CLASSES) & set(world.HELD_OUT_CLASSES)


def test_one_seed_gives_one_picture() -> None:
    first, second = (world.render(specs(3), 32, 1) for _ in range(2))
    assert torch.equal(first.pictures, second.pictures)
    assert torch.equal(first.masks, second.masks)
    assert first.pictures.dtype == torch.uint8
    assert first.masks.dtype == torch.bool
    assert first.pictures.shape == (3, 3, 32, 32)


def test_a_picture_is_the_same_alone_and_among_others_whatever_their_styles() -> None:
    subject = world.sample_subject(5)
    many = [
        world.sample_picture(subject, n, style=("", *world.STYLES)[n % (1 + len(world.STYLES))])
        for n in range(20)
    ]
    together = world.render(many, 32, 1)
    for n in (0, 1, 3, 8, 17, 19):
        alone = world.render(many[n : n + 1], 32, 1)
        assert torch.equal(alone.pictures[0], together.pictures[n])
        assert torch.equal(alone.masks[0], together.masks[n])


def test_pictures_of_a_subject_share_its_parts_and_nothing_else() -> None:
    subject = world.sample_subject(11)
    one, other = (world.sample_picture(subject, n, attribute="") for n in (1, 2))
    assert one.staged.subject == other.staged.subject == world.sample_subject(11).parts
    assert one.camera != other.camera
    assert (one.staged.scene != other.staged.scene).any()
    same_scene = [world.sample_picture(subject, n, scene=world.SCENES[0]) for n in (1, 2)]
    assert (same_scene[0].staged.scene != same_scene[1].staged.scene).any()


def test_subjects_differ_and_splits_share_none() -> None:
    seen: dict[str, tuple[str, int]] = {}
    for split in world.SPLITS:
        for seed in range(60):
            subject = world.sample_subject(seed, split)
            key = repr(subject.parts)
            assert key not in seen, (split, seed, seen.get(key))
            seen[key] = (split, seed)
            assert (subject.noun in world.HELD_OUT_CLASSES) == (split == "held_out_classes")
    known = {world.sample_subject(seed, "held_out").noun for seed in range(300)}
    assert known <= {*world.CLASSES, *world.THING_NOUNS}


def test_a_third_of_the_training_subjects_are_things() -> None:
    nouns = [world.sample_subject(seed).noun for seed in range(3000)]
    share = np.mean([noun in world.THING_NOUNS for noun in nouns])
    assert 1 / 3 < share < 0.5
    assert set(nouns) == {*world.CLASSES, *world.THING_NOUNS}


def test_a_quarter_has_a_style_and_a_quarter_an_attribute() -> None:
    drawn = specs(2000)
    assert np.mean([bool(spec.style) for spec in drawn]) == pytest.approx(0.25, abs=0.04)
    assert np.mean([bool(spec.attribute) for spec in drawn]) == pytest.approx(0.25, abs=0.04)
    assert {spec.scene for spec in drawn} == set(world.SCENES)


def test_captions() -> None:
    subject = world.sample_subject(3, noun="robot")
    assert world.sample_picture(subject, 0, "on the beach", "", "").caption == "a robot on the beach"
    sketch = world.sample_picture(subject, 0, "in the snow", "a pencil sketch of", "wearing a red hat")
    assert sketch.caption == "a pencil sketch of a robot wearing a red hat in the snow"
    assert world.Subject("owl", 0, "train").phrase == "an owl"
    for split in world.SPLITS:
        for spec in specs(700, split):
            own = spec.caption
            for phrase in filter(None, (spec.scene, spec.style, spec.attribute)):
                assert own.count(phrase) == 1
                own = own.replace(phrase, "")
            assert own.split() == spec.subject.phrase.split()
            assert not set(own.split()) & COLOR_WORDS


def test_the_vocabulary_holds_every_word() -> None:
    words = set(world.vocabulary())
    assert list(world.vocabulary()) == sorted(words)
    for split in world.SPLITS:
        for spec in specs(700, split):
            assert set(spec.caption.split()) <= words


def test_subjects_fill_the_frame() -> None:
    drawn = specs(160)
    masks = world.render(drawn, 64, 1).masks
    tall = []
    for mask in masks:
        rows, columns = (mask.any(dim=axis).nonzero() for axis in (1, 0))
        height, width = (int(each.max() - each.min() + 1) / 64 for each in (rows, columns))
        assert height <= 0.74
        assert height >= 0.36 or width >= 0.8
        tall.append(0.4 <= height <= 0.71)
    assert np.mean(tall) > 0.85


def test_subjects_are_wholly_inside() -> None:
    for spec in specs(300):
        place = spec.camera.project(spec.staged.points)
        assert np.abs(place).max() < 0.96


def test_everything_that_can_be_drawn_fits_its_slots() -> None:
    for split in world.SPLITS:
        pack([spec.staged for spec in specs(250, split)])
    subject = world.sample_subject(1)
    pack([world.sample_picture(subject, 0, attribute=attribute).staged for attribute in world.ATTRIBUTES])


def test_sets() -> None:
    image_set = sample_set(4, size=3, resolution=32)
    again = sample_set(4, size=3, resolution=32)
    assert len(image_set) == 3
    assert image_set.pictures[0].size == (32, 32)
    assert [p.tobytes() for p in image_set.pictures] == [p.tobytes() for p in again.pictures]
    assert image_set.masks is not None
    assert set(np.unique(np.asarray(image_set.masks[0]))) == {0, 255}
    assert image_set.info["noun"] in image_set.captions[0]
    assert [
        row["scene"] in caption
        for row, caption in zip(image_set.info["pictures"], image_set.captions, strict=True)
    ]


def test_requests_that_make_no_sense() -> None:
    subject = world.sample_subject(0)
    with pytest.raises(UsageError, match="scene 'on the sun'"):
        world.sample_picture(subject, 0, scene="on the sun")
    with pytest.raises(UsageError, match="split 'test'"):
        world.sample_subject(0, "test")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no class 'griffin'"):
        world.sample_subject(0, noun="griffin")
    with pytest.raises(UsageError, match="Cannot render 0 pictures"):
        world.render([])
