"""Replicas of a model as a Ray Serve application, on this machine or on a cluster.

Serve starts the replicas, replaces those that die, and its handle finds one that is free. Its own HTTP
proxies stay off: requests, queue and jobs are in the process that makes a `Cluster`.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from jedi_diffusion.app.replica import Load, Replica, ReplicaRunner
from jedi_diffusion.app.runner import ModelCard
from jedi_diffusion.calls import Call
from jedi_diffusion.errors import JeDiError, ModelError, UsageError

logger = logging.getLogger(__name__)

DEPLOYMENT = "replica"
LOOK = 1.0
"""Seconds between two looks at which replicas live."""
STALE = 30.0
"""Seconds after which a look says nothing any more."""
PATIENCE = 30.0
"""Seconds of waiting for the first replica after which the user hears why."""
HEALTH_CHECK = 2.0
"""Seconds between two checks of a replica by Serve."""
START_FAILURES = 2
"""Replicas that may fail to start before the first one has started; later ones are tried again and again."""
LEAVE = 5.0
"""Seconds that a replica gets to end a call that nobody waits for, when the application ends."""

SERVE = threading.Lock()
"""Held while Serve's settings are made or read: two threads at once would trip over each other in it."""


def check_installed() -> None:
    """Load Ray Serve, without its chatter and its reports of use. Raises UsageError where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        importlib.import_module("ray.serve")
    except ImportError as error:
        raise UsageError("--engine ray needs Ray Serve: pip install 'jedi-diffusion[serve-ray]'.") from error
    logging.getLogger("ray.serve").setLevel(logging.ERROR)


class Cluster:
    """An application of replicas that runs until `close`.

    load: makes the model, in each replica. name: of the application; what a server of this name has left
    behind is replaced. replicas: how many; 0 for one a graphics card of the cluster, or one a core where it
    has no card or `device` is "cpu". address: of the cluster as `ray start` says it, "auto" for the one that
    this machine belongs to; None for RAY_ADDRESS, and where that is not set for a Ray of its own on this
    machine alone. say: hears what is being waited for.

    Raises UsageError; JeDiError where the cluster cannot be reached; ModelError where no replica can start.
    """

    def __init__(
        self,
        load: Load,
        name: str,
        replicas: int = 0,
        address: str | None = None,
        device: str = "auto",
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        check_installed()
        self.name = name
        self.on_repeat: Callable[[], None] = lambda: None
        self._live, self._seen = 0, 0.0
        self._over = threading.Event()
        self._connects = _connect(address, replicas)
        try:
            gpus = _gpus(device)
            self.wanted = replicas or _room(gpus)
            self._handle = self._deploy(load, gpus)
            self._wait(say)
            self.card: ModelCard = self._handle.options(stream=False).describe.remote().result()
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def live(self) -> int:
        """Replicas that are ready for calls or at one."""
        return self._live if time.monotonic() - self._seen < STALE else 0

    def runners(self) -> list[ReplicaRunner]:
        """Return a runner for each replica, so that all can be at work; any runner uses any replica."""

        def start(call: Call) -> Any:
            return self._handle.run.remote(call, self.card.fingerprint)

        return [ReplicaRunner(start, is_lost, lambda: self.on_repeat()) for _ in range(self.wanted)]

    def close(self) -> None:
        """End the replicas, and leave the cluster. Calls under way are lost."""
        import ray
        from ray import serve

        self._over.set()
        if not ray.is_initialized():
            return
        try:
            serve.delete(self.name)
        except Exception as error:  # whatever Ray says of a cluster that is gone
            logger.warning("The replicas could not be ended (%s); `serve status` shows them.", error)
        finally:
            if self._connects:
                ray.shutdown()

    def _deploy(self, load: Load, gpus: int) -> Any:
        from ray import serve

        quiet = {"log_level": "ERROR", "enable_access_log": False}
        serve.start(proxy_location="Disabled", logging_config=quiet)
        with SERVE:
            is_left_behind = self.name in serve.status().applications
        if is_left_behind:
            serve.delete(self.name)
        with SERVE:
            deployment: Any = serve.deployment(
                Replica,
                name=DEPLOYMENT,
                num_replicas=self.wanted,
                ray_actor_options={"num_cpus": 1, "num_gpus": gpus},
                max_ongoing_requests=1,
                health_check_period_s=HEALTH_CHECK,
                graceful_shutdown_wait_loop_s=0.2,
                graceful_shutdown_timeout_s=LEAVE,
                max_constructor_retry_count=START_FAILURES,
                logging_config=quiet,
            )
            target = serve.RunTarget(deployment.bind(load), self.name, route_prefix=None)
            (handle,) = serve.run_many([target], wait_for_applications_running=False)
        return handle.options(stream=True)

    def _wait(self, say: Callable[[str], None]) -> None:
        """Until one replica lives; the others may take as long as they need."""
        patience = time.monotonic() + PATIENCE
        while True:
            state, message = self._look()
            if self._live:
                return
            if state == "DEPLOY_FAILED":
                raise ModelError(f"The replicas cannot start: {_reason(message)}")
            if time.monotonic() > patience:
                patience += PATIENCE
                say(f"No replica has started yet: {_reason(message) or 'the first one is loading.'}")
            time.sleep(0.2)

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            try:
                self._look()
            except Exception as error:  # the last look stands until it is stale
                logger.warning("The replicas cannot be counted (%s).", type(error).__name__)

    def _look(self) -> tuple[str, str]:
        """Return state of the application in Serve's words, and what Serve has to say; notes how
        many live.
        """
        from ray import serve

        with SERVE:
            application = serve.status().applications[self.name]
        deployment = application.deployments[DEPLOYMENT]
        replicas: Any = deployment.replica_states  # Serve's states are strings too
        self._live, self._seen = replicas.get("RUNNING", 0), time.monotonic()
        return application.status, deployment.message


def is_lost(error: BaseException) -> bool:
    """Return whether an error of a call means that its replica is gone, not that its code has failed."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    return isinstance(error, (RayError, RayServeException)) and not isinstance(error, RayTaskError)


def _connect(address: str | None, replicas: int) -> bool:
    """Join the cluster, or start a Ray on this machine; False where this process belongs to one already."""
    import ray

    if ray.is_initialized():
        return False
    own: dict[str, Any] = {}
    if address is None and "RAY_ADDRESS" not in os.environ:
        address = "local"
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves replicas on a busy machine
        own = {"num_cpus": max(replicas, os.cpu_count() or 1), "include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # Ray has no class of its own for what can go wrong here
        what = "Ray cannot start on this machine"
        if not own:
            what = f"The Ray cluster {address or os.environ['RAY_ADDRESS']} cannot be joined"
        raise JeDiError(f"{what}: {_sentence(str(error))}") from error
    return True


def _gpus(device: str) -> int:
    """Return graphics cards a replica."""
    return int(device == "cuda" or (device == "auto" and _resource("GPU") >= 1))


def _room(gpus: int) -> int:
    """Return how many replicas the cluster has room for. Raises UsageError for none."""
    room = int(_resource("GPU" if gpus else "CPU"))
    if room < 1:
        kind = "graphics card" if gpus else "core"
        raise UsageError(f"The cluster has no {kind} yet; say with --replicas how many there will be.")
    return room


def _resource(kind: str) -> float:
    import ray

    return float(ray.cluster_resources().get(kind, 0.0))


def _reason(message: str) -> str:
    """Return the error at the end of a traceback that Serve reports, else the report."""
    found = re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception): (.*)", message, re.MULTILINE)
    return _sentence(found[-1] if found else message)


def _sentence(text: str) -> str:
    return " ".join(text.split())[:500].rstrip(".") + "." if text.strip() else ""
