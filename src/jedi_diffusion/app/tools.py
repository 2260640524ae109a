"""Tools for assistants, by the Model Context Protocol at /mcp: behind the API's gate, queue and limits."""

import base64
import binascii
import io
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from typing import Annotated, Any, Literal

import anyio
from fastapi import FastAPI
from PIL import Image
from pydantic import Field
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.routing import Route

from jedi_diffusion import __version__
from jedi_diffusion.app.failures import describe
from jedi_diffusion.app.fields import MAX_PICTURES, FieldError, read_fields
from jedi_diffusion.app.gate import TOOLS
from jedi_diffusion.app.jobs import Job
from jedi_diffusion.app.results import file_of
from jedi_diffusion.app.routes import described
from jedi_diffusion.app.service import POLL, Service, asleep, woken_by
from jedi_diffusion.app.uploads import MAX_TOOLS
from jedi_diffusion.errors import JeDiError
from jedi_diffusion.evaluation.encoders import Encoder
from jedi_diffusion.evaluation.likeness import likeness
from jedi_diffusion.options import MAX_REFERENCES
from jedi_diffusion.references import Reference
from jedi_diffusion.vision.settings import SCORING_CLIP, SCORING_DINO

SCORED_SIDE = 256
"""Pixels of a side to which pictures are brought before they are scored."""
ABOUT = "Draws new pictures of the subject of reference photos, and says how like the photos pictures are."
Pictures = Annotated[
    list[str],
    Field(max_length=MAX_REFERENCES, description="Pictures as base64 or data URLs; files of any usual kind."),
]
Judge = Literal["toybox", "lite2"]


class Tools:
    """Offers `generate_pictures`, `list_models` and `score` over one service.

    Raises JeDiError without the extra.
    """

    def __init__(self, service: Service) -> None:
        try:
            from mcp.server import MCPServer
            from mcp.server.transport_security import TransportSecuritySettings
        except ModuleNotFoundError as error:
            raise JeDiError(
                f"--mcp needs the package {error.name}: pip install 'jedi-diffusion[mcp]'."
            ) from error
        self.service = service
        self._scoring = anyio.CapacityLimiter(1)
        server = MCPServer("jedi-diffusion", version=__version__, instructions=ABOUT)
        for each in (self._generate_tool(), self.list_models, self.score):
            server.add_tool(each, structured_output=False)
        # Hosts, origins, tokens and sizes are the gate's.
        self._app = server.streamable_http_app(
            streamable_http_path=TOOLS,
            stateless_http=True,
            json_response=True,
            max_request_body_size=MAX_TOOLS,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._manager = server.session_manager

    def mount(self, app: FastAPI) -> None:
        """Put the tools at /mcp of an application, alive as long as it is."""
        before = app.router.lifespan_context

        @asynccontextmanager
        async def lifespan(whole: FastAPI) -> AsyncIterator[Any]:
            async with self._manager.run(), before(whole) as state:
                yield state

        app.router.lifespan_context = lifespan
        (route,) = (each for each in self._app.routes if isinstance(each, Route) and each.path == TOOLS)
        app.router.routes.insert(0, route)

    def _generate_tool(self) -> Any:
        """Return the tool; its argument for the request has a type that only the package of MCP has."""
        from mcp.server.mcpserver import Context
        from mcp.server.mcpserver import Image as Shown

        async def generate_pictures(
            ctx: Context,
            prompt: Annotated[str, Field(description="What to show: a robot on the beach.")],
            references: Pictures = [],  # noqa: B006  # never changed; None would not be in the schema
            reference_prompt: Annotated[str, Field(description="What the references show: a robot.")] = "",
            n: Annotated[int, Field(ge=1, le=MAX_PICTURES)] = 1,
            size: Annotated[
                str, Field(description="WIDTHxHEIGHT in pixels; auto: the model's own.")
            ] = "auto",
            quality: Literal["auto", "low", "medium", "high"] = "auto",
            input_fidelity: Annotated[
                Literal["low", "high"], Field(description="high: closer to the references.")
            ] = "low",
            seed: Annotated[int | None, Field(description="By default a random one.")] = None,
        ) -> list[Any]:
            """Draw new pictures of the subject that the references show, or from the prompt alone."""
            given = {
                "prompt": prompt,
                "n": n,
                "size": size,
                "quality": quality,
                "input_fidelity": input_fidelity,
                "seed": seed,
                "reference_prompt": [reference_prompt] if reference_prompt and references else None,
            }
            request = ctx.request_context.request
            assert isinstance(request, Request)
            with self._told():
                job = await self.service.submit(request, read_fields(given), uploads(references))
                await self._done(job, ctx)
                files = [await anyio.to_thread.run_sync(self._file, job, number) for number in job.done]
            said = {
                "model": self.service.card.name,
                "seeds": [job.ask.seeds[number] for number in job.done],
                "warnings": await anyio.to_thread.run_sync(self.service.warnings, job),
            }
            return [*(Shown(data=file, format="png") for file in files), json.dumps(said)]

        return generate_pictures

    def _file(self, job: Job, number: int) -> bytes:
        return file_of(job, number, self.service.card, self.service.seal)

    async def _done(self, job: Job, context: Any) -> None:
        """Wait for a job, which ends with its client, and say how far it is. Raises JeDiError."""
        try:
            with woken_by(job) as changed:
                while not job.is_over:
                    if await asleep(changed, POLL):
                        await context.report_progress(job.progress, 1.0)
                    self.service.engine.end_what_is_late()
        finally:
            self.service.engine.cancel(job)  # does nothing to a job that is over
        if job.error is not None:
            raise job.error

    async def list_models(self) -> str:
        """Return the one model of this server, as JSON: its name, what it knows, and its pictures' size."""
        return json.dumps([described(self.service)])

    async def score(
        self,
        pictures: Pictures,
        references: Pictures,
        prompt: Annotated[str, Field(description="What the pictures should show; none if not given.")] = "",
        judge: Annotated[
            Judge, Field(description="toybox: for the bundled model's pictures; lite2: for photos.")
        ] = "toybox",
    ) -> str:
        """Return how like the references each picture is, as JSON: identity (cosine), distance as a whole
        picture, and whether it is a copy; with a prompt, how well it shows that.
        """
        prompts, side = [prompt] if prompt else [], SCORED_SIDE
        with self._told():
            made, given = [
                [picture_of(each) for each in await self.service.photos.read(uploads(some), side, side)]
                for some in (pictures, references)
            ]
            work = partial(_scores, judge, made, given, prompts)
            rows = await anyio.to_thread.run_sync(work, limiter=self._scoring)
        return json.dumps(rows)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Let a client know of what went wrong in our words, and count it."""
        from mcp.server.mcpserver.exceptions import ToolError

        try:
            yield
        except JeDiError as error:
            self.service.metrics.note_refusal(str(describe(error)[1]["code"]))
            raise ToolError(str(error)) from error


@cache
def _judges(name: Judge) -> list[Encoder]:
    from jedi_diffusion.evaluation.judging import load_encoders

    return load_encoders([name], SCORING_CLIP, SCORING_DINO, "cpu")


def _scores(
    judge: Judge, pictures: Sequence[Image.Image], references: Sequence[Image.Image], prompts: Sequence[str]
) -> list[dict[str, Any]]:
    return [each.record() for each in likeness(pictures, references, _judges(judge), prompts)]


def picture_of(reference: Image.Image | Reference) -> Image.Image:
    """Return a reference's picture."""
    picture = reference.picture if isinstance(reference, Reference) else reference
    assert isinstance(picture, Image.Image)
    return picture


def uploads(pictures: Sequence[str]) -> list[UploadFile | str]:
    """Return pictures of a tool's arguments as uploads; addresses stay what they are. Raises FieldError."""
    made: list[UploadFile | str] = []
    for number, text in enumerate(pictures, start=1):
        if text.startswith(("http://", "https://")):
            made.append(text)
            continue
        data = text.partition(",")[2] if text.startswith("data:") else text
        try:
            file = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError) as error:
            raise FieldError(f"Picture {number} is not base64.", "references") from error
        made.append(UploadFile(io.BytesIO(file), size=len(file), filename=f"picture {number}"))
    return made
