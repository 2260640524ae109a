"""The engine with a real, tiny pipeline: bit-equal pictures, cancelling inside a call, when to batch."""

import base64
import io
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from jedi_diffusion.app import runner as app_runner
from jedi_diffusion.app.engine import Engine
from jedi_diffusion.app.jobs import Ask, StoppedError
from jedi_diffusion.app.runner import ModelCard, PipelineRunner, measured_batch
from jedi_diffusion.backbones.unet import UNetBackbone
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import UsageError
from jedi_diffusion.inputs import PromptReader
from jedi_diffusion.options import SizedSampling
from tests.helpers.fake_runners import wait
from tests.helpers.small_pipelines import make_tokenizer

SAMPLING = SizedSampling(height=32, width=32, steps=3)


def photo(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def photo_ask(prompt: str, seed: int) -> Ask:
    return Ask((prompt,) * 2, (seed, seed + 1), (photo(seed),), ("a robot",), SAMPLING)


@pytest.fixture(autouse=True)
def steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, nothing is said inside a step, unless a test asks for it."""
    monkeypatch.setattr(app_runner, "LOOK", 1e9)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> PipelineRunner:
    from jedi_diffusion import JeDiPipeline
    from tests.helpers.small_pipelines import save_joint

    pipe = JeDiPipeline.from_pretrained(save_joint(tmp_path_factory.mktemp("models") / "joint"))
    pipe.set_progress_bar_config(disable=True)
    return PipelineRunner(pipe)


def test_row_15_two_subjects_at_once_are_bit_equal_to_solo_runs(runner) -> None:
    asks = [photo_ask("a robot on the beach", 1), photo_ask("a dog in the snow", 2)]
    solo = []
    for ask in asks:
        calls = [Call(ask.prompts[:1], [seed], ask.references, ask.captions, SAMPLING) for seed in ask.seeds]
        solo.append([runner.run(call, lambda *_: None)[0].tobytes() for call in calls])
    assert len({each for pictures in solo for each in pictures}) == 4
    engine = Engine([runner])
    try:
        jobs = [engine.submit(ask, str(number)) for number, ask in enumerate(asks)]
        assert [[each.tobytes() for each in wait(job, 60).result()] for job in jobs] == solo
    finally:
        engine.close(grace=0)


def test_row_15_two_clients_at_once_are_bit_equal_to_solo_runs(serve, runner) -> None:
    """The same through the running server, each client with photo, prompt and seed of its own."""
    running = serve(Gated(runner.pipe))
    asks = {number: photo_ask(prompt, number) for number, prompt in enumerate(("a robot", "a dog"), start=1)}
    answers: dict[int, list[bytes]] = {}
    start = threading.Barrier(len(asks))

    def edit(number: int) -> None:
        data = io.BytesIO()
        photo(number).save(data, format="PNG")
        form = {"prompt": asks[number].prompts[0], "n": "2", "seed": str(number), "steps": "3"}
        form |= {"size": "32x32", "reference_prompt": "a robot"}
        start.wait()
        with running.client() as client:
            answer = client.post("/v1/images/edits", data=form, files={"image": data.getvalue()})
        rows = [base64.b64decode(row["b64_json"]) for row in answer.json()["data"]]
        answers[number] = [Image.open(io.BytesIO(row)).tobytes() for row in rows]

    threads = [threading.Thread(target=edit, args=(number,)) for number in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number, ask in asks.items():
        calls = [Call(ask.prompts[:1], [seed], ask.references, ask.captions, SAMPLING) for seed in ask.seeds]
        assert answers[number] == [runner.run(call, lambda *_: None)[0].tobytes() for call in calls]


class Gated(PipelineRunner):
    """With the gate that the fixture `serve` opens at the end."""

    def __init__(self, pipe: object) -> None:
        super().__init__(pipe)
        self.gate = threading.Event()


def test_a_shared_call_gives_the_same_pictures(runner) -> None:
    calls = [Call(["a robot"] * len(seeds), seeds, [photo(1)], [], SAMPLING) for seeds in ([1], [2], [1, 2])]
    one, two, both = (runner.run(call, lambda *_: None) for call in calls)
    for alone, together in zip((*one, *two), both, strict=True):
        assert np.abs(np.asarray(alone, dtype=int) - np.asarray(together)).max() <= 1


@pytest.mark.parametrize(("look", "ends_at"), [(1e9, 0), (0.0, -1)])
def test_a_call_ends_when_nobody_waits_between_steps_and_inside_one(
    look, ends_at, runner, monkeypatch
) -> None:
    monkeypatch.setattr(app_runner, "LOOK", look)
    seen: list[int] = []

    def stop(step: int, preview: object) -> None:
        seen.append(step)
        raise StoppedError

    with pytest.raises(StoppedError):
        runner.run(Call(["a robot"], [0], [], [], SAMPLING), stop)
    assert seen == [ends_at]
    assert not any(layer._forward_pre_hooks for layer in runner.pipe.unet.modules())


def test_previews_show_what_the_picture_will_be_and_not_its_noise(runner, monkeypatch) -> None:
    """A network that knows its picture: the preview of the first step is that picture."""
    wanted = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = runner.pipe.scheduler.alphas_cumprod

    class Oracle(UNetBackbone):
        def predict(self, noisy, timestep, batch, reads):
            return (noisy - levels[timestep].sqrt() * wanted) / (1 - levels[timestep]).sqrt()

    monkeypatch.setattr("jedi_diffusion.pipeline.family_of", lambda _: Oracle)
    shown: list[Image.Image] = []
    call = Call(["a"], [0], [], [], SAMPLING)
    runner.run(call, lambda step, preview: shown.extend(preview()))
    (picture,) = runner.pipe.image_processor.postprocess(runner.pipe.decode_latents(wanted).detach())
    assert len(shown) == 3
    for each in shown:
        assert np.abs(np.asarray(each, int) - np.asarray(picture, int)).max() <= 1


def test_previews_are_pictures_of_the_right_size(runner) -> None:
    shown: list[Image.Image] = []
    runner.run(Call(["a", "b"], [0, 1], [], [], SAMPLING), lambda step, preview: shown.extend(preview()))
    assert [each.size for each in shown] == [(32, 32)] * 6


class Timed:
    """A runner whose calls take `fixed` seconds and `each` seconds a picture, by its own clock."""

    def __init__(self, fixed: float, each: float) -> None:
        self.fixed, self.each, self.now = fixed, each, 0.0

    def clock(self) -> float:
        return self.now

    def run(self, call: Call, after_step: object) -> list[Image.Image]:
        self.now += self.fixed + self.each * len(call.prompts)
        return []


def test_as_many_steps_as_the_schedule_has_are_a_user_error(runner) -> None:
    """DDIM with Stable Diffusion's offset would begin one timestep beyond its last."""
    call = Call(["a robot"], [0], [], [], SizedSampling(height=32, width=32, steps=1000))
    with pytest.raises(UsageError, match="1000 steps"):
        runner.run(call, lambda *_: None)


def test_batches_are_used_only_where_they_are_faster() -> None:
    for fixed, each, most, best in ((1, 0, 8, 8), (1, 0, 4, 4), (0, 1, 8, 1), (0.05, 1, 8, 1)):
        timed = Timed(fixed, each)
        assert measured_batch(timed, 16, most, timed.clock) == best


def test_words_are_unknown_to_closed_vocabularies_only() -> None:
    card = ModelCard("a model", "f" * 64, "DDIMScheduler", 32, 8)
    assert card.unknown_words(["a zebra"]) == []
    assert card.cut_off(["a zebra"]) == []
    closed = replace(card, reader=PromptReader.of(make_tokenizer(6, whole_words=["a", "robot"])))
    asked = ["a zebra", "a Robot zebra crossing", "a a a a a robot"]
    assert closed.unknown_words(asked) == ["zebra", "crossing"]
    (said,) = closed.cut_off(asked)
    assert "'a robot'" in said
