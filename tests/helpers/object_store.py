"""An S3 server of its own on this machine; its address comes from the environment as for any S3 tool."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jedi_diffusion.data import storage

BUCKET = "pictures"


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty bucket, s3://pictures; what fails is tried again at once."""
    monkeypatch.setattr(storage, "WAITS", (0.01,))
    boto3 = pytest.importorskip("boto3")
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        # What earlier servers of this process held, and the client's memory of their addresses.
        urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", b"").close()
        s3fs.S3FileSystem.clear_instance_cache()
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        yield f"s3://{BUCKET}"
    finally:
        server.stop()
