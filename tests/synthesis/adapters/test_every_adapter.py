"""What every kind of model that a recipe can name keeps: one result an item, in order, whatever its batch.

What a result says is each adapter's own test; here are the promises of `synthesis.protocols`.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.synthesis.adapters.endpoint import KEY_VARIABLE, URL_VARIABLE
from jedi_diffusion.synthesis.models_config import KINDS, build_model
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.prompts import object_request
from jedi_diffusion.synthesis.protocols import Failure
from jedi_diffusion.synthesis.recipe import PARTS
from jedi_diffusion.vision.detection import Box
from tests.helpers.chat_server import Server
from tests.helpers.synthesis_models import disc_mask

SIDE = 64
SEEDS = [3, 2**63 - 1, 0, 8]
PROMPTS = [f"robot, example {number}, photos of the same" for number in range(4)]
SCENES = ["a robot in the snow", "a dog on the beach", "a robot", "a dog in the snow"]
STYLES = ["make it a pencil sketch", "make it pixel art", "make it pop art", "make it a pencil sketch"]
NAMES = ["teapot", "fire truck", "teapot", "a"]
TINY: dict[tuple[str, str], dict[str, Any]] = {
    ("writer", "instruct"): {"model": "instruct", "max_new_tokens": 8},
    ("writer", "endpoint"): {"model": "tiny"},
    ("generator", "text-to-image"): {"model": "sdxl", "steps": 2},
    ("detector", "grounding-dino"): {"model": "grounding_dino", "box_threshold": 0.1, "text_threshold": 0.0},
    ("segmenter", "sam"): {"model": "sam"},
    ("embedder", "clip"): {"model": "clip"},
    ("inpainter", "inpainting"): {"model": "inpainting", "steps": 2},
    ("stylizer", "instruct-pix2pix"): {"model": "pix2pix", "steps": 2},
    ("captioner", "blip-2"): {"model": "blip2", "beams": 1, "max_new_tokens": 5},
    ("generator", "toybox"): {"rays": 1},
    ("inpainter", "toybox"): {"rays": 1},
}
"""Settings of small models; a model that is a name of `small_adapters` is saved and given by its folder."""


def scene(seed: int) -> Image.Image:
    """A disc of one colour on noise."""
    random = np.random.default_rng(seed)
    pixels = random.integers(180, 220, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[disc_mask(SIDE, 0.4 + 0.05 * seed, 0.5, 0.25)] = random.integers(20, 120, 3)
    return Image.fromarray(pixels)


SHOWN = [scene(seed) for seed in range(4)]
HOLES = [Image.fromarray(~disc_mask(SIDE, 0.5, 0.5, 0.2)).convert("L") for _ in SHOWN]
BOXES = [[Box(8, 10, 50, 54)], [Box(20, 16, 60, 50), Box(2, 2, 30, 30)], [], [Box(30.5, 16.2, 60, 50)]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture(params=list(KINDS), ids="-".join)
def adapter(
    request: pytest.FixtureRequest,
    checkpoint: Callable[[str], Path],
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, str, Callable[[], Any]]:
    """A part, a kind, and what builds its model."""
    part, kind = request.param
    if kind == "plain-background":
        pytest.importorskip("skimage")
    monkeypatch.setenv(URL_VARIABLE, server.url)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    given = dict(TINY.get((part, kind), {}))
    if "model" in given and kind != "endpoint":
        given["model"] = str(checkpoint(given["model"]))
    settings = KINDS[part, kind].settings.model_validate({"kind": kind, **given})
    return part, kind, lambda: build_model(part, settings, "cpu")


def ask(part: str, kind: str, model: Any, places: Sequence[int]) -> Sequence[Any]:
    """The model's results for these of the items."""

    def of(items: Sequence[Any]) -> list[Any]:
        return [items[place] for place in places]

    match part:
        case "writer":  # templates answer the pipeline's requests alone, which are long for a tiny model
            requests = [f"{number}?" for number in range(4)]
            if kind in ("templates", "toybox"):
                requests = [object_request(ObjectName(name, "toy"), 2, 20) for name in NAMES]
            return model.write(of(requests), of(SEEDS))
        case "generator":
            return model.generate(of(PROMPTS), of(SEEDS), (SIDE, SIDE))
        case "detector":
            return model.detect(of(SHOWN), of(NAMES))
        case "segmenter":
            return model.segment(of(SHOWN), of(BOXES))
        case "embedder":
            return model.embed(of(SHOWN))
        case "inpainter":
            return model.inpaint(of(SHOWN), of(HOLES), of(SCENES), of(SEEDS))
        case "stylizer":
            return model.stylize(of(SHOWN), of(STYLES), of(SEEDS))
        case _:
            return model.caption(of(SHOWN), of(SEEDS))


def check(part: str, result: Any, place: int) -> None:
    """The form of one result."""
    match part:
        case "writer":
            assert isinstance(result, str | Failure)
        case "captioner":
            assert isinstance(result, str)
            assert result.strip() == result
        case "generator" | "inpainter" | "stylizer":
            assert (result.mode, result.size) == ("RGB", (SIDE, SIDE))
        case "detector":
            for each in result:
                assert 0 <= each.score <= 1
                assert 0 <= each.box.left < each.box.right <= SIDE
                assert 0 <= each.box.top < each.box.bottom <= SIDE
        case "segmenter":
            assert [(mask.dtype, mask.shape) for mask in result] == [(bool, (SIDE, SIDE))] * len(BOXES[place])
        case _:
            assert (result.dtype, result.ndim) == (np.float32, 1)
            assert np.linalg.norm(result) > 0


def alike(part: str, one: Any, other: Any) -> bool:
    """Whether two results are the same, but for how a batch rounds."""
    match part:
        case "generator" | "inpainter" | "stylizer":
            return int(np.abs(np.asarray(one).astype(int) - np.asarray(other)).max()) <= 2
        case "detector":
            rows = [
                np.array([[*vars(each.box).values(), each.score] for each in each_of])
                for each_of in (one, other)
            ]
            return rows[0].shape == rows[1].shape and np.allclose(*rows, atol=0.01)
        case "segmenter":
            return np.mean([first != second for first, second in zip(one, other, strict=True)] or 0) < 1e-3
        case "embedder":
            return np.allclose(one, other, atol=1e-4)
        case _:
            return one == other


def test_results_are_one_an_item_in_order_and_no_batch_changes_them(adapter: Any) -> None:
    part, kind, build = adapter
    model = build()
    together = ask(part, kind, model, range(4))
    assert len(together) == 4
    for place, result in enumerate(together):
        check(part, result, place)
    back = ask(part, kind, model, [3, 2, 1, 0])
    for place in range(4):
        assert alike(part, together[place], back[3 - place])
        assert alike(part, together[place], ask(part, kind, model, [place])[0])
    if part != "embedder":
        assert list(ask(part, kind, model, [])) == []


def test_the_fingerprint_is_a_line_that_another_of_its_kind_shares(adapter: Any) -> None:
    _, _, build = adapter
    first, second = build(), build()
    assert first.fingerprint
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint.isprintable()


@pytest.mark.parametrize(
    "adapter", [key for key in KINDS if key[0] in ("generator", "inpainter")], indirect=True, ids="-".join
)
def test_a_seed_decides_what_is_drawn(adapter: Any) -> None:
    part, _, build = adapter
    model, seeds = build(), [1, 2, 1]
    if part == "generator":
        first, other, again = model.generate(PROMPTS[:1] * 3, seeds, (SIDE, SIDE))
    else:
        first, other, again = model.inpaint(SHOWN[:1] * 3, HOLES[:1] * 3, SCENES[:1] * 3, seeds)
    assert alike(part, first, again)
    assert not alike(part, first, other)


def test_every_part_has_a_kind() -> None:
    assert {part for part, _ in KINDS} == set(PARTS)
