"""The page for people, in gradio: photos, prompts, a few plain controls, progress, and what was made."""

from __future__ import annotations

import asyncio
import html
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from fastapi import FastAPI
from PIL import Image
from starlette.responses import Response
from starlette.routing import Mount

from jedi_diffusion.app.housekeeping import Housekeeping, trim
from jedi_diffusion.app.jobs import Job
from jedi_diffusion.app.page_gate import PageGate
from jedi_diffusion.app.private_folder import PrivateFolder
from jedi_diffusion.app.received import Received
from jedi_diffusion.app.recorded import take_settings
from jedi_diffusion.app.service import Service, asleep, woken_by
from jedi_diffusion.app.session import (
    COUNTS,
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
    label,
    marked,
    prompts_of,
    read_controls,
    read_photo,
    status_of,
    take_over,
    write_zip,
)
from jedi_diffusion.app.uploads import DECODERS, MAX_PHOTO
from jedi_diffusion.app.visitors import Visitors
from jedi_diffusion.errors import JeDiError
from jedi_diffusion.options import Sampling
from jedi_diffusion.references import faded

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr

from jedi_diffusion.app.page_masks import RAW, MaskControls

SESSION_SECONDS = 6 * 3600
REFRESH = 0.25
"""Seconds between two updates of the page at least."""
SCHEMA = Controls.model_json_schema()["properties"]
STYLE, SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
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
NOT_GIVEN = ("not given", "")
"""Choice of a setting that need not be given; the components of gradio have no None for it."""


class Page:
    """The page over one service. Photos and pictures live in a `PrivateFolder`, which goes with `close`.

    visitors: bounds what their photos hold. max_shown_bytes: files that gradio has made to be shown, on disk.
    """

    def __init__(
        self,
        service: Service,
        examples: Examples | None = None,
        visitors: Visitors | None = None,
        max_shown_bytes: int = 2**30,
    ) -> None:
        self.service, self.examples = service, examples
        self.visitors = visitors or Visitors()
        self._folder = PrivateFolder()
        self.folder = self._folder.path
        self._shown_files = self.folder / "shown"
        # Gradio takes as uploaded, and serves, what is in this folder; its own one is open to other users.
        os.environ["GRADIO_TEMP_DIR"] = str(self._shown_files)
        self.received = Received(self._shown_files / "received", service.room)
        self._visits: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._fixed = list(examples.fixed()) if examples else []
        self.blocks = self._build()
        spared = {self.received.folder, *(path for path in self._shown_files.rglob("*") if path.is_file())}
        self._housekeeping = Housekeeping(
            partial(trim, self._shown_files, max_shown_bytes, spared), self.received.drop_old
        )

    def close(self) -> None:
        """Delete the visitors' photos and pictures."""
        self._housekeeping.close()
        self._folder.close()

    def mount(self, app: FastAPI) -> None:
        """Serve the page at /, below the routes that are there already."""
        app.add_api_route("/page.js", script, include_in_schema=False)
        gr.mount_gradio_app(
            app,
            self.blocks,
            "/",
            root_path=app.state.root_path or None,
            footer_links=[],
            run_history=False,
            max_file_size=MAX_PHOTO,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=gr.themes.Base(
                primary_hue="indigo",
                font=["system-ui", "sans-serif"],
                font_mono=["ui-monospace", "monospace"],
            ),
            css=STYLE.read_text(encoding="utf-8"),
            head='<script src="page.js"></script>',
        )
        # Gradio checks paths, and serves no SVG in place, only in what it believes to have launched itself.
        self.blocks.has_launched = self.blocks.is_running = True
        mounted = app.router.routes[-1]
        assert isinstance(mounted, Mount)
        mounted.app = PageGate(mounted.app, self.received, self._shown_files)

    def _build(self) -> gr.Blocks:
        with PageBlocks(self.received, title="jedi-diffusion", analytics_enabled=False) as blocks:
            session = gr.State(Session(), time_to_live=SESSION_SECONDS, delete_callback=self.leave)
            gr.Markdown(f"# New pictures of your subject\n\n{self.service.card.about}", elem_id="about")
            with gr.Row():
                with gr.Column():
                    what = self._photos(session)
                    controls = self._controls(what)
                    with gr.Column(elem_id="go"):
                        self._words.render()
                        status = gr.Markdown(said("Your pictures will appear here."), elem_id="status", **RAW)
                        with gr.Row(elem_id="buttons"):
                            start = gr.Button("Generate", variant="primary", elem_id="generate", scale=3)
                            stop = gr.Button("Cancel", elem_id="cancel", scale=1)
                with gr.Column(elem_id="results"):
                    outputs = [status, *self._results(session, controls)]
            key = gr.BrowserState("", storage_key="jedi-diffusion")
            blocks.load(
                self.arrive,
                [key, session],
                [key, *self._shown, *outputs[2:5], self._locked, *controls],
                show_progress="hidden",
                api_visibility="private",
            )
            start.click(
                self.generate,
                [session, self._locked, *controls],
                outputs,
                show_progress="hidden",
                api_visibility="private",
            )
            stop.click(self.cancel, session, None, show_progress="hidden", api_visibility="private")
        blocks.queue(default_concurrency_limit=None, max_size=256)
        blocks.state_session_capacity = self.visitors.max_sessions
        return blocks

    # The left side: photos and their crops, then what is asked for

    def _photos(self, session: gr.State) -> gr.Textbox:
        files = gr.File(
            label=f"Photos of your subject, 1 to {MAX_PHOTOS}",
            file_count="multiple",
            file_types=["image"],
            height=96,
            elem_id="photos",
        )
        picked = gr.Gallery(
            [(each.picture, each.what) for each in self._fixed],
            label="Or a subject new to the model",
            visible=bool(self._fixed),
            elem_id="examples",
            **STRIP,
        )
        surprise = gr.Button("Surprise me", visible=bool(self._fixed), size="sm", elem_id="surprise")
        with gr.Column(visible=False) as chosen:
            crops = gr.Gallery(label="As the model sees them", elem_id="crops", **STRIP)
            across, down = (
                gr.Slider(0, 100, 50, step=1, label=label, elem_id=name, elem_classes="ends")
                for name, label in (("across", "Move the crop"), ("down", "Move the crop"))
            )
            self._masks = MaskControls(session, crops, self._crops)
            remove = gr.Button("Remove this photo", size="sm", elem_id="remove")
        what = gr.Textbox(label="What it is", placeholder="a robot", max_length=200, elem_id="what")
        self._shown = [chosen, crops, across, down, *self._masks.shown, session]
        files.upload(
            self.upload,
            [files, session],
            [files, *self._shown],
            api_visibility="private",
            concurrency_limit=DECODERS,
        )
        picked.select(self.pick, session, [*self._shown, what], api_visibility="private")
        surprise.click(self.surprise, session, [*self._shown, what], api_visibility="private")
        crops.select(self.choose, session, [across, down, *self._masks.shown], api_visibility="private")
        remove.click(self.remove, session, self._shown, api_visibility="private")
        for slider in (across, down):  # `change` hears the keyboard too
            slider.change(
                self.move, [across, down, session], crops, show_progress="hidden", api_visibility="private"
            )
        return what

    def _controls(self, what: gr.Textbox) -> list[Any]:
        """Return the components whose values are the fields of `Controls`, in order."""
        prompts = gr.Textbox(
            label="What to show, one prompt a line",
            placeholder="a robot on the beach\na pencil sketch of a robot",
            lines=3,
            max_length=20_000,
            elem_id="prompts",
        )
        own = self.service.card.own
        # Only where guidance on the text leads away from it; else it belongs to what is set by hand.
        beside = {"negative_prompt"} if own.guidance != 1 else set[str]()
        settings = {name: component(name, getattr(own, name)) for name in beside}
        self._words = gr.Markdown(elem_id="words", render=False, **RAW)  # where it stays in sight
        label = "Stay close to my photos, or follow my prompt"
        balance = gr.Slider(-1, 1, 0, step=0.1, label=label, elem_id="balance", elem_classes="ends")
        with gr.Row():
            quality = gr.Radio(
                list(QUALITIES), value="balanced", label="Speed or quality", min_width=200, elem_id="quality"
            )
            count = gr.Radio(
                list(COUNTS), value=1, label="Pictures of each prompt", min_width=200, elem_id="count"
            )
        with gr.Row(equal_height=True):
            seed = gr.Number(None, label="Seed", precision=0, minimum=0, elem_id="seed")
            locked = gr.Checkbox(False, label="Keep this seed", elem_id="locked")
        recorded = gr.File(
            label="Settings of earlier pictures (.json or .png)",
            file_types=[".json", ".png"],
            height=96,
            elem_id="recorded",
        )
        taken = gr.Markdown(elem_id="taken", **RAW)
        with gr.Accordion("More", open=False, elem_id="more") as more:
            by_hand = gr.Checkbox(False, label="Set all by hand, in place of the two controls above")
            for name in (each for each in Sampling.model_fields if each not in beside):
                settings[name] = component(name, getattr(own, name))
        chosen = [settings[name] for name in Sampling.model_fields]
        self._locked = locked
        gr.on(  # one listener for both, so that an answer never overtakes a newer one
            [prompts.change, what.change],
            self.mark,
            [prompts, what],
            self._words,
            trigger_mode="always_last",
            show_progress="hidden",
            api_visibility="private",
        )
        controls = [what, prompts, count, balance, quality, seed, by_hand, *chosen]
        recorded.upload(
            self.take_settings,
            recorded,
            [recorded, taken, more, locked, *controls],
            api_visibility="private",
            concurrency_limit=DECODERS,
        )
        return controls

    # The right side: progress, what was made, and what can be done with it

    def _results(self, session: gr.State, controls: list[Any]) -> list[Any]:
        """Return the components that `generate` changes, but for its status."""
        preview = gr.Gallery(label="In the making", elem_id="preview", visible=False, **STRIP)
        made = gr.Gallery(label="Pictures of this session", elem_id="made", visible=False, **SHOWN)
        with gr.Column(visible=False) as picture:
            with gr.Row():
                png = gr.DownloadButton("Download as PNG", size="sm", elem_id="png")
                again = gr.Button("Use these settings", size="sm", elem_id="again")
                reuse = gr.Button("Use this picture as a reference", size="sm", elem_id="reuse")
            settings = gr.JSON(label="Its settings", elem_id="settings", max_height=300)
        everything = gr.DownloadButton("Download all (zip)", size="sm", visible=False, elem_id="zip")
        made.select(self.select, session, [picture, settings, png], api_visibility="private")
        again.click(self.settings_again, session, [self._locked, *controls], api_visibility="private")
        reuse.click(self.use_as_reference, session, self._shown, api_visibility="private")
        return [preview, made, picture, everything, controls[5]]

    # What happens. A session is changed in place; it is an output so that gradio notes when it was used.

    def upload(self, request: gr.Request, files: list[str] | None, session: Session) -> tuple[Any, ...]:
        """Add the photos that can be read, and say which cannot; the field is empty again."""
        new = []
        for handle in files or ():
            with warned(), self.received.taken(handle) as path:
                new.append(read_photo(path, path.name, self.service.card.own_shape))
        with warned():
            session.give_photos([*(each for each in session.photos if not each.is_example), *new])
        return None, *self._photos_shown(session, request)

    def pick(self, request: gr.Request, session: Session, event: gr.SelectData) -> tuple[Any, ...]:
        return self._try(request, session, self._fixed[int(event.index)])

    def surprise(self, request: gr.Request, session: Session) -> tuple[Any, ...]:
        assert self.examples is not None
        return self._try(request, session, self.examples.surprise(secrets.randbelow(2**31)))

    def _try(self, request: gr.Request, session: Session, example: Example) -> tuple[Any, ...]:
        session.give_photos([Photo(example.picture, example.what, is_example=True)])
        return *self._photos_shown(session, request), example.what

    def choose(self, session: Session, event: gr.SelectData) -> tuple[Any, ...]:
        session.chosen = int(event.index)
        return *self._sliders(session), *self._masks.values(session)

    def remove(self, request: gr.Request, session: Session) -> tuple[Any, ...]:
        kept = [each for number, each in enumerate(session.photos) if number != session.chosen]
        session.give_photos(kept)
        return self._photos_shown(session, request)

    def move(self, across: float, down: float, session: Session) -> Any:
        if session.photo is not None:
            session.photo.across, session.photo.down = (min(1, max(0, each / 100)) for each in (across, down))
        return self._crops(session)

    def take_settings(self, handle: str | None) -> list[Any]:
        """Return values for the field of the file, which is empty again, what is said of it, "More", which
        opens because what it holds now counts, and the controls with their lock."""
        if handle is None:
            return [gr.skip()] * (4 + len(Controls.model_fields))
        try:
            with self.received.taken(handle) as path:
                name, taken = path.name, take_settings(path, self.service.card)
        except JeDiError as error:
            return [None, alarmed(str(error)), *[gr.skip()] * (2 + len(Controls.model_fields))]
        text = " ".join([f"The settings of {name} are taken.", *taken.remarks])
        controls = taken.controls
        return [None, said(text), gr.Accordion(open=True), controls.seed is not None, *values_of(controls)]

    def mark(self, prompts: str, what: str) -> str:
        asked = [*prompts_of(prompts)[:50], what.strip()]
        text = marked(f"{what}\n{prompts}".strip(), self.service.unknown_words(asked))
        return text + "".join(f"<p>{html.escape(each)}</p>" for each in self.service.cut_off(asked))

    async def generate(
        self, request: gr.Request, session: Session, locked: bool, *values: Any
    ) -> AsyncIterator[tuple[Any, ...]]:
        """Yield values for the components of `_results`, again and again until the pictures are done."""
        engine, card = self.service.engine, self.service.card
        with told():
            controls = controls_of(values)
            if not locked:
                controls = controls.model_copy(update={"seed": None})
            if session.job is not None and not session.job.is_over:
                raise JeDiError("Pictures are being made already; cancel them first.")
            ask = await asyncio.to_thread(ask_of, session, controls, card)
            job = engine.submit(ask, f"page-{request.session_hash}", previews=True)
        self.visitors.note(session, request.state.client)
        controls, same = controls.model_copy(update={"seed": ask.seeds[0]}), (gr.skip(),) * 3
        session.job, session.asked, session.is_kept = job, controls, False
        try:
            async for status in self._follow(job):
                yield status, in_the_making(job), *same, controls.seed
        finally:
            engine.cancel(job)  # the visitor has left; nothing happens to a job that is over
        with told():
            await asyncio.to_thread(self._collect, session)
        session.selected = None
        if job.error is None:
            status = said(f"Done in {(job.ended or 0) - job.submitted:.0f} s.")
        else:
            kept = f" {len(job.done)} of {len(job.pictures)} pictures are done, and kept." if job.done else ""
            status = alarmed(str(job.error) + kept)
        yield status, gr.Gallery([], visible=False), *self._made_shown(session), controls.seed

    def _collect(self, session: Session) -> None:
        """Keep the finished pictures of the session's job, once it is over. Raises what the seal raises."""
        if session.job is not None and session.asked is not None and not session.is_kept:
            session.is_kept = True
            service = self.service
            keep(session, session.job, session.asked, service.card, self.folder, service.seal)

    def _made_shown(self, session: Session) -> tuple[Any, Any, Any]:
        """Return values for the gallery of pictures, the column of the chosen one, and the archive."""
        if not session.made:
            return (gr.skip(),) * 3
        shown = [(str(each.path), f"{each.prompt} ({each.seed})") for each in session.made]
        return (
            gr.Gallery(shown, visible=True, selected_index=None),
            gr.Column(visible=False),
            gr.DownloadButton(value=str(write_zip(session, self.folder)), visible=True),
        )

    def arrive(self, request: gr.Request, key: str, session: Session) -> tuple[Any, ...]:
        """Give a visitor who comes back, as after a reload, photos, pictures and settings as they were.

        key: what the browser has kept, "" at the first visit. A job under way ends; what it has finished
        stays.
        """
        old = self._visits.get(key)
        if old is not None and old is not session:
            self.cancel(old)
            with warned():
                self._collect(old)
            take_over(session, old, self.folder)
        key = key or secrets.token_urlsafe(24)
        self._visits[key] = session
        asked = (gr.skip(),) * (1 + len(Controls.model_fields))
        if session.asked is not None:
            asked = (False, *values_of(session.asked))
        return key, *self._photos_shown(session, request), *self._made_shown(session), *asked

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
        """Return what can be done with the selected picture, its settings, and its file."""
        session.selected = int(event.index)
        made = session.picture
        if made is None:
            return gr.Column(visible=False), None, None
        return gr.Column(visible=True), made.parameters, gr.DownloadButton(value=str(made.path))

    def settings_again(self, session: Session) -> list[Any]:
        """Return the controls as they were, with the seed of the selected picture, locked."""
        made = session.picture
        if made is None:
            return [gr.skip()] * (1 + len(Controls.model_fields))
        again = {"prompts": made.prompt, "count": 1, "seed": made.seed}
        return [True, *values_of(made.controls.model_copy(update=again))]

    def use_as_reference(self, request: gr.Request, session: Session) -> tuple[Any, ...]:
        with told():
            if session.picture is not None:
                made = session.picture
                session.give_photos([*session.photos, read_photo(made.path, made.path.name)])
        return self._photos_shown(session, request)

    def leave(self, session: Session) -> None:
        """Forget a visitor who is gone."""
        self.cancel(session)
        self.visitors.leave(session)
        forget(session)

    def _photos_shown(self, session: Session, request: gr.Request) -> tuple[Any, ...]:
        """Return values for the components of `_shown`."""
        self.visitors.note(session, request.state.client)
        chosen = gr.Column(visible=bool(session.photos))
        below = *self._sliders(session), *self._masks.values(session)
        return chosen, self._crops(session), *below, session

    def _crops(self, session: Session) -> Any:
        crops = [(faded(*photo.seen_by(self.service.card)), photo.name) for photo in session.photos]
        return gr.Gallery(crops, selected_index=session.chosen if crops else None)

    def _sliders(self, session: Session) -> tuple[Any, Any]:
        """Return a slider only where there is something to move: a crop is as long as the shorter side."""
        photo = session.photo
        if photo is None or self.service.card.own_shape is not None:
            return gr.Slider(visible=False), gr.Slider(visible=False)
        width, height = photo.picture.size
        return (
            gr.Slider(value=100 * photo.across, visible=width > height),
            gr.Slider(value=100 * photo.down, visible=height > width),
        )


async def script() -> Response:
    """Return the page's own script."""
    return Response(SCRIPT.read_text(encoding="utf-8"), media_type="text/javascript")


def component(name: str, own: Any) -> Any:
    """Return what a setting is set with, from its type, range and docstring; own: the model's own value."""
    schema = SCHEMA[name]
    kind, *others = schema.get("anyOf", [schema])
    shown: dict[str, Any] = {"label": label(name), "info": schema["description"]}
    if "enum" in kind:
        choices = [*([NOT_GIVEN] if others else []), *kind["enum"]]
        return gr.Dropdown(choices, value=own or "", **shown)
    if kind["type"] == "boolean":
        return gr.Checkbox(own, **shown)
    if kind["type"] == "string":
        return gr.Textbox(own or "", **shown)
    precision = 0 if kind["type"] == "integer" else None
    bounds = {"minimum": kind["minimum"], "maximum": kind["maximum"]}
    return gr.Number(own, precision=precision, **bounds, **shown)


def values_of(controls: Controls) -> list[Any]:
    """Return the values of the components, in the order of `Controls`."""
    values = [(getattr(controls, name), SCHEMA[name]) for name in Controls.model_fields]
    return ["" if value is None and "string" in str(schema) else value for value, schema in values]


def controls_of(values: tuple[Any, ...]) -> Controls:
    """Return components' values in the order of `Controls`; those that are empty have the defaults. Raises
    UsageError."""
    given = zip(Controls.model_fields, values, strict=True)
    return read_controls({name: value for name, value in given if value not in (None, "")})


def in_the_making(job: Job) -> Any:
    """Return what there is of a job's pictures: finished ones, previews, and gray ones for those not
    begun.
    """
    gray = Image.new("RGB", (job.ask.sampling.width, job.ask.sampling.height), "gray")
    total = job.ask.sampling.steps
    pairs = zip(job.pictures, job.previews, strict=True)
    shown = [made.open() if made else preview or gray for made, preview in pairs]
    texts = [
        f"{prompt}: step {step} of {total}" for prompt, step in zip(job.ask.prompts, job.steps, strict=True)
    ]
    return gr.Gallery(list(zip(shown, texts, strict=True)), visible=True)


def said(text: str) -> str:
    """Return a line that screen readers announce."""
    return f'<div role="status" aria-live="polite">{html.escape(text)}</div>'


def alarmed(text: str) -> str:
    """Return a line that screen readers announce at once."""
    return f'<div role="alert">{html.escape(text)}</div>'


@contextmanager
def warned() -> Iterator[None]:
    """Show our errors on the page and go on."""
    try:
        yield
    except JeDiError as error:
        gr.Warning(str(error))


@contextmanager
def told() -> Iterator[None]:
    """Show our errors, which are sentences for people, on the page."""
    try:
        yield
    except JeDiError as error:
        raise gr.Error(str(error), print_exception=False) from error


class PageBlocks(gr.Blocks):
    """Blocks that take no file in any of their inputs but those that were received."""

    def __init__(self, received: Received, **settings: Any) -> None:
        super().__init__(**settings)
        self.received = received

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> Any:
        with told():
            self.received.check(inputs)
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)
