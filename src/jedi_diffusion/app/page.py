"""The page for people, in gradio: photos, prompts, a few plain controls, progress, and what was made."""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from PIL import Image

from jedi_diffusion.app.jobs import Job
from jedi_diffusion.app.service import Service, asleep, woken_by
from jedi_diffusion.app.session import (
    MAX_PHOTOS,
    QUALITIES,
    Controls,
    Example,
    Examples,
    Photo,
    Session,
    ask_of,
    forget,
    keep,
    marked,
    read_photo,
    status_of,
    write_zip,
)
from jedi_diffusion.app.uploads import MAX_PHOTO, shown_name
from jedi_diffusion.errors import JeDiError

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

SESSION_SECONDS = 6 * 3600
CACHE_SECONDS = 3600
REFRESH = 0.25
"""Seconds between two updates of the page at least."""
CSS = """
.gradio-container { max-width: 76rem !important; margin: 0 auto; }
mark { text-decoration: line-through; }
.grid-wrap { min-height: 0 !important; padding-top: 2.25rem !important; }
.grid-container { grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)) !important; }
.thumbnail-item { min-width: 0; }
#words p { white-space: pre-line; }
progress { width: 100%; }
@media (max-width: 40rem) { .gradio-container { padding: 0.5rem !important; } }
"""


# Nothing is shared with anybody, so gradio's button for that goes.
STRIP: dict[str, Any] = {
    "columns": 4,
    "height": "auto",
    "fit_columns": False,
    "interactive": False,
    "allow_preview": False,
    "buttons": [],
}
SHOWN: dict[str, Any] = STRIP | {"allow_preview": True, "buttons": ["download", "fullscreen"]}
"""How galleries look."""


class Page:
    """The page over one service. Its pictures live in a temporary folder that goes with the server."""

    def __init__(self, service: Service, examples: Examples | None = None) -> None:
        self.service, self.examples = service, examples
        self._folder = tempfile.TemporaryDirectory(prefix="jedi-page-")
        self.folder = Path(self._folder.name).resolve()
        self._fixed = list(examples.fixed()) if examples else []
        self.blocks = self._build()

    def mount(self, app: FastAPI) -> None:
        """Serve the page at /, below the routes that are there already."""
        gr.mount_gradio_app(
            app,
            self.blocks,
            "/",
            footer_links=[],
            run_history=False,
            allowed_paths=[str(self.folder)],
            max_file_size=MAX_PHOTO,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=CSS,
        )

    def _build(self) -> gr.Blocks:
        cache = (CACHE_SECONDS, CACHE_SECONDS)
        with gr.Blocks(title="jedi-diffusion", analytics_enabled=False, delete_cache=cache) as blocks:
            session = gr.State(Session(), time_to_live=SESSION_SECONDS, delete_callback=self.leave)
            gr.Markdown(f"# New pictures of your subject\n\n{self.service.card.about}")
            with gr.Row():
                with gr.Column():
                    what = self._photos(session)
                    controls = self._controls(what)
                with gr.Column():
                    self._results(session, controls)
        blocks.queue(default_concurrency_limit=None, max_size=256)
        return blocks

    # The left side: photos and their crops, then what is asked for

    def _photos(self, session: gr.State) -> gr.Textbox:
        files = gr.File(
            label=f"Photos of your subject, 1 to {MAX_PHOTOS}",
            file_count="multiple",
            file_types=["image"],
            elem_id="photos",
        )
        only_uploads(files)
        picked = gr.Gallery(
            [(each.picture, each.what) for each in self._fixed],
            label="Or pick a subject that the model has never seen",
            visible=bool(self._fixed),
            elem_id="examples",
            **STRIP,
        )
        surprise = gr.Button("Surprise me", visible=bool(self._fixed), elem_id="surprise")
        crops = gr.Gallery(
            label="As the model sees them; choose one to move its crop", elem_id="crops", **STRIP
        )
        with gr.Row():
            across = gr.Slider(0, 100, 50, step=1, label="Crop: left to right", elem_id="across")
            down = gr.Slider(0, 100, 50, step=1, label="Crop: top to bottom", elem_id="down")
        what = gr.Textbox(label="What it is", placeholder="a robot", max_length=200, elem_id="what")
        self._shown = [crops, across, down, session]
        files.change(self.upload, [files, session], self._shown, api_visibility="private")
        picked.select(self.pick, session, [*self._shown, what], api_visibility="private")
        surprise.click(self.surprise, session, [*self._shown, what], api_visibility="private")
        crops.select(self.choose, session, [across, down], api_visibility="private")
        for slider in (across, down):  # `change` hears the keyboard too
            slider.change(
                self.move, [across, down, session], crops, show_progress="hidden", api_visibility="private"
            )
        return what

    def _controls(self, what: gr.Textbox) -> list[Any]:
        """The components whose values are the fields of `Controls`, in order."""
        prompts = gr.Textbox(
            label="What to show, one prompt a line",
            placeholder="a robot on the beach\na pencil sketch of a robot",
            lines=3,
            max_length=20_000,
            elem_id="prompts",
        )
        words = gr.HTML(elem_id="words")
        count = gr.Slider(1, 4, 1, step=1, label="Pictures of each prompt", elem_id="count")
        balance = gr.Slider(
            -1,
            1,
            0,
            step=0.1,
            label="Stay close to my photos (left) or follow my prompt (right)",
            elem_id="balance",
        )
        quality = gr.Radio(list(QUALITIES), value="balanced", label="Speed or quality", elem_id="quality")
        with gr.Row():
            seed = gr.Number(None, label="Seed", precision=0, minimum=0, elem_id="seed")
            locked = gr.Checkbox(False, label="Keep this seed", elem_id="locked")
        with gr.Accordion("More", open=False):
            by_hand = gr.Checkbox(False, label="Set all by hand, in place of the two controls above")
            mode = gr.Dropdown(
                ["joint", "text_first", "image_first", "text_only"], value="joint", label="Guidance"
            )
            text = gr.Number(3.0, label="Scale of the text", minimum=0, maximum=100)
            image = gr.Number(3.0, label="Scale of the photos", minimum=0, maximum=100)
            steps = gr.Number(25, label="Steps", precision=0, minimum=1, maximum=1000)
            coupling = gr.Dropdown(["joint", "cached"], value="joint", label="Coupling")
        self._locked = locked
        for box in (prompts, what):
            box.change(self.mark, [prompts, what], words, show_progress="hidden", api_visibility="private")
        return [what, prompts, count, balance, quality, seed, by_hand, mode, text, image, steps, coupling]

    # The right side: progress, what was made, and what can be done with it

    def _results(self, session: gr.State, controls: list[Any]) -> None:
        with gr.Row():
            start = gr.Button("Generate", variant="primary", elem_id="generate")
            stop = gr.Button("Cancel", elem_id="cancel")
        status = gr.HTML('<div role="status" aria-live="polite"></div>', elem_id="status")
        preview = gr.Gallery(label="In the making", elem_id="preview", visible=False, **STRIP)
        made = gr.Gallery(label="Pictures of this session", elem_id="made", **SHOWN)
        with gr.Row():
            again = gr.Button("Use these settings", interactive=False, elem_id="again")
            reuse = gr.Button("Use this picture as a reference", interactive=False, elem_id="reuse")
        with gr.Row():
            png = gr.DownloadButton("Download this PNG", interactive=False, elem_id="png")
            everything = gr.DownloadButton("Download all (zip)", interactive=False, elem_id="zip")
        settings = gr.JSON(label="Settings of the selected picture", elem_id="settings")
        seed = controls[5]
        start.click(
            self.generate,
            [session, self._locked, *controls],
            [status, preview, made, everything, seed],
            show_progress="hidden",
            api_visibility="private",
        )
        stop.click(self.cancel, session, None, show_progress="hidden", api_visibility="private")
        made.select(self.select, session, [settings, png, again, reuse], api_visibility="private")
        again.click(self.settings_again, session, [self._locked, *controls], api_visibility="private")
        reuse.click(self.use_as_reference, session, self._shown, api_visibility="private")

    # What happens. A session is changed in place; it is an output so that gradio notes when it was used.

    def upload(self, files: list[str] | None, session: Session) -> tuple[Any, ...]:
        with told():
            names = [shown_name(path, number) for number, path in enumerate(files or (), start=1)]
            photos = [read_photo(path, name) for path, name in zip(files or (), names, strict=True)]
            session.give_photos(photos)
        return self._photos_shown(session)

    def pick(self, session: Session, event: gr.SelectData) -> tuple[Any, ...]:
        return self._try(session, self._fixed[int(event.index)])

    def surprise(self, session: Session) -> tuple[Any, ...]:
        assert self.examples is not None
        return self._try(session, self.examples.surprise(secrets.randbelow(2**31)))

    def _try(self, session: Session, example: Example) -> tuple[Any, ...]:
        session.give_photos([Photo(example.picture, example.what)])
        return *self._photos_shown(session), example.what

    def choose(self, session: Session, event: gr.SelectData) -> tuple[float, float]:
        session.chosen = int(event.index)
        photo = session.photo
        return (100 * photo.across, 100 * photo.down) if photo else (50, 50)

    def move(self, across: float, down: float, session: Session) -> Any:
        if session.photo is not None:
            session.photo.across, session.photo.down = (min(1, max(0, each / 100)) for each in (across, down))
        return self._crops(session)

    def mark(self, prompts: str, what: str) -> str:
        unknown = self.service.unknown_words([*prompts.splitlines()[:50], what])
        return marked(f"{what}\n{prompts}".strip(), unknown)

    async def generate(
        self, request: gr.Request, session: Session, locked: bool, *values: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Status, pictures in the making, pictures of the session, zip, seed; again and again until done."""
        engine, card = self.service.engine, self.service.card
        controls = controls_of(values)
        if not locked:
            controls = replace(controls, seed=None)
        with told():
            if session.job is not None and not session.job.is_over:
                raise JeDiError("Pictures are being made already; cancel them first.")
            ask = await asyncio.to_thread(ask_of, session, controls, card)
            job = engine.submit(ask, f"page-{request.session_hash}", previews=True)
        session.job = job
        controls = replace(controls, seed=ask.seeds[0])
        try:
            async for status in self._follow(job):
                yield status, in_the_making(job), gr.skip(), gr.skip(), controls.seed
        finally:
            engine.cancel(job)  # the visitor has left; nothing happens to a job that is over
        if job.error is not None:
            yield (
                f'<div role="alert">{job.error}</div>',
                gr.Gallery([], visible=False),
                gr.skip(),
                gr.skip(),
                controls.seed,
            )
            return
        new = await asyncio.to_thread(keep, session, job, controls, card, self.folder)
        archive = await asyncio.to_thread(write_zip, session, self.folder)
        session.selected = None
        done = f'<div role="status" aria-live="polite">{len(new)} pictures are done.</div>'
        shown = [(str(each.path), f"{each.prompt} ({each.seed})") for each in session.made]
        button = gr.DownloadButton(value=str(archive), interactive=True)
        yield done, gr.Gallery([], visible=False), gr.Gallery(shown), button, controls.seed

    async def _follow(self, job: Job) -> AsyncIterator[str]:
        with woken_by(job) as changed:
            while not job.is_over:
                yield status_of(job, self.service.engine.seconds_left(job))
                await asyncio.sleep(REFRESH)
                await asleep(changed, 1.0)
                self.service.engine.end_what_is_late()

    def cancel(self, session: Session) -> None:
        if session.job is not None:
            self.service.engine.cancel(session.job)

    def select(self, session: Session, event: gr.SelectData) -> tuple[Any, ...]:
        session.selected = int(event.index)
        made = session.picture
        if made is None:
            off = gr.Button(interactive=False)
            return None, gr.DownloadButton(value=None, interactive=False), off, off
        on = gr.Button(interactive=True)
        return made.parameters, gr.DownloadButton(value=str(made.path), interactive=True), on, on

    def settings_again(self, session: Session) -> list[Any]:
        """The controls as they were, with the seed of the selected picture, locked."""
        made = session.picture
        if made is None:
            return [gr.skip()] * (1 + len(fields(Controls)))
        return [True, *astuple(replace(made.controls, prompts=made.prompt, count=1, seed=made.seed))]

    def use_as_reference(self, session: Session) -> tuple[Any, ...]:
        with told():
            if session.picture is not None:
                made = session.picture
                session.give_photos([*session.photos, read_photo(made.path, made.path.name)])
        return self._photos_shown(session)

    def leave(self, session: Session) -> None:
        """A visitor is gone."""
        self.cancel(session)
        forget(session)

    def _photos_shown(self, session: Session) -> tuple[Any, ...]:
        return self._crops(session), 50, 50, session

    def _crops(self, session: Session) -> Any:
        side = self.service.card.size
        return gr.Gallery([(photo.crop(side, side), photo.name) for photo in session.photos])


def controls_of(values: tuple[Any, ...]) -> Controls:
    """Components' values in the order of `Controls`. Empty numbers become the defaults."""
    given = zip(fields(Controls), values, strict=True)
    return Controls(**{field.name: value for field, value in given if value is not None})


def in_the_making(job: Job) -> Any:
    """What there is of a job's pictures: finished ones, previews, and gray ones for those not begun."""
    gray = Image.new("RGB", (job.ask.sampling.width, job.ask.sampling.height), "gray")
    total = job.ask.sampling.steps
    shown = [made or preview or gray for made, preview in zip(job.pictures, job.previews, strict=True)]
    texts = [
        f"{prompt}: step {step} of {total}" for prompt, step in zip(job.ask.prompts, job.steps, strict=True)
    ]
    return gr.Gallery(list(zip(shown, texts, strict=True)), visible=True)


@contextmanager
def told() -> Iterator[None]:
    """Shows our errors, which are sentences for people, on the page."""
    try:
        yield
    except JeDiError as error:
        raise gr.Error(str(error), print_exception=False) from error


def only_uploads(component: Any) -> None:
    """Gradio fetches files that a request gives as addresses; this page takes none but uploads."""
    move = component.async_move_resource_to_block_cache

    async def checked(path: Any) -> Any:
        if "://" in str(path):
            raise gr.Error("A photo must be uploaded; addresses are not read.", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = checked
