"""Bytes and counts that visitors could let grow: uploads, photos in memory, shown files, the log, folders."""

import io
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from jedi_diffusion.app import private_folder, received
from jedi_diffusion.app.housekeeping import Housekeeping, trim
from jedi_diffusion.app.log_rate import BoundedLog
from jedi_diffusion.app.private_folder import PrivateFolder
from jedi_diffusion.app.received import Received
from jedi_diffusion.app.room import Room
from jedi_diffusion.app.session import Controls, Photo, Session, ask_of
from jedi_diffusion.app.uploads import NoRoomError
from jedi_diffusion.app.visitors import Visitors
from jedi_diffusion.errors import PictureError, UsageError
from tests.helpers.waiting import until


def test_uploads_on_their_way_are_bounded(serve) -> None:
    room = Room(200_000)
    data = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(values).save(data, format="PNG")  # 120 kB: more than one client's half
    with serve(service={"room": room}).client() as client:

        def edit(photo: bytes) -> httpx.Response:
            return client.post("/v1/images/edits", data={"prompt": "a"}, files={"image": photo})

        refused = edit(data.getvalue())
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_room")
        Image.fromarray(values[:16, :16]).save(small := io.BytesIO(), format="PNG")
        assert edit(small.getvalue()).status_code == 200
    assert room.held == 0


def test_uploads_that_wait_are_bounded_and_do_not_wait_for_ever(tmp_path, monkeypatch) -> None:
    waiting = Received(tmp_path / "received", Room(1000))

    def add(client: str, size: int) -> str:
        return waiting.add(io.BytesIO(bytes(size)), size, "a.png", client)

    first = add("a", 400)
    with pytest.raises(NoRoomError, match=r"a\.png"):
        add("a", 200)
    add("b", 400)
    with pytest.raises(NoRoomError):
        add("c", 300)
    with waiting.taken(first) as path:
        assert path.stat().st_size == 400
    assert not path.parent.exists()
    add("a", 200)
    monkeypatch.setattr(received, "SECONDS", -1.0)
    kept = add("d", 500)
    assert [str(each) for each in waiting.folder.rglob("*.png")] == [kept]
    assert waiting.room.held == 500
    with pytest.raises(PictureError, match="add it again"), waiting.taken(first):
        pass


def photos(number: int) -> list[Photo]:
    return [Photo(Image.new("RGB", (10, 10)), "a") for _ in range(number)]


def test_the_client_that_holds_most_gives_way() -> None:
    visitors = Visitors(max_bytes=10 * 300)
    quiet, *greedy = (Session() for _ in range(6))
    quiet.give_photos(photos(2))
    visitors.note(quiet, "quiet")
    for each in greedy:
        each.give_photos(photos(3))
        visitors.note(each, "greedy")
    assert [len(each.photos) for each in (quiet, *greedy)] == [2, 0, 0, 0, 3, 3]
    assert visitors.bytes == 8 * 300
    assert greedy[0].has_lost_photos
    with pytest.raises(UsageError, match="add them again"):
        ask_of(greedy[0], Controls(prompts="a"), None)
    greedy[0].give_photos(photos(1))
    assert not greedy[0].has_lost_photos
    visitors.leave(quiet)
    assert visitors.bytes == 6 * 300


def test_sessions_are_bounded_in_number_and_the_latest_stays() -> None:
    visitors = Visitors(max_sessions=2)
    sessions = [Session(photos(1)) for _ in range(3)]
    for each in (*sessions[:2], sessions[0], sessions[2]):
        visitors.note(each, "me")
    assert [len(each.photos) for each in sessions] == [1, 0, 1]


def test_shown_files_are_trimmed_oldest_first(tmp_path) -> None:
    spared = tmp_path / "received"
    spared.mkdir()
    for age, name in enumerate(("new", "old", "older", "empty", "received/photo")):
        path = tmp_path / name
        path.write_bytes(b"" if name == "empty" else bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    trim(tmp_path, 250, {spared})
    assert {each.name for each in tmp_path.rglob("*") if each.is_file()} == {"new", "old", "photo"}

    calls: list[int] = []

    def fail() -> None:
        calls.append(len(calls))
        raise OSError("no such disk")

    housekeeping = Housekeeping(fail, lambda: trim(tmp_path, 250), seconds=0.01)
    try:
        until(lambda: len(calls) > 1 and len(list(tmp_path.rglob("*"))) == 3)  # goes on after a failure
    finally:
        housekeeping.close()


def test_a_request_that_waits_for_its_turn_holds_no_room(serve) -> None:
    room = Room()
    running = serve(service={"room": room})
    running.runner.gate.clear()
    Image.new("RGB", (16, 16)).save(photo := io.BytesIO(), format="PNG")
    with running.client() as client:

        def edit() -> None:
            client.post("/v1/images/edits", data={"prompt": "a"}, files={"image": photo.getvalue()})

        thread = threading.Thread(target=edit)
        thread.start()
        until(lambda: running.engine.unfinished == 1)
        until(lambda: room.held == 0)
        running.runner.gate.set()
        thread.join(10)


def test_the_log_takes_so_many_lines_a_minute() -> None:
    now, stream = [0.0], io.StringIO()
    log = BoundedLog(stream, 3, clock=lambda: now[0])
    for number in range(10):
        log.write(f"line {number}\nand ")
        log.write("more\n")
    assert stream.getvalue() == "line 0\nand more\nline 1\n"
    now[0] = 61.0
    log.write("after\n")
    log.close()
    assert stream.getvalue().splitlines()[3:] == ["jedi: 17 lines of the log were left out.", "after"]


HOLD = """
import sys, time
from jedi_diffusion.app.private_folder import PrivateFolder
folder = PrivateFolder()
print(folder.path, flush=True)
time.sleep(60)
"""


def test_folders_of_killed_servers_go_and_those_in_use_stay(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = PrivateFolder()
    (own.path / "photo.png").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE
    ) as other:
        left = Path(other.stdout.readline().decode().strip())
        private_folder.remove_abandoned()
        assert (left.is_dir(), own.path.is_dir()) == (True, True)
        other.kill()
    another = PrivateFolder()
    assert (left.exists(), own.path.is_dir()) == (False, True)
    (tmp_path / "jedi-page-link").symlink_to(own.path)
    for each in (own, another):
        each.close()
    assert [each.name for each in tmp_path.iterdir()] == ["jedi-page-link"]
