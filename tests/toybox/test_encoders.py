"""The scorer's encoders: preprocessing, losses, training, file; nothing that is scored was trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from jedi_diffusion.errors import JeDiError, ModelError, UsageError
from jedi_toybox import encoder_training, world
from jedi_toybox.encoder_training import (
    EncoderRecipe,
    Pool,
    auc,
    contrastive_loss,
    draw_subjects,
    judge,
    render_pool,
    train,
)
from jedi_toybox.encoders import (
    BUNDLED,
    FIELDS,
    FILE,
    NOUNS,
    SIDE,
    Encoders,
    ScorerNetwork,
    load_encoders,
    prepare,
    prompt_agreement,
    save_encoders,
)

TINY = EncoderRecipe(subjects=8, pictures=2, groups=2, subjects_per_noun=2, others=4, steps=2)


@pytest.mark.parametrize("size", [128, 100, 64, 32])
def test_preprocessing_agrees_with_pillows_triangle_filter(size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) / 255
    found = prepare(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1.5 / 255


def test_reading_does_not_depend_on_the_company_or_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = torch.randint(0, 256, (5, 3, 96, 96), dtype=torch.uint8)
    encoders = Encoders(ScorerNetwork())
    together = encoders.read(pictures)
    monkeypatch.setattr("jedi_toybox.encoders.BATCH", 2)
    parts = encoders.read(pictures)
    torch.testing.assert_close(parts.identity, together.identity)
    torch.testing.assert_close(parts.fields["scene"], together.fields["scene"])
    torch.testing.assert_close(together.identity.norm(dim=1), torch.ones(5))


def test_prompt_agreement_is_the_mean_probability_of_what_was_asked_for() -> None:
    spec = world.sample_picture(world.sample_subject(3), 0, style="", attribute=world.ATTRIBUTES[2])
    places = [FIELDS[name].index(getattr(spec, name)) for name in FIELDS]
    fields = {name: torch.zeros(1, len(options)) for name, options in FIELDS.items()}
    for place, logits, wanted in zip(places, fields.values(), (0.9, 0.5, 0.2), strict=True):
        others = logits.shape[1] - 1
        logits[0, place] = np.log(wanted / (1 - wanted) * others)
    assert prompt_agreement(fields, [spec]).item() == pytest.approx((0.9 + 0.5 + 0.2) / 3, abs=1e-5)


def test_contrastive_loss_against_sums_written_out() -> None:
    identity = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    owners = torch.tensor([0, 0, 0, 1, 1, -1])  # the last is nobody: only told from
    total = 0.0
    for i in range(5):
        others = [j for j in range(6) if j != i]
        below = sum(float(torch.exp(identity[i] @ identity[j] / 0.1)) for j in others)
        mine = [j for j in others if owners[j] == owners[i]]
        total -= sum(np.log(float(torch.exp(identity[i] @ identity[j] / 0.1)) / below) for j in mine) / len(
            mine
        )
    assert contrastive_loss(identity, owners).item() == pytest.approx(total / 5, rel=1e-4)


def test_auc_against_all_pairs() -> None:
    positive, negative = torch.tensor([0.1, 0.5, 0.9, 0.9]), torch.tensor([0.2, 0.5, 0.9])
    pairs = [(p > n) + 0.5 * (p == n) for p in positive.tolist() for n in negative.tolist()]
    assert auc(positive, negative) == pytest.approx(sum(pairs) / len(pairs))


def test_batches_group_subjects_of_one_noun() -> None:
    members = {"": list(range(20)), "cat": list(range(20, 26)), "cup": [26]}
    recipe = EncoderRecipe(groups=3, subjects_per_noun=4, others=5)
    for step in range(20):
        rows = draw_subjects(members, recipe, np.random.default_rng(step)).tolist()
        assert len(set(rows)) == len(rows)
        nouns = ["" if row < 20 else "cat" if row < 26 else "cup" for row in rows]
        assert (
            nouns[0] == nouns[1] == nouns[2] == nouns[3] != "cup"
        )  # alone of its noun: nothing to be told from


def test_training_uses_subjects_that_are_never_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another split is another stream of random numbers: even equal seeds give other subjects."""
    splits = []

    def spy(split: world.Split, *rest: object) -> Pool:
        splits.append(split)
        return render_pool(split, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder_training, "render_pool", spy)
    train(TINY)
    assert splits == ["scorer"]
    looks = {
        split: [str(world.sample_subject(seed, split, "cup").parts) for seed in range(20)]
        for split in ("scorer", "train", "held_out")
    }
    assert not set(looks["scorer"]) & set(looks["train"] + looks["held_out"])


def test_training_is_a_function_of_its_recipe() -> None:
    first, record = train(TINY)
    torch.manual_seed(1)
    second, _ = train(TINY)
    assert record["steps"] == 2
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    with pytest.raises(UsageError, match="do not fill one batch"):
        train(EncoderRecipe(subjects=3))


def test_a_gradient_that_is_not_finite_ends_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        encoder_training,
        "batch_loss",
        lambda network, *_: (0 * next(iter(network.parameters())).sum()).sqrt(),
    )
    with pytest.raises(JeDiError, match="The gradient of step 1 is not finite"):
        train(TINY)


def test_pool_labels_are_those_of_the_pictures() -> None:
    pool = render_pool("held_out", 0, 3, 2)
    assert pool.pictures.shape == (3, 2, 3, SIDE, SIDE)
    assert pool.masks.any((2, 3)).all()
    assert (pool.labels["style"][:, 0] == 0).all()
    assert (pool.labels["attribute"][:, 0] == 0).all()
    for row in range(3):
        noun = world.sample_subject(row, "held_out").noun
        assert NOUNS[pool.labels["noun"][row, 1]] == ("" if noun in world.THING_NOUNS else noun)


def test_judging_measures_every_field() -> None:
    found = judge(Encoders(ScorerNetwork()), 4)
    assert found.keys() == {"scene", "style", "attribute", "noun", "identity_auc", "impostor_auc"}


def test_file_round_trip_in_half_precision(tmp_path: Path) -> None:
    network = ScorerNetwork()
    save_encoders(network, tmp_path, {"steps": 3})
    loaded = load_encoders(tmp_path)
    assert loaded.record == {"steps": 3}
    for name, value in network.state_dict().items():
        kept = loaded.network.state_dict()[name]
        expected = value.half().to(kept.dtype) if value.is_floating_point() else value
        assert torch.equal(kept, expected), name


def test_encoders_of_another_world_are_refused(tmp_path: Path) -> None:
    path = save_encoders(ScorerNetwork(), tmp_path, {})
    save_file(load_file(path), path, metadata={"vocabulary": "[]"})
    with pytest.raises(ModelError, match="jedi toybox encoders"):
        load_encoders(tmp_path)
    with pytest.raises(ModelError):
        load_encoders(tmp_path / "nothing")


def test_bundled_encoders_are_small_and_tell_pictures_apart() -> None:
    assert (BUNDLED / FILE).stat().st_size < 2_000_000
    encoders = load_encoders()
    specs = [
        world.sample_picture(world.sample_subject(900_000 + number, "held_out"), number)
        for number in range(32)
    ]
    fields = encoders.read(world.render(specs, SIDE, 2).pictures).fields
    right = [
        FIELDS["scene"][place] == spec.scene
        for place, spec in zip(fields["scene"].argmax(1), specs, strict=True)
    ]
    assert sum(right) >= 24
