from dataclasses import replace

import torch
from torch import Tensor

from jedi_diffusion.networks.autoencoder import PatchAutoencoder
from jedi_diffusion.networks.text import make_word_tokenizer, tokenize
from jedi_diffusion.train.config import JointStage
from jedi_diffusion.train.pool import CHUNK, LatentPool, compose, draw_sets, mirror
from tests.helpers.plain_source import PlainSource

SUBJECTS, PICTURES, SIZE = 70, 4, 16


def stage_of(**changes: object) -> JointStage:
    values = {
        "name": "sets", "kind": "joint", "resolution": SIZE, "subjects": SUBJECTS, "pictures": PICTURES,
        "steps": 1, "share": 1, "batch": 40, "learning_rate": 0.1, "set_sizes": {1: 0.2, 2: 0.3, 4: 0.5},
    }  # fmt: skip
    return JointStage.model_validate(values | changes)


def pool_of(stage: JointStage) -> tuple[LatentPool, PatchAutoencoder, Tensor]:
    torch.manual_seed(0)
    autoencoder = PatchAutoencoder(latent_channels=3, widths=(8, 16), scaling_factor=2.0)
    tokenizer = make_word_tokenizer(PlainSource.words, 8)
    pool = LatentPool.build(PlainSource(), 5, stage, autoencoder, tokenizer, "cpu")
    return pool, autoencoder, tokenize(tokenizer, ["a cube", ""])


def test_the_pool_holds_scaled_latents_coverage_and_captions() -> None:
    pool, autoencoder, _ = pool_of(stage_of())
    assert pool.latents.shape == (SUBJECTS, PICTURES, 3, 2, 2)
    picture = torch.full((1, 3, SIZE, SIZE), 2 * (5 + 66) / 255 - 1)  # 0 to 255 lie between -1 and 1
    expected = 2.0 * autoencoder.encode(picture).latent_dist.mode()
    torch.testing.assert_close(pool.latents[66, 2].float(), expected[0].detach(), atol=0.05, rtol=0.02)
    assert pool.coverage[0, 0].tolist() == [[255, 0], [255, 0]]
    assert not torch.equal(pool.captions[0, 0], pool.captions[0, 1])
    assert torch.equal(pool.captions[0, 1], pool.captions[69, 1])


def test_a_mirror_swaps_left_and_right_and_nothing_else() -> None:
    sets = PlainSource().sets(0, 2, 2, SIZE, "cpu")
    random = torch.randint(0, 256, sets.pictures.shape, dtype=torch.uint8)
    seen = mirror(replace(sets, pictures=random))
    for column in range(SIZE):
        assert torch.equal(seen.pictures[..., column], random[..., SIZE - 1 - column])
        assert torch.equal(seen.masks[..., column], sets.masks[..., SIZE - 1 - column])
    assert (seen.captions, seen.names) == (sets.captions, sets.names)


def test_the_pool_holds_each_chunk_and_then_its_mirror_image() -> None:
    plain, _, _ = pool_of(stage_of())
    pool, _, _ = pool_of(stage_of(mirrored=True))
    assert pool.latents.shape == (2 * SUBJECTS, PICTURES, 3, 2, 2)
    for start, count in ((0, CHUNK), (2 * CHUNK, SUBJECTS - CHUNK)):
        own, flipped = slice(start, start + count), slice(start + count, start + 2 * count)
        first = slice(start // 2, start // 2 + count)
        assert torch.equal(pool.latents[own], plain.latents[first])
        assert torch.equal(pool.coverage[flipped], plain.coverage[first].flip(-1))
        assert torch.equal(pool.captions[flipped], plain.captions[first])


def test_a_batch_has_the_same_set_sizes_in_about_the_asked_parts() -> None:
    sizes = compose({1: 0.2, 2: 0.3, 4: 0.5}, 40)
    assert sizes == (1,) * 8 + (2,) * 6 + (4,) * 5
    assert compose({3: 1.0}, 2) == (3,)
    assert compose({4: 5.0, 1: 2.0, 2: 3.0}, 40) == sizes


def test_sets_are_distinct_pictures_of_one_subject_with_a_target() -> None:
    stage = stage_of(reference=0.9, name_only=0, no_caption=0, no_text=0)
    pool, _, _ = pool_of(stage)
    sizes = compose(stage.set_sizes, stage.batch)
    draw = draw_sets(pool, stage, sizes, torch.Generator().manual_seed(1))
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        assert all(torch.equal(latents, draw.latents[start]) for latents in draw.latents[rows])
        assert len({tuple(tokens) for tokens in draw.tokens[rows].tolist()}) == size
        assert draw.mask[rows].sum() >= 1
        start += size
    assert start == len(draw.latents)


def test_any_picture_of_a_set_of_references_may_become_its_target() -> None:
    stage = stage_of(reference=1.0, set_sizes={4: 1.0}, batch=400)
    pool, _, _ = pool_of(stage)
    draw = draw_sets(pool, stage, (4,) * 100, torch.Generator().manual_seed(0))
    assert draw.mask.shape == (400, 1, 1, 1)
    targets = draw.mask.view(100, 4)
    assert targets.sum(1).tolist() == [1.0] * 100
    assert ((targets.sum(0) - 25).abs() < 15).all()  # each place in a quarter of the sets


def test_the_loss_counts_the_subject_more_and_what_is_beside_it_once() -> None:
    stage = stage_of(subject_weight=2.5)
    pool, _, _ = pool_of(stage)
    draw = draw_sets(pool, stage, compose(stage.set_sizes, stage.batch), torch.Generator().manual_seed(0))
    on_the_left = torch.tensor([[3.5, 1.0], [3.5, 1.0]])  # as the pictures' masks
    assert torch.equal(draw.weight, on_the_left.expand(len(draw.latents), 1, 2, 2))


def test_draws_depend_on_the_generator_alone() -> None:
    stage = stage_of()
    pool, _, _ = pool_of(stage)
    sizes = compose(stage.set_sizes, stage.batch)
    first, again, other = (draw_sets(pool, stage, sizes, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.mask, other.mask)


def test_probabilities_are_those_of_the_stage() -> None:
    stage = stage_of(
        set_sizes={4: 1.0}, batch=8000, reference=0.5, name_only=0.3, no_caption=0.2, no_text=0.1
    )
    pool, _, (name, empty) = pool_of(stage)
    draw = draw_sets(pool, stage, compose(stage.set_sizes, stage.batch), torch.Generator().manual_seed(0))
    reference = draw.mask.flatten() == 0
    # One in sixteen sets is drawn with references only, and then spares one of its four pictures.
    assert abs(reference.float().mean() - (0.5 - 1 / 64)) < 0.02
    assert torch.allclose(draw.weight.unique(), torch.tensor([1.0, 1 + stage.subject_weight]))
    is_empty = (draw.tokens == empty).all(1)
    whole_sets = is_empty.view(-1, 4).all(1)
    assert abs(is_empty[~reference].float().mean() - 0.1) < 0.02
    assert abs(whole_sets.float().mean() - 0.1) < 0.02
    assert abs((draw.tokens == name).all(1)[reference].float().mean() - 0.9 * 0.3) < 0.02
    assert abs(is_empty[reference].float().mean() - (0.1 + 0.9 * 0.2)) < 0.02
