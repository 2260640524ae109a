"""Templates and filters, which need no model: they answer the pipeline's own requests."""

import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.errors import ModelError, UsageError
from jedi_diffusion.synthesis.adapters.filters import FILTERS, PillowStylizer
from jedi_diffusion.synthesis.adapters.templates import TemplatePromptWriter
from jedi_diffusion.synthesis.names import ObjectName
from jedi_diffusion.synthesis.prompts import object_request, plan_collages, read_answer, scene_request
from jedi_diffusion.synthesis.protocols import Failure
from jedi_diffusion.synthesis.settings import STYLES, StageSettings


def test_templates_answer_what_the_pipeline_asks() -> None:
    items = [ObjectName("teddy bear", "toy"), ObjectName('new "X" (3) bike', "odd")]
    made = plan_collages(items, TemplatePromptWriter(), StageSettings(collages=30), 1)
    assert not made.rejected
    assert len({plan.prompt for plan in made.kept}) == 60
    assert all(plan.prompt.startswith(plan.key.item.name) for plan in made.kept)


def test_scenes_come_each_once_before_any_comes_again() -> None:
    writer = TemplatePromptWriter(["here", "there"])
    (answer,) = writer.write([scene_request(ObjectName("cup"), 3, 60)], [4])
    prompts = read_answer(answer)
    assert sorted(prompts[:2]) == ["a cup here", "a cup there"]
    assert prompts[2] == f"{prompts[0]}, view 2"
    orders = {writer.write([scene_request(ObjectName("cup"), 2, 60)], [seed])[0] for seed in range(9)}
    assert len(orders) == 2


def test_other_requests_fail_and_no_scene_is_refused() -> None:
    (answer,) = TemplatePromptWriter().write(["Write a poem."], [0])
    assert isinstance(answer, Failure)
    with pytest.raises(UsageError, match="at least one scene"):
        TemplatePromptWriter([])
    requests = [object_request(ObjectName("cup"), 2, 60)] * 2
    assert len(set(TemplatePromptWriter().write(requests, [1, 2]))) == 2


def test_every_filter_is_a_style_of_the_settings_and_changes_the_picture() -> None:
    assert FILTERS.keys() <= set(STYLES)
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
    made = PillowStylizer().stylize([picture] * len(FILTERS), list(FILTERS), [0] * len(FILTERS))
    assert all(each.size == (64, 64) and each.mode == "RGB" for each in made)
    assert len({each.tobytes() for each in made} | {picture.tobytes()}) == len(FILTERS) + 1
    with pytest.raises(ModelError, match="No filter follows 'make it rain'"):
        PillowStylizer().stylize([picture], ["make it rain"], [0])


def test_a_plain_picture_stays_plain_in_every_style() -> None:
    picture = Image.new("RGB", (64, 64), (120, 160, 90))
    for made in PillowStylizer().stylize([picture] * len(FILTERS), list(FILTERS), [0] * len(FILTERS)):
        assert len(made.getcolors()) == 1  # no frame
