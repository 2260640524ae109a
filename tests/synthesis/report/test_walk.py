"""The walk through the stages shows what a run makes, and the page says what became of everything."""

import re

from jedi_diffusion.synthesis.report.walk import walk, walk_page
from jedi_diffusion.synthesis.work import STEP_NAMES, do_all
from tests.helpers.synthesis_models import Failing, Writer, make_models
from tests.helpers.synthesis_runs import ITEMS, Telling, recipe

DISC = ITEMS[0]


def test_a_walk_makes_what_a_run_makes() -> None:
    given = recipe()
    made = walk(given, DISC, make_models(generator=Telling()), collages=1)
    assert tuple(made.works) == STEP_NAMES
    run = do_all(given.seed, ITEMS[:2], make_models(generator=Telling()), given.stages)
    wanted = [each for each in run.sets if (each.info["object"], each.info["collage"]) == ("disc", 0)]
    assert [each.info for each in made.works["set"].sets] == [each.info for each in wanted]
    for one, other in zip(made.works["set"].sets, wanted, strict=True):
        assert one.captions == other.captions
        assert one.pictures == other.pictures
    both = walk(given, DISC, make_models(), collages=2)
    assert {each.key.collage for each in both.works["prompt"].records} == {0, 1}


def test_the_page_shows_every_stage_and_every_reason() -> None:
    given = recipe()
    page = walk_page(given, [walk(given, DISC, make_models()), walk(given, ITEMS[1], make_models())])
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles[: len(titles) // 2] == [
        "Stage 1: the prompt",
        "Stages 2 and 3: the collage, and the instances in it",
        "Stage 4: cut out and compared",
        "Stage 5: pasted at a random place and scale",
        "Stage 5: inpainted",
        "Stage 6: restyled, with probability 0.5",
        "Stages 7 and 8: set 0 of subject 0, with captions",
    ]
    # a collage and its boxes, four cut-outs, three pictures of each stage and of the set
    assert page.count("<img ") == 2 * (2 + 4 + 3 * 4)
    assert "cut off by the border (0 pixels from the border, nearer than 1)" in page
    assert "too small (covers " in page
    assert re.search(r"instance \d, alone: 0\.\d\d to \d, 0\.\d\d to \d", page)
    assert "What each stage does: a &lt;test&gt;" in page
    assert "http" not in page.replace("http-equiv", "")


def test_what_has_no_place_is_told_too() -> None:
    given = recipe()
    lost = walk_page(given, [walk(given, DISC, make_models(captioner=Failing()))])
    assert (
        "Collage 0, stage caption: the model gave no answer (CUDA error: an illegal memory access)." in lost
    )
    assert "Stages 7 and 8" not in lost
    mute = walk_page(given, [walk(given, DISC, make_models(writer=Writer(["no"])))])
    assert "stage prompt: the language model&#39;s answer has no prompts in it (no)." in mute
    assert "Collage 1" not in mute
    assert "<img " not in mute
