"""References that calls share: for one owner alone, within a limit of memory, and never of another model."""

import numpy as np
import pytest
import torch
from peft import LoraConfig
from PIL import Image

from jedi_diffusion import JeDiPipeline
from jedi_diffusion.calls import Call, run_call
from jedi_diffusion.errors import JeDiError
from jedi_diffusion.options import SizedSampling
from jedi_diffusion.references import Reference
from jedi_diffusion.remembered import ReferenceMemory
from tests.helpers.small_pipelines import sd_parts

SAMPLING = SizedSampling(height=64, width=64, steps=2, coupling="cached")


@pytest.fixture
def pipe() -> JeDiPipeline:
    made = JeDiPipeline(**sd_parts(in_channels=9))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def passes(pipe, monkeypatch) -> list[int]:
    """The references of every pass over references alone."""
    seen: list[int] = []
    fill = type(pipe.backbone).fill_cache

    def watched(self, references):
        seen.append(len(references.mask))
        return fill(self, references)

    monkeypatch.setattr(type(pipe.backbone), "fill_cache", watched)
    return seen


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def draw(pipe, memory, photos=(1,), owner="ann", prompt="a dog", captions=("a robot",), **given):
    sampling = SAMPLING.model_copy(update=given)
    call = Call([prompt], [0], [photo(each) for each in photos], captions, sampling, owner=owner)
    return run_call(pipe, call, lambda *_: None, memory=memory)[0].tobytes()


def test_the_same_references_are_read_once_and_give_the_same_pictures(pipe, passes) -> None:
    memory, without = ReferenceMemory(2**30), ReferenceMemory(0)
    for prompt in ("a dog", "a robot in snow", "a dog"):
        kept, anew = (draw(pipe, each, prompt=prompt) for each in (memory, without))
        assert kept == anew
        plain = draw(pipe, None, prompt=prompt)
        difference = np.frombuffer(kept, np.uint8).astype(int) - np.frombuffer(plain, np.uint8)
        assert abs(difference).max() <= 1
    assert len(passes) == 1 + 3 + 3
    assert (len(memory), len(without)) == (1, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"photos": (2,)},
        {"photos": (1, 2)},
        {"captions": ("a dog",)},
        {"captions": ()},
        {"owner": "bob"},
        {"owner": None},
        {"height": 96},
        {"coupled_layers": "up"},
        {"auto_mask": True},
        {"masking": "white"},
    ],
    ids=str,
)
def test_whatever_differs_is_read_anew(pipe, passes, other) -> None:
    memory = ReferenceMemory(2**30)
    draw(pipe, memory)
    draw(pipe, memory, **other)
    assert len(passes) == 2
    draw(pipe, memory, **other)
    assert len(passes) == (3 if "owner" in other and other["owner"] is None else 2)
    draw(pipe, memory)
    assert len(memory) == (1 if other.get("owner", "") is None else 2)


def test_a_changed_model_reads_them_anew(pipe, passes) -> None:
    memory = ReferenceMemory(2**30)
    before = draw(pipe, memory)
    config = LoraConfig(r=2, target_modules=pipe.backbone.lora_targets, init_lora_weights=False)
    pipe.network.add_adapter(config)
    assert draw(pipe, memory) != before
    assert (len(passes), len(memory)) == (2, 1)


def test_those_used_longest_ago_go_first(pipe, passes) -> None:
    memory = ReferenceMemory(2**30, most=2)
    for number in (1, 2, 1, 3):
        draw(pipe, memory, photos=(number,))
    assert len(memory) == 2
    del passes[:]
    draw(pipe, memory, photos=(1,))
    assert not passes
    draw(pipe, memory, photos=(2,))
    assert passes == [1]


def test_the_limit_of_memory_holds_and_what_is_larger_is_not_kept(pipe) -> None:
    memory = ReferenceMemory(2**30)
    draw(pipe, memory)
    one = memory.nbytes
    memory.most_bytes = 2 * one
    for number in (2, 3):
        draw(pipe, memory, photos=(number,))
    assert memory.nbytes == 2 * one
    memory.most_bytes = one - 1
    draw(pipe, memory, photos=(4,))
    assert len(memory) == 0


def test_a_pass_that_a_later_call_adds_counts(pipe) -> None:
    memory = ReferenceMemory(2**30)
    draw(pipe, memory)
    one = memory.nbytes
    staged = {"guidance_mode": "image_first", "guidance": 3.0, "image_guidance": 2.0}
    draw(pipe, memory, **staged)
    assert memory.nbytes > 1.5 * one


def test_other_calls_keep_nothing(pipe) -> None:
    memory = ReferenceMemory(2**30)
    draw(pipe, memory, coupling="joint")
    call = Call(["a dog"], [0], [], (), SAMPLING, owner="ann")
    run_call(pipe, call, lambda *_: None, memory=memory)
    assert len(memory) == 0


def test_what_is_kept_gives_way_when_memory_runs_out(pipe, monkeypatch) -> None:
    memory = ReferenceMemory(2**30)
    draw(pipe, memory)
    monkeypatch.setattr(
        JeDiPipeline, "__call__", lambda *_, **__: torch.empty(2**60, dtype=torch.uint8).fill_(0)
    )
    with pytest.raises(JeDiError, match="not enough memory"):
        draw(pipe, memory)
    assert len(memory) == 0


def test_masks_strengths_and_captions_of_references_are_part_of_what_is_kept(pipe, passes) -> None:
    """The same photo read in five ways is encoded five times."""
    memory, half = ReferenceMemory(2**30), Image.new("L", (64, 64))
    half.paste(255, (0, 0, 32, 64))
    ways = [{}, {"mask": half}, {"mask": half.rotate(180)}, {"strength": 2.0}, {"caption": "a robot"}]
    made = []
    for how in (*ways, *ways):
        call = Call(["a dog"], [0], [Reference(photo(1), **how)], (), SAMPLING, owner="ann")
        made.append(run_call(pipe, call, lambda *_: None, memory=memory)[0].tobytes())
    assert made[:5] == made[5:]
    assert len(set(made)) == 5
    assert len(memory) == 5
    assert len(passes) == 5
