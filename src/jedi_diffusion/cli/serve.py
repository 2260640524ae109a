"""`jedi serve`: one model as a page and an API, for people and programs."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

from jedi_diffusion import devices, models
from jedi_diffusion.cli import show_notices
from jedi_diffusion.cli.generate import public_name
from jedi_diffusion.cli.options import CertificateAndKey, Repeated
from jedi_diffusion.cli.parsing import parsed
from jedi_diffusion.credentials import Seal, seal_of
from jedi_diffusion.errors import JeDiError, UsageError
from jedi_diffusion.files import lines_of, read_text
from jedi_diffusion.options import Between, Compute, Fraction

if TYPE_CHECKING:
    from jedi_diffusion.app.cluster import Cluster
    from jedi_diffusion.app.jobs import Runner
    from jedi_diffusion.app.runner import ModelCard
    from jedi_diffusion.pipeline import JeDiPipeline

TOKENS = "JEDI_TOKENS"
"""Environment variable with tokens, separated by blanks or commas."""
SHORTEST_TOKEN = 16
ROOT_PATH = re.compile(r"(/[\w.~-]+)+")
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
ABOUT = {
    "toybox": "The bundled model knows the figures and things of a drawn 3D world, rendered furniture and 3D "
    "emoji, and the words for them. It was trained on no photo of a thing: of yours, what stands out keeps "
    "its shape and colours.",
}


class ServeOptions(Compute):
    """A page for people and an OpenAI-compatible API for programs, from one process. Ctrl-C ends it.

    Tokens, if clients shall need one, stand in a file (--token-file) or in the variable JEDI_TOKENS.
    """

    model: str = "toybox"
    """"toybox" (bundled), a folder, or a Hub id. A plain Stable Diffusion model runs untrained."""
    lora: Repeated = ()
    """Adapters on the model, a folder or a file, with a scale if not 1: runs/mine/lora:0.7. May be given
    several times."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in."""
    port: int = 7860
    """Port to listen on; 0 takes any that is free."""
    token_file: str | None = None
    """File with tokens, one a line."""
    allow_host: Repeated = ()
    """A name that clients may use for this server beside that of --host, as a proxy in front of it has."""
    allow_origin: Repeated = ()
    """A web site ("https://example.org") whose pages may use the API; none by default."""
    root_path: str = ""
    """Path under which a proxy in front shows the server, such as /jedi; the proxy takes it off."""
    allow_urls: bool = False
    """Fetch references that are given as addresses, from public machines only."""
    queue: Annotated[int, Between(16, 10_000)] = 64
    """Pictures that may wait; beyond them clients are told to come back later."""
    deadline: Annotated[float, Between(1, 86_400)] = 600.0
    """Seconds after which a request is given up."""
    keep_seconds: Annotated[float, Between(1, 7 * 86_400)] = 600.0
    """Seconds for which finished pictures can be fetched."""
    keep_mb: Annotated[int, Between(1, 2**20)] = 1024
    """Megabytes of disk for finished pictures; the oldest go first."""
    max_pixels: Annotated[int, Between(256, 2**22)] | None = None
    """Pixels of a picture (1048576 is 1024x1024); by default as many as the machine's memory holds."""
    max_seconds: Annotated[float, Between(1, 86_400)] | None = None
    """Seconds that a request may take by the server's own estimate; by default as many as --deadline."""
    content_credentials: CertificateAndKey = None
    """Sign pictures with C2PA: a certificate chain and its private key, as PEM files."""
    mcp: bool = False
    """Offer tools to assistants at /mcp: generate_pictures, list_models, score. Needs the extra `mcp`."""
    safety: bool = False
    """Refuse photos and pictures that a filter takes for sexual content. Needs the extra `safety`."""
    safety_threshold: Fraction = 0.8
    """Probability from which --safety refuses; less refuses more."""
    grace: Annotated[float, Between(0, 3600)] = 30.0
    """Seconds that work in hand gets when the server is stopped."""
    max_connections: Annotated[int, Between(8, 100_000)] = 512
    """Connections that may be open; fewer where the system allows fewer open files."""
    max_client_connections: Annotated[int, Between(1, 100_000)] = 64
    """Connections of one IPv4 address or IPv6 /64, other than this machine's own, where a proxy may be."""
    header_seconds: Annotated[float, Between(1, 3600)] = 15.0
    """Seconds for the head of a request, and for the next bytes of its body."""
    body_seconds: Annotated[float, Between(1, 86_400)] = 300.0
    """Seconds for the whole body of a request."""
    max_upload_mb: Annotated[int, Between(64, 2**20)] = 1024
    """Megabytes of uploads on their way or waiting on disk; one client gets half of them at most."""
    max_photo_mb: Annotated[int, Between(32, 2**20)] = 1024
    """Megabytes of memory for the photos of the page's visitors; beyond them the oldest give way."""
    references_mb: Annotated[int, Between(0, 2**20)] = 256
    """Megabytes, where the model runs, for references that a client sends again (coupling cached)."""
    max_shown_mb: Annotated[int, Between(64, 2**20)] = 1024
    """Megabytes on disk for crops, previews and pictures that the page shows; the oldest go first."""
    max_visitors: Annotated[int, Between(1, 100_000)] = 500
    """Visitors of the page that are remembered."""
    log_lines: Annotated[int, Between(10, 10**6)] = 600
    """Lines that may go to the log in a minute."""
    batch: Annotated[int, Between(0, 256)] = 0
    """Pictures computed at once; 0 measures at the start whether more than one is faster."""
    engine: Literal["local", "ray"] = "local"
    """One worker in this process, or replicas of the model with Ray Serve, on this machine or a cluster."""
    replicas: Annotated[int, Between(0, 1000)] = 0
    """Replicas with --engine ray; one a graphics card, or one a core where there is none, if not given."""
    ray_address: str | None = None
    """A cluster that runs already: HOST:6379, or "auto" for that of this machine. Or set RAY_ADDRESS."""


def run(arguments: list[str]) -> None:
    """Check, listen, load the model, serve until a signal comes. Raises JeDiError."""
    given = parsed(ServeOptions, arguments, "jedi serve")
    check(given)
    tokens = read_tokens(given.token_file, os.environ.get(TOKENS, ""))
    show_notices()
    models.check_model_name(given.model, given.lora)
    seal = seal_of(given.content_credentials, public_name(given.model))
    try:
        from jedi_diffusion.app import cluster, gate, server
    except ModuleNotFoundError as error:
        raise JeDiError(
            f"`jedi serve` needs the package {error.name}: pip install 'jedi-diffusion[app]'."
        ) from error
    if given.engine == "ray":
        cluster.check_installed()
    if not gate.is_loopback(given.host) and not tokens:
        warning = f"jedi: Anybody who reaches {given.host} can use this server: there is no token."
        print(f"{warning} Set {TOKENS} or --token-file.", file=sys.stderr)
    listening = server.open_socket(given.host, given.port)
    port = listening.getsockname()[1]
    with ended_by_signals(), bounded_log(given.log_lines), ExitStack() as stack:
        stack.callback(listening.close)
        with suppress(KeyboardInterrupt):  # uvicorn raises it anew or returns, as the signals fell
            serving, card = prepare(given, tokens, port, seal, stack)
            show_faults_only()
            where = address(given.host, port)
            print(f"{card.name} is served at {where} (API: /docs). Ctrl-C ends it.", flush=True)
            serving.run(sockets=[listening])
        print("Stopped.")


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM, and SIGHUP where it is not ignored, end the server in order as Ctrl-C does, so that photos and
    pictures of visitors are deleted. uvicorn raises the signal that ended it anew."""

    def stop(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {each: signal.getsignal(each) for each in numbers}
    signal.signal(signal.SIGTERM, stop)
    for each in numbers[1:]:
        if before[each] != signal.SIG_IGN:
            signal.signal(each, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def bounded_log(lines: int) -> Iterator[None]:
    """At most so many lines a minute go to standard error."""
    from jedi_diffusion.app.log_rate import BoundedLog

    log = BoundedLog(sys.stderr, lines)
    with redirect_stderr(cast(TextIO, log)):
        try:
            yield
        finally:
            log.close()


def check(given: ServeOptions) -> None:
    """Raise UsageError for options that do not go together."""
    if given.root_path and not ROOT_PATH.fullmatch(given.root_path):
        raise UsageError(
            f"--root-path is {given.root_path}, but must look like /jedi, without a / at its end."
        )
    if given.engine != "ray" and (given.replicas or given.ray_address is not None):
        raise UsageError("--replicas and --ray-address go with --engine ray.")
    if (given.ray_address or "").startswith("ray://"):
        raise UsageError("--ray-address names a machine of the cluster (HOST:6379); ray:// is not supported.")


def read_tokens(path: str | None, variable: str) -> list[str]:
    """Return the tokens of a file and of the environment.

    Raises UsageError for none in a file, and short ones.
    """
    tokens = re.split(r"[\s,]+", variable.strip()) if variable.strip() else []
    if path is not None:
        lines = lines_of(read_text(path, UsageError))
        found = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not found:
            raise UsageError(f"{path} holds no token; write one a line.")
        tokens += found
    if any(len(token) < SHORTEST_TOKEN for token in tokens):
        raise UsageError(f"A token has fewer than {SHORTEST_TOKEN} characters; take a longer one.")
    return tokens


def prepare(
    given: ServeOptions, tokens: list[str], port: int, seal: Seal, stack: ExitStack
) -> tuple[Any, ModelCard]:
    """Return the server over a loaded model, not yet running; the stack ends what it leaves behind. Raises
    ModelError, UsageError."""
    from jedi_diffusion.app import connections
    from jedi_diffusion.app.application import Access, make_application
    from jedi_diffusion.app.budget import SHARE, Budget
    from jedi_diffusion.app.engine import Engine
    from jedi_diffusion.app.examples import ToyboxExamples
    from jedi_diffusion.app.fetch import Fetcher
    from jedi_diffusion.app.gate import is_loopback
    from jedi_diffusion.app.page import Page
    from jedi_diffusion.app.room import Room
    from jedi_diffusion.app.runner import measured_batch
    from jedi_diffusion.app.safety import SafetyFilter
    from jedi_diffusion.app.server import Server
    from jedi_diffusion.app.service import Service
    from jedi_diffusion.app.tools import Tools
    from jedi_diffusion.app.uploads import MAX_PHOTO, PhotoReader
    from jedi_diffusion.app.visitors import Visitors

    safety = SafetyFilter(given.safety_threshold) if given.safety else None
    runners: Sequence[Runner]
    cluster = start_cluster(given, port, stack) if given.engine == "ray" else None
    if cluster is not None:
        runners, card = cluster.runners(), cluster.card
    else:
        runner, card = load(given.model, given.device, given.dtype, given.references_mb, given.lora)
        runners = [runner]
    batch = given.batch or measured_batch(runners[0], card.size)
    budget = Budget(
        card.costs,
        None if card.memory is None else int(SHARE * card.memory),
        given.max_pixels,
        given.deadline if given.max_seconds is None else given.max_seconds,
    )
    engine = Engine(
        runners,
        capacity=given.queue,
        batch=batch,
        deadline=given.deadline,
        keep_bytes=given.keep_mb * 2**20,
        keep_seconds=given.keep_seconds,
        budget=budget,
        safety=safety,
    )
    service = Service(
        engine,
        card,
        unknown_words=card.unknown_words,
        cut_off=card.cut_off,
        seal=seal,
        photos=PhotoReader(Fetcher(MAX_PHOTO) if given.allow_urls else None),
        room=Room(given.max_upload_mb * 2**20),
        replicas=cluster,
    )
    # A server that other machines reach has names that it cannot know.
    hosts = (*LOOPBACK, *given.allow_host) if is_loopback(given.host) else None
    access = Access(tokens, hosts, given.allow_origin, given.root_path)
    visitors = Visitors(given.max_photo_mb * 2**20, given.max_visitors)
    examples = ToyboxExamples(card.size) if given.model == "toybox" else None
    page = Page(service, examples, visitors, given.max_shown_mb * 2**20)
    stack.callback(page.close)
    app = make_application(service, access, page.mount, Tools(service).mount if given.mcp else None)
    most = min(given.max_connections, connections.most_connections() or given.max_connections)
    limits = connections.Limits(most, given.max_client_connections, given.header_seconds, given.body_seconds)
    return Server(app, engine, given.grace, limits), card


def start_cluster(given: ServeOptions, port: int, stack: ExitStack) -> Cluster:
    """Return the replicas, which end with the stack. Raises ModelError, UsageError."""
    from jedi_diffusion.app.cluster import Cluster

    # The machines of a cluster see the same folders, not the same working directory.
    is_folder = given.model != "toybox" and Path(given.model).exists()
    model = str(Path(given.model).resolve()) if is_folder else given.model
    cluster = Cluster(
        partial(load, model, given.device, given.dtype, given.references_mb, models.placed(given.lora)),
        f"jedi-{socket.gethostname()}-{port}",
        given.replicas,
        given.ray_address,
        given.device,
        say=lambda text: print(f"jedi: {text}", file=sys.stderr),
    )
    stack.callback(cluster.close)
    return cluster


def load(
    name: str, device_name: str, dtype: str, references_mb: int = 0, lora: Sequence[str] = ()
) -> tuple[Runner, ModelCard]:
    """Return a model that is ready, in the process that shall run it. Raises ModelError, UsageError."""
    from jedi_diffusion.app.runner import PipelineRunner

    device = devices.pick_device(device_name)
    pipe = models.load_model(name, device, devices.pick_dtype(dtype, device), lora)
    kept = references_mb * 2**20
    card = card_of(pipe, name)
    memory = None if card.memory is None else max(0, card.memory - kept)
    return PipelineRunner(pipe, kept), replace(card, memory=memory)


def card_of(pipe: JeDiPipeline, name: str) -> ModelCard:
    from jedi_diffusion import costs
    from jedi_diffusion.app.runner import ModelCard
    from jedi_diffusion.inputs import PromptReader

    return ModelCard(
        name=public_name(name),
        fingerprint=models.fingerprint(pipe),
        scheduler=type(pipe.scheduler).__name__,
        size=models.own_size(pipe),
        factor=pipe.vae_scale_factor * pipe.backbone.size_multiple,
        about=ABOUT.get(name, f"{public_name(name)}, made for pictures of {models.own_size(pipe)} pixels."),
        reader=PromptReader.of(pipe.tokenizer, pipe.tokenizer_2),
        temperature=pipe.config["temperature"],
        own=pipe.own_sampling,
        own_shape=pipe.backbone.own_shape,
        costs=costs.measure(pipe, models.own_size(pipe)),
        memory=costs.free_memory(pipe.device),
    )


def show_faults_only() -> None:
    """From here on log faults with their tracebacks; what a prompt lacks goes to the client that sent it."""
    logger = logging.getLogger("jedi_diffusion")
    logger.handlers = [logging.StreamHandler()]
    logger.setLevel(logging.ERROR)


def address(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
