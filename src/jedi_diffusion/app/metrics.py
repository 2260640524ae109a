"""Counters for Prometheus: the queue, how long jobs wait and take, pictures, rejects by reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from jedi_diffusion.app.jobs import Job

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)


class Replicas(Protocol):
    """The processes behind runners that are not in this one."""

    on_repeat: Callable[[], None]

    @property
    def live(self) -> int: ...

    @property
    def wanted(self) -> int: ...


class Metrics:
    """Of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue = Gauge("jedi_queue_pictures", "Pictures that wait for a worker", registry=self.registry)
        self.jobs = Gauge("jedi_unfinished_jobs", "Jobs that wait or are under way", registry=self.registry)
        self.seconds = Histogram(
            "jedi_job_seconds", "From submission to end", ["state"], registry=self.registry, buckets=SECONDS
        )
        self.wait = Histogram(
            "jedi_wait_seconds", "From submission to a worker", registry=self.registry, buckets=SECONDS
        )
        self.pictures = Counter("jedi_pictures", "Pictures made", registry=self.registry)
        self.rejects = Counter("jedi_rejects", "Requests that failed", ["code"], registry=self.registry)

    def watch(self, waiting: Callable[[], int], unfinished: Callable[[], int]) -> None:
        """Where the gauges read from."""
        self.queue.set_function(waiting)
        self.jobs.set_function(unfinished)

    def watch_replicas(self, replicas: Replicas) -> None:
        """Count the replicas of a cluster, and calls that were repeated because one was lost."""
        live = Gauge("jedi_replicas_live", "Replicas that are ready or at work", registry=self.registry)
        live.set_function(lambda: replicas.live)
        wanted = Gauge("jedi_replicas_wanted", "Replicas that there should be", registry=self.registry)
        wanted.set_function(lambda: replicas.wanted)
        repeated = Counter("jedi_repeated_calls", "Calls whose replica was lost", registry=self.registry)
        replicas.on_repeat = repeated.inc

    def note_refusal(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self.rejects.labels(code).inc()

    def note(self, job: Job) -> None:
        """Count a job that has ended."""
        assert job.ended is not None
        self.seconds.labels(job.state).observe(job.ended - job.submitted)
        if job.started is not None:
            self.wait.observe(job.started - job.submitted)
        self.pictures.inc(len(job.done))

    def text(self) -> bytes:
        return generate_latest(self.registry)
