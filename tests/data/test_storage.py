"""The same shards read from disk, over https' protocol and from an object store; faults on the way."""

import multiprocessing
import socket
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jedi_diffusion.data import storage
from jedi_diffusion.data.record import StoredSet
from jedi_diffusion.data.shards import Shards, ShardWriter, load_index, save_index
from jedi_diffusion.data.storage import (
    files_below,
    length_of,
    names_in,
    open_folder,
    publish,
    read_bytes,
    scratch_file,
    tars_of,
    write_bytes,
)
from jedi_diffusion.errors import DataError, OutputError, UsageError
from tests.helpers.object_store import object_store
from tests.helpers.small_sets import SIZES, same, stored_set, subject_set, write_shards


class RangeHandler(BaseHTTPRequestHandler):
    """Serves a folder with byte ranges, notes what is asked for, and fails as often as it is told to."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str, str | None]]
    failures: list[int]
    ranges: list[bool]

    def __init__(self, folder: Path, *rest: object) -> None:
        self.folder = folder
        super().__init__(*rest)

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.command, self.path, wanted))
        file = self.folder / self.path.lstrip("/")
        if self.failures or not file.is_file():
            self.send_response(self.failures.pop() if self.failures else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data, status = file.read_bytes(), 200
        length = len(data)
        if wanted and self.ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            data, status = data[int(first) : int(last) + 1], 206
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(data) - 1}/{length}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


class Served:
    """A running server of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.handler = type("Handler", (RangeHandler,), {"asked": [], "failures": [], "ranges": [True]})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(self.handler, folder))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(storage, "WAITS", (0.01, 0.01))
    server = Served(tmp_path)
    yield server
    server.stop()


def read(shards: Shards, item: int):
    sample = shards.read(item)
    return StoredSet.from_members(sample.key, sample.files, sample.name).decode(sample.name)


def test_http_reads_by_ranges_alone(served: Served) -> None:
    tars = write_shards(served.folder)
    shards = Shards(f"{served.url}/{{00000..00002}}.tar")
    assert len(shards) == len(SIZES)
    served.handler.asked.clear()
    for item in (5, 0, 3):
        assert same(read(shards, item), subject_set(item, SIZES[item], masks=item % 2 == 0))
    start, end = load_index(str(tars[1]))[2].span
    assert served.handler.asked[0] == ("GET", "/00001.tar", f"bytes={start}-{end - 1}")
    assert len(served.handler.asked) == 3


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_workers_read_what_was_opened_before(served: Served) -> None:
    """As the workers of a DataLoader do: the client's threads do not survive the fork."""
    write_shards(served.folder)
    shards = Shards(f"{served.url}/00000.tar")
    assert len(read(shards, 0)) == SIZES[0]
    fork = multiprocessing.get_context("fork")
    results: Any = fork.Queue()
    worker = fork.Process(target=lambda: results.put(len(read(shards, 2))), daemon=True)
    worker.start()
    assert results.get(timeout=30) == SIZES[2]
    worker.join(30)
    assert worker.exitcode == 0


def test_a_server_that_stumbles_is_asked_again(served: Served) -> None:
    (served.folder / "x").write_bytes(b"0123456789")
    served.handler.failures[:] = [503, 500]
    assert read_bytes(f"{served.url}/x", 2, 5) == b"234"
    assert len(served.handler.asked) == 3
    served.handler.failures[:] = [503] * 3
    with pytest.raises(DataError, match=r"/x cannot be read: .*503"):
        read_bytes(f"{served.url}/x", 2, 5)


def test_faults_of_servers_are_named(served: Served) -> None:
    (served.folder / "x").write_bytes(b"0123456789")
    assert length_of(f"{served.url}/x") == 10
    with pytest.raises(DataError, match="/none does not exist"):
        read_bytes(f"{served.url}/none")
    with pytest.raises(DataError, match=r"/x gave 2 bytes where 4 were asked for .*cut off"):
        read_bytes(f"{served.url}/x", 8, 12)
    served.handler.ranges.clear()
    with pytest.raises(DataError, match=r"gave 10 bytes where 3 .* does not know byte ranges"):
        read_bytes(f"{served.url}/x", 2, 5)
    with pytest.raises(UsageError, match="cannot be listed: name its tars"):
        tars_of(served.url)


def test_a_server_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WAITS", (0.01,))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    with pytest.raises(DataError, match="/x cannot be read"):
        read_bytes(url, 0, 2)


def test_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "sets")
    with object_store(monkeypatch) as bucket:
        import boto3

        for file in (tmp_path / "sets").iterdir():
            boto3.client("s3").upload_file(str(file), bucket.removeprefix("s3://"), f"sets/{file.name}")
        shards = Shards(f"{bucket}/sets")
        assert len(shards) == len(SIZES)
        for item in (6, 1):
            assert same(read(shards, item), subject_set(item, SIZES[item], masks=item % 2 == 0))
        assert files_below(bucket, [".tar"])[0] == f"{bucket}/sets/00000.tar"
        with pytest.raises(DataError, match="s3://pictures/none does not exist"):
            read_bytes(f"{bucket}/none")


def test_shards_are_written_to_s3_as_to_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = write_shards(tmp_path / "sets")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with object_store(monkeypatch) as bucket:
        for first in (0, 3):
            with ShardWriter(f"{bucket}/sets/", sets=2) as writer:
                for seed in range(5):
                    writer.write(stored_set(seed, 1))
            assert writer.finished == [f"{bucket}/sets/{n:05d}.tar" for n in range(first, first + 3)]
        assert len(Shards(f"{bucket}/sets")) == 10
        other = ShardWriter(f"{bucket}/more")
        other.write(stored_set(0, 1))
        write_bytes(f"{bucket}/more/00000.tar", b"of another program")
        with pytest.raises(OutputError, match=r"more/00000\.tar was written by another program"):
            other.finish()
        for tar in here:  # the same bytes as on a disk
            publish(scratch_copy(tar, f"{bucket}/copies/{tar.name}"), f"{bucket}/copies/{tar.name}")
            save_index(f"{bucket}/copies/{tar.name}", load_index(str(tar)))
            assert read_bytes(f"{bucket}/copies/{tar.name}") == tar.read_bytes()
        assert same(read(Shards(f"{bucket}/copies"), 4), subject_set(4, SIZES[4], masks=True))
        with pytest.raises(OutputError, match=r"s3://none/x .*(does not exist|cannot be written)"):
            write_bytes("s3://none/x", b"")
        assert names_in(f"{bucket}/copies") == sorted(each.name for each in (tmp_path / "sets").iterdir())
    assert list((tmp_path / "scratch").iterdir()) == []


def scratch_copy(file: Path, url: str) -> Path:
    scratch = scratch_file(url)
    scratch.write_bytes(file.read_bytes())
    return scratch


def test_web_servers_take_no_files() -> None:
    with pytest.raises(UsageError, match="https://x/y is on a web server, which takes no files"):
        ShardWriter("https://x/y")


def test_local_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("z.tar", "a/y.tar", "a/b/x.TXT", ".00003.tar.ab", ".00004.tar"):
        (tmp_path / name).write_bytes(name.encode())
    assert read_bytes(str(tmp_path / "z.tar")) == b"z.tar"
    assert read_bytes(str(tmp_path / "z.tar"), 1, 3) == b".t"
    assert tars_of(str(tmp_path)) == [f"{tmp_path}/a/y.tar", f"{tmp_path}/z.tar"]
    assert files_below(str(tmp_path), [".txt"]) == [f"{tmp_path}/a/b/x.TXT"]
    with pytest.raises(DataError, match="cut off"):
        read_bytes(str(tmp_path / "z.tar"), 3, 9)
    with pytest.raises(DataError, match="none does not exist"):
        length_of(str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"There is no folder .*none"):
        files_below(str(tmp_path / "none"), [".tar"])
    with pytest.raises(DataError, match="no tars in"):
        tars_of(str(tmp_path / "a" / "b"))


def test_names_of_tars() -> None:
    assert tars_of("s3://b/{0098..0101}.tar") == [f"s3://b/{n}.tar" for n in ("0098", "0099", "0100", "0101")]
    assert tars_of("https://x/y.tar") == ["https://x/y.tar"]
    with pytest.raises(UsageError, match="counts down"):
        tars_of("x/{3..1}.tar")


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(UsageError, match="gopher://x cannot be read"):
        read_bytes("gopher://x")


@pytest.mark.parametrize("name", ["a::b", "x{1..3}", "sets.tar", "sets.tar/"])
def test_results_are_not_put_where_nobody_could_read_them(name, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose another name"):
        open_folder(f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UsageError, match="gcsfs"):
        length_of("gs://bucket/x")
    with pytest.raises(UsageError, match=r"jedi-diffusion\[data\]"):
        length_of("s3://bucket/x")


def test_a_server_that_refuses_the_first_connection_is_named() -> None:
    with pytest.raises(DataError, match=r"ftp://127\.0\.0\.1:1/x cannot be reached"):
        length_of("ftp://127.0.0.1:1/x")
