"""Where redirects lead, how many are followed, and who gets the credentials."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import msgspec
import pytest

from aioetcd2 import (
    APIError,
    ClusterError,
    RedirectError,
)
from aioetcd2._net.request import Request, build

from .loops import (
    CREATE,
    DELETE,
    FOREIGN,
    GET,
    POST,
    PUT,
    A,
    B,
    C,
    Script,
    Sent,
    call,
    failover,
    lost,
    ok,
    open_stream,
    redirect,
    refused,
    unsent,
)


async def test_any_error_of_check_redirect_comes_through() -> None:
    def refuse(hops: int) -> None:
        raise KeyError(hops)

    script = Script(a=redirect("/v2/keys/x"), b=ok())
    loop, _ = failover(script, A, B, check_redirect=refuse)
    with pytest.raises(KeyError):
        await call(loop)
    assert script.endpoints == [A]


# Streams


async def test_stream_follows_redirects_and_closes_each() -> None:
    script = Script(a=redirect("/v2/keys/x?wait=true"), b=ok())
    script.outcomes[A].append(redirect(f"{B}/v2/keys/y?wait=true"))
    loop, _ = failover(script, A, B)
    stream = await open_stream(loop)
    assert [str(sent.request) for sent in script.sent] == [
        "GET /v2/keys/k",
        "GET /v2/keys/x?wait=true",
        "GET /v2/keys/y?wait=true",
    ]
    assert [each.closed for each in script.streams] == [True, True, False]
    assert stream is script.streams[-1]


# Redirects


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("request_", [GET, PUT, POST, DELETE], ids=lambda request: request.method)
async def test_redirect_keeps_method_and_body(status: int, request_: Request) -> None:
    script = Script(a=redirect(f"{B}/v2/keys/other?x=1", status), b=ok())
    loop, pool = failover(script, A, B)
    await call(loop, request_)
    follow = script.sent[1]
    assert script.endpoints == [A, B]
    assert follow.request.target == "/v2/keys/other?x=1"
    assert (follow.request.method, follow.request.body, follow.request.content_type, follow.request.replay) == (
        request_.method,
        request_.body,
        request_.content_type,
        request_.replay,
    )
    assert pool.pinned == A


@pytest.mark.parametrize(
    ("location", "endpoint", "target"),
    [
        ("/v2/keys/x", A, "/v2/keys/x"),
        ("x", A, "/v2/keys/x"),
        ("?wait=true", A, "/v2/keys/k?wait=true"),
        (f"{B}", B, "/"),
        (f"{B}/v2/keys/x%20y?a=b%26c", B, "/v2/keys/x%20y?a=b%26c"),
        (f"{B}/v2/keys/x#there", B, "/v2/keys/x"),
        ("//b:2379/v2/keys/x", B, "/v2/keys/x"),
        ("HTTP://B:2379/X", B, "/X"),
    ],
)
async def test_redirect_leads_where_the_location_says(location: str, endpoint: str, target: str) -> None:
    script = Script(a=[redirect(location), ok()], b=ok())
    loop, _ = failover(script, A, B)
    await call(loop)
    assert (script.sent[1].endpoint, script.sent[1].request.target) == (endpoint, target)


@pytest.mark.parametrize(
    "location",
    [None, "", "http://[::1/x", "http://h:99999/", "http://b:2379/a b", "/é", "/a\x00"],
)
async def test_redirect_needs_a_good_location(location: str | None) -> None:
    script = Script(a=redirect(location), b=ok())
    loop, _ = failover(script, A, B)
    with pytest.raises(RedirectError, match="Location"):
        await call(loop)
    assert script.endpoints == [A]


@pytest.mark.parametrize(
    "location", ["ftp://b/x", "unix:///run/x/y", "unix://%2Frun%2Fdocker.sock/x", "file:///etc/passwd"]
)
async def test_redirect_leads_to_http_only(location: str) -> None:
    script = Script(a=redirect(location))
    loop, _ = failover(script, A)
    with pytest.raises(RedirectError, match="bad Location"):
        await call(loop)
    assert script.endpoints == [A]


@pytest.mark.parametrize("location", ["http://bob:hunter2@b:2379/x", "//bob@b:2379/x"])
async def test_redirect_brings_no_credentials(location: str) -> None:
    loop, _ = failover(Script(a=redirect(location)), A)
    with pytest.raises(RedirectError, match="bad Location"):
        await call(loop)


@pytest.mark.parametrize("location", ["/v2/keys/x", "http://localhost/v2/keys/x"])
async def test_redirect_stays_on_a_socket(location: str) -> None:
    script = Script()
    script.outcomes["unix:///run/etcd.sock"] = [redirect(location), ok()]
    loop, _ = failover(script, "unix:///run/etcd.sock")
    await call(loop)
    assert script.sent[1].endpoint == "unix:///run/etcd.sock"
    assert script.sent[1].request.target == "/v2/keys/x"
    assert script.sent[1].trusted


async def test_redirect_leads_away_from_a_socket() -> None:
    script = Script(b=ok())
    script.outcomes["unix:///run/etcd.sock"] = [redirect(f"{B}/x")]
    loop, _ = failover(script, "unix:///run/etcd.sock")
    await call(loop)
    assert (script.sent[1].endpoint, script.sent[1].request.target, script.sent[1].trusted) == (B, "/x", False)


async def test_ten_redirects_are_followed() -> None:
    script = Script(a=[redirect("/x")] * 10 + [ok()])
    loop, _ = failover(script, A)
    await call(loop)
    assert len(script.sent) == 11


async def test_eleven_redirects_are_too_many() -> None:
    script = Script(a=redirect("/x"), b=ok())
    loop, _ = failover(script, A, B)
    with pytest.raises(RedirectError, match="more than 10 redirects"):
        await call(loop)
    assert script.endpoints == [A] * 11


async def test_check_redirect_is_told_the_number_in_a_row_and_refuses() -> None:
    hops: list[int] = []

    def check(hop: int) -> None:
        hops.append(hop)
        if hop == 3:
            raise RedirectError("enough")

    script = Script(a=redirect("/x"))
    loop, _ = failover(script, A, check_redirect=check)
    for _ in range(2):
        with pytest.raises(RedirectError, match=r"^enough$"):
            await call(loop)
    assert hops == [1, 2, 3, 1, 2, 3]
    assert len(script.sent) == 6


async def test_check_redirect_is_not_asked_without_redirects() -> None:
    hops: list[int] = []
    loop, _ = failover(Script(a=ok()), A, check_redirect=hops.append)
    await call(loop)
    assert hops == []


@pytest.mark.parametrize(
    ("endpoints", "path", "trusted"),
    [
        ([A, B], [A, B], [True, True]),
        ([A, B], [A, FOREIGN], [True, False]),
        ([A, B], [A, "http://b:2380"], [True, False]),
        ([A, B], [A, "https://b:2379"], [True, False]),
        ([A, B], [A, FOREIGN, B], [True, False, True]),
        ([A, "https://b:1"], [A, "https://b:1"], [True, True]),
        (["https://a:1", B], ["https://a:1", B], [True, False]),
        (["https://a:1", "https://b:1"], ["https://a:1", "https://b:1"], [True, True]),
        (["https://a:1", B], ["https://a:1", FOREIGN, B], [True, False, False]),
        (["https://a:1", B], ["https://a:1", "https://elsewhere:1", B], [True, False, False]),
        ([A, "https://b:1", C], [A, "https://b:1", C], [True, True, False]),
        (["https://a:1", B], ["https://a:1", B, "https://a:1"], [True, False, True]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
@pytest.mark.parametrize("stream", [False, True], ids=["exchange", "stream"])
async def test_credentials_go_to_our_endpoints_only_and_never_onto_cleartext(
    endpoints: list[str], path: list[str], trusted: list[bool], stream: bool
) -> None:
    script = Script()
    for here, there in pairwise(path):
        script.outcomes.setdefault(here, []).append(redirect(f"{there}/x"))
    script.outcomes.setdefault(path[-1], []).append(ok())
    loop, _ = failover(script, *endpoints)
    await (open_stream(loop) if stream else call(loop))
    assert script.endpoints == path
    assert [sent.trusted for sent in script.sent] == trusted


async def test_endpoints_first_given_keep_their_trust_after_a_sync() -> None:
    script = Script(a=ok(), b=redirect(f"{A}/x"))
    loop, pool = failover(script, A)
    pool.replace([B])
    await call(loop)
    assert script.sent[1] == Sent(A, build("GET", "/x"), True)


@pytest.mark.parametrize(("endpoint", "there"), [(A, FOREIGN), ("https://a:1", B)])
async def test_body_that_holds_a_password_goes_to_our_endpoints_only(endpoint: str, there: str) -> None:
    request = build("PUT", "/v2/auth/users/bob", json=b'{"password":"hunter2"}', secret=True)
    script = Script(b=ok())
    script.outcomes[endpoint] = [redirect(f"{there}/x")]
    loop, _ = failover(script, endpoint, B)
    with pytest.raises(RedirectError, match="password") as caught:
        await call(loop, request)
    assert script.endpoints == [endpoint]
    assert "hunter2" not in str(caught.value)


async def test_body_that_holds_a_password_follows_to_our_endpoints() -> None:
    request = build("PUT", "/v2/auth/users/bob", json=b'{"password":"hunter2"}', secret=True)
    script = Script(a=redirect(f"{B}/x"), b=ok())
    loop, _ = failover(script, A, B)
    await call(loop, request)
    assert script.sent[1].request.body == request.body
    assert script.sent[1].request.secret


async def test_failure_behind_a_redirect_is_that_of_who_redirected() -> None:
    script = Script(a=redirect(f"{FOREIGN}/x"), b=ok())
    script.outcomes[FOREIGN] = [unsent]
    loop, pool = failover(script, A, B)
    await call(loop, CREATE)
    assert script.endpoints == [A, FOREIGN, B]
    assert pool.order() == (B, A)


async def test_one_shot_is_sent_once_behind_a_redirect() -> None:
    script = Script(a=redirect(f"{C}/x"), b=ok(), c=lost)
    loop, _ = failover(script, A, B)
    with pytest.raises(ClusterError) as caught:
        await call(loop, CREATE)
    assert script.endpoints == [A, C]
    assert caught.value.maybe_applied


@pytest.mark.parametrize("status", [300, 303, 305, 399])
async def test_every_3xx_is_followed(status: int) -> None:
    script = Script(a=redirect(f"{B}/x", status), b=ok())
    loop, _ = failover(script, A, B)
    await call(loop, PUT)
    assert script.sent[1] == Sent(B, msgspec.structs.replace(PUT, target="/x"), True)


async def test_refusal_at_the_end_of_a_redirect_is_an_answer(lines: Callable[[], list[str]]) -> None:
    loop, _ = failover(Script(a=[redirect("/x"), refused(203, 400)]), A)
    with pytest.raises(APIError) as caught:
        await call(loop)
    assert caught.value.code == 203
    assert lines() == [f"{A} redirects to {A}/x"]


@pytest.mark.parametrize(
    ("location", "there"), [("//b:1/x", "https://b:1"), ("http://localhost/x", "http://localhost")]
)
async def test_redirect_from_https_leads_where_the_location_says(location: str, there: str) -> None:
    script = Script()
    script.outcomes = {"https://a:1": [redirect(location)], there: [ok()]}
    loop, _ = failover(script, "https://a:1")
    await call(loop)
    assert script.endpoints == ["https://a:1", there]
    assert script.sent[1].request.target == "/x"
    assert not script.sent[1].trusted


async def test_3xx_that_leads_nowhere() -> None:
    loop, _ = failover(Script(a=redirect(None, 304)), A)
    with pytest.raises(
        RedirectError, match=f"^GET /v2/keys/k at {A}: redirect 304 without a Location, which etcd never sends$"
    ):
        await call(loop)


async def test_redirects_end_even_where_check_redirect_refuses_nothing() -> None:
    script = Script(a=redirect(f"{A}/x"))
    loop, _ = failover(script, A, check_redirect=lambda hops: None)
    with pytest.raises(RedirectError, match="more than 100 redirects"):
        await call(loop)
    assert len(script.sent) == 101
