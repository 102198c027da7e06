"""The lines of `aioetcd2.curl`, pasted into a shell, send what the client sent."""

from __future__ import annotations

import asyncio
import base64
import logging
import shutil
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from aioetcd2 import Client, EndpointSelection, InvalidResponseError

from .misbehaver import Exchange, Misbehaver, Seen, answer, key_event

Call = Callable[[Client], Awaitable[object]]

PASSWORD = "S3cret'\"$x"
SECRET = "0ther-S3cret"

NASTY = [
    "it's",
    'say "hi"',
    "$HOME ${HOME} $(id) `id`",
    "a\nb\r\nc\n",
    "!history !! !$",
    "\\ \\n \\\\ \\'",
    "*?[a-z]{1,2}~",
    "; ls & | > /dev/null < x #",
    "@/etc/passwd",
    "-X DELETE",
    "%41 %20 + = &",
    "ü €  💥 \u2028",
    "\x01\x07\x1b[31m\x7f\t",
    " lead and trail ",
    "",
]
KEYS = [text for text in NASTY if text.strip("/")] + ["a/b//c", "{a,b}", "[1-3]", "a..b", "...", "?wait=true", "#x"]

nasty = pytest.mark.parametrize("text", NASTY, ids=ascii)
MEMBER = {"id": "1", "name": "", "peerURLs": ["http://127.0.0.1:1"], "clientURLs": []}


async def fine(exchange: Exchange) -> bool | None:
    if exchange.seen.method == "HEAD" or exchange.seen.target.startswith("/v2/members/"):
        return await answer(status=204)(exchange)
    return await answer({**MEMBER, **key_event()}, status=201)(exchange)


def essence(seen: Seen) -> tuple[str, str, bytes, str | None]:
    return seen.method, seen.target, seen.body, seen.headers.get("content-type")


def credentials(seen: Seen) -> str:
    return base64.b64decode(seen.headers["authorization"].removeprefix("Basic ")).decode()


async def shell(line: str, folder: Path) -> bytes:
    """Run a line in bash as it stands; what it printed."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}
    if shutil.which("curl", path=environment["PATH"]) is None:
        pytest.skip("there is no curl on this machine")
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        line,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"{line}\n{errors.decode()}"
    return output


async def lines_of(call: Call, client: Client, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.set_level(logging.DEBUG, "aioetcd2.curl")
    caplog.clear()
    await call(client)
    return [record.getMessage() for record in caplog.records if record.name == "aioetcd2.curl"]


async def assert_same(call: Call, caplog: pytest.LogCaptureFixture, folder: Path, *, path: str | None = None) -> None:
    async with Misbehaver(fine, path=path) as server:
        async with Client(server.endpoint if path is None else f"unix://{quote(path)}") as client:
            lines = await lines_of(call, client, caplog)
        assert len(lines) == len(server.seen) == 1
        before = set(folder.iterdir())
        await shell(lines[0], folder)
        assert set(folder.iterdir()) == before
        by_client, by_curl = server.seen
    assert essence(by_client) == essence(by_curl)


@pytest.mark.parametrize("key", KEYS, ids=ascii)
async def test_key(key: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    await assert_same(lambda client: client.keys.get(key, recursive=True), caplog, tmp_path)


@nasty
async def test_value(text: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    await assert_same(lambda client: client.keys.set("/k", text, ttl=5, prev_exist=True), caplog, tmp_path)


@nasty
async def test_json(text: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    body = {"text": [text, 1, None]}
    await assert_same(lambda client: client.request("PUT", "/x", json=body), caplog, tmp_path)


CALLS: dict[str, Call] = {
    "get": lambda client: client.keys.get("/k", sort=True, quorum=True),
    "root": lambda client: client.keys.get("/"),
    "set": lambda client: client.keys.set("/k", "v", prev_index=7, prev_value="it's"),
    "refresh": lambda client: client.keys.refresh("/k", 5),
    "mkdir": lambda client: client.keys.mkdir("/d"),
    "delete": lambda client: client.keys.delete("/k", prev_value="a'b\n&=", prev_index=7),
    "delete-recursive": lambda client: client.keys.delete("/k", recursive=True, dir=True),
    "create-in-order": lambda client: client.keys.create_in_order("/q", "$(id)"),
    "members-add": lambda client: client.members.add("http://127.0.0.1:2380", "http://[::1]:2380"),
    "members-remove": lambda client: client.members.remove("1f"),
    "head": lambda client: client.request("HEAD", "/v2/keys/k", params={"wait": "no?"}),
    "get-with-json": lambda client: client.request("GET", "/x", json={"a": "b"}),
    "options": lambda client: client.request("OPTIONS", "/v2/keys"),
    "odd-method": lambda client: client.request("it's", "/x"),
    "empty-form": lambda client: client.request("POST", "/x", form={}),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_call(call: Call, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    await assert_same(call, caplog, tmp_path)


@pytest.mark.parametrize("name", ["sock", "so ck", "it's $HOME #?", "sock:0"])
async def test_unix_socket(name: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    await assert_same(lambda client: client.keys.set("/k", "a'b"), caplog, tmp_path, path=str(tmp_path / name))


async def test_answer_is_printed(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with Misbehaver(answer({"hello": "there"})) as server, Client(server.endpoint) as client:
        (line,) = await lines_of(lambda client: client.request("GET", "/x"), client, caplog)
        assert await shell(line, tmp_path) == b'{"hello": "there"}'


@pytest.mark.parametrize("user", ["root", "it's $me", "ü", ""])
async def test_password_is_masked(user: str, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async with Misbehaver(fine) as server, Client(server.endpoint, username=user, password=PASSWORD) as client:
        (line,) = await lines_of(lambda client: client.keys.set("/k", "v"), client, caplog)
        await shell(line, tmp_path)
        by_client, by_curl = server.seen
    assert PASSWORD not in line
    assert essence(by_client) == essence(by_curl)
    assert credentials(by_client) == f"{user}:{PASSWORD}"
    assert credentials(by_curl) == f"{user}:***"


@pytest.mark.parametrize(("call", "exists"), [("add", False), ("change_password", True)])
async def test_body_with_a_password_is_masked(
    call: str, exists: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    ann = answer({"user": "ann"})
    nobody = answer({"message": "auth: User ann does not exist."}, status=404)
    async with (
        Misbehaver(ann, reads=ann if exists else nobody) as server,
        Client(server.endpoint, username="root", password=PASSWORD) as client,
    ):
        *_, line = await lines_of(lambda client: getattr(client.auth.users, call)("ann", SECRET), client, caplog)
        by_client = server.seen[-1]
        await shell(line, tmp_path)
        by_curl = server.seen[-1]
    assert SECRET in by_client.body.decode()
    assert SECRET not in line
    assert by_curl == by_client._replace(body=b"***", headers=by_curl.headers)


async def test_redirect_to_a_stranger_shows_no_user(caplog: pytest.LogCaptureFixture) -> None:
    async with Misbehaver(fine) as stranger:
        there = f"{stranger.endpoint}/v2/keys/k"
        moved = answer(status=307, headers={"Location": there})
        async with Misbehaver(moved) as server, Client(server.endpoint, username="root", password=PASSWORD) as client:
            ours, theirs = await lines_of(lambda client: client.keys.set("/k", "v"), client, caplog)
    assert "-u 'root:***'" in ours
    assert "-u" not in theirs.split()
    assert theirs.endswith(there)


async def test_one_line_for_each_try(caplog: pytest.LogCaptureFixture) -> None:
    dead = ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    async with Misbehaver(fine) as server:
        async with Client([*dead, server.endpoint], selection=EndpointSelection.PRIORITIZE_LEADER) as client:
            lines = await lines_of(lambda client: client.keys.get("/k"), client, caplog)
        assert [line.split()[-1] for line in lines] == [f"{each}/v2/keys/k" for each in [*dead, server.endpoint]]


async def test_raw_request_under_auth_shows_no_body(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "aioetcd2.curl")
    async with Misbehaver(answer("{}")) as wire, Client(wire.endpoint) as client:
        await client.request("PUT", "//v2/auth/users/bob", json={"user": "bob", "password": PASSWORD})
        await client.request("PUT", "/v2/keys/k", form={"value": "shown"})
    assert "S3cret" not in caplog.text
    assert "shown" in caplog.text


async def test_answer_to_a_request_with_a_password_is_not_shown() -> None:
    async def echo(exchange: Exchange) -> bool | None:
        if exchange.seen.method == "GET":
            return await answer({"message": "auth: User bob does not exist."}, status=404)(exchange)
        return await answer(b"<" + exchange.seen.body)(exchange)

    async with Misbehaver(echo) as wire, Client(wire.endpoint) as client:
        with pytest.raises(InvalidResponseError) as caught:
            await client.auth.users.add("bob", SECRET)
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert caught.value.maybe_applied
