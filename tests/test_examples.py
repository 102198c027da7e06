from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aioetcd2 import Client, KeyNotFoundError
from aioetcd2.testing import EtcdServer

EXAMPLES = sorted(Path(__file__).parent.parent.joinpath("examples").glob("*.py"))

QUICKSTART = [
    r"Set /foo to bar",
    r"  action          set",
    r"  key             /foo",
    r"  value           bar",
    r"  created index   [1-9]\d*",
    r"  modified index  [1-9]\d*",
    r"  etcd index      [1-9]\d*, raft index [1-9]\d*, raft term [1-9]\d*",
    r"  cluster         [0-9a-f]+",
    r"Get /foo",
    r"  bar",
    r"  refused: PUT /v2/keys/foo at http://\S+: 101 Compare failed \(\[qux != bar\]\) \[index \d+\]",
    r"Watch /quickstart",
    r"  set     /quickstart/web = 10\.0\.0\.1:80",
    r"  set     /quickstart/db = 10\.0\.0\.2:5432",
    r"  set     /quickstart/db = 10\.0\.0\.3:5432",
    r"  delete  /quickstart",
    r"Done; .*",
]

KEY_LINES = {
    "quickstart.py": [r"Started an etcd at http://127\.0\.0\.1:\d+", *QUICKSTART],
    "watch.py": [
        r"at first {'/services/\w+': '10\.0\.0\.\d:\d+', '/services/\w+': '10\.0\.0\.\d:\d+'}",
        r"set      .*'/services/web': '10\.0\.0\.3:80'.*",
        r"delete   {'/services/web': '10\.0\.0\.3:80'}",
        r"set      {'/services/web': '10\.0\.0\.3:80', '/services/mail': '10\.0\.0\.4:25'}",
        r"expire   {'/services/web': '10\.0\.0\.3:80'}",
    ],
    "tree.py": [
        r"at first       ann sees blue, at most 100 requests",
        r"changed        bob sees red, at most 7 requests",
        r"in an outage   cid sees red, at most 7 requests \(\d s old\)",
        r"all is gone    dan sees grey, at most 100 requests",
    ],
    "registration.py": [
        r'create            {"address": "10\.0\.0\.1:80", "healthy": true}',
        r'compareAndSwap    {"address": "10\.0\.0\.1:80", "healthy": false}',
        r'compareAndSwap    {"address": "10\.0\.0\.1:80", "healthy": true}',
        r'after an outage   {"address": "10\.0\.0\.1:80", "healthy": true}',
        r'delete            {"address": "10\.0\.0\.1:80", "healthy": true}',
        r'create            {"address": "10\.0\.0\.1:80", "healthy": true}',
        r'compareAndDelete  {"address": "10\.0\.0\.1:80", "healthy": true}',
    ],
    "lock.py": [
        r"(\w+) takes, \1 gives, (\w+) takes, \2 gives, (\w+) takes, \3 gives",
        r"held by erin",
        r"13 s are left without a word of the cluster",
        r"refused: /locks/ledger is held by erin \(token \d+\); .*",
        r"lost: its key was deleted, or written by another",
        r"fenced: 'dave takes' comes too late: its token is \d+, and \d+ was here",
    ],
    "semaphore.py": [
        r"10 reports, at most 3 at a time",
        r"held by alice, bob, carol",
        r"no room; try again later",
        r"report 10 begins again: its key was deleted, or written by another",
        r"report 10 is done",
    ],
    "election.py": [
        r"leads at first: nobody",
        r"then: first",
        r"after it has stopped: second",
        r"second, then third",
        r"after its key was taken away: third",
        r"third, then second",
    ],
    "counter.py": [r"10 tasks raised the counter 10 times each: it is 100", r"[1-9]\d{2,} tries, .*"],
    "members.py": [
        r"Three members",
        r"  m\d  http://127\.0\.0\.1:\d+  leads",
        r"m\d was killed, and another leads now",
        r"m3 was added as [0-9a-f]+",
        r"  m3  http://127\.0\.0\.1:\d+",
        r"m3 was removed; 3 endpoints after sync\(\)",
    ],
    "work_queue.py": [
        r"52 to be sent",
        r"attempt 1: bob at home is no address",
        r"attempt 2: bob at home is no address",
        r"attempt 3: bob at home is no address",
        r"51 were sent, and put aside: bob at home",
    ],
    "auth.py": [
        r"web-team reads /config/\*, /web/\* and writes /web/\*",
        r"web     get /config/colour  yes",
        r"web     set /config/colour  no",
        r"web     set /web/port       yes",
        r"anyone  get /config/colour  no",
    ],
    "tls.py": [
        r"known        stored its greeting at https://127\.0\.0\.1:\d+",
        r"anonymous    refused: the server wants a client certificate, or refuses ours: .*",
        r"distrustful  refused: .*CERTIFICATE_VERIFY_FAILED.*",
    ],
    "srv.py": [
        r"  someone asks for example\.com",
        r"  found http://127\.0\.0\.1:\d+",
        r"The first member dies, and the records change",
        r"  someone asks for example\.com",
        r"  found http://127\.0\.0\.1:\d+, http://127\.0\.0\.1:\d+",
        r"  /where is still 'at the first'",
    ],
    "prometheus_metrics.py": [
        r"All is well",
        r"  aioetcd2_calls_total \d\.0",
        r"  aioetcd2_watches_open 1\.0",
        r'  aioetcd2_endpoint_fails{endpoint="http://127\.0\.0\.1:\d+"} 0\.0',
        r"The endpoint is dead",
        r'  aioetcd2_told_total{endpoint="http://127\.0\.0\.1:\d+",event="EndpointFailed"} 1\.0',
        r'  aioetcd2_endpoint_fails{endpoint="http://127\.0\.0\.1:\d+"} 1\.0',
        r"It is back",
        r'  aioetcd2_told_total{endpoint="http://127\.0\.0\.1:\d+",event="EndpointRecovered"} 1\.0',
        r'  aioetcd2_endpoint_fails{endpoint="http://127\.0\.0\.1:\d+"} 0\.0',
    ],
    "opentelemetry_metrics.py": [
        r"All is well",
        r"  aioetcd2\.calls {} \d",
        r"  aioetcd2\.watches_open {} 1",
        r"  aioetcd2\.endpoint_fails {'endpoint': 'http://127\.0\.0\.1:\d+'} 0",
        r"The endpoint is dead",
        r"  span 'look for web' has \['aioetcd2\.EndpointFailed'.*\]",
        r"  aioetcd2\.endpoint_fails {'endpoint': 'http://127\.0\.0\.1:\d+'} 1",
        r"  aioetcd2\.told {'event': 'EndpointFailed', 'endpoint': 'http://127\.0\.0\.1:\d+'} 1",
        r"It is back",
        r"  aioetcd2\.endpoint_fails {'endpoint': 'http://127\.0\.0\.1:\d+'} 0",
        r"  aioetcd2\.told {'event': 'EndpointRecovered', 'endpoint': 'http://127\.0\.0\.1:\d+'} 1",
    ],
}


def test_every_example_is_checked() -> None:
    assert sorted(KEY_LINES) == [example.name for example in EXAMPLES]


def run(example: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONASYNCIODEBUG"}
    command = [sys.executable, "-W", "error", str(example), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def assert_in_order(patterns: list[str], output: str) -> None:
    lines = iter(output.splitlines())
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in lines), f"{pattern!r} is missing, or not in its place"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.etcd
def test_runs_by_itself(example: Path) -> None:
    result = run(example)
    print(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout
    assert_in_order(KEY_LINES[example.name], result.stdout)


@pytest.mark.parametrize("before", [[], ["127.0.0.1:1"]], ids=["alone", "behind a dead one"])
async def test_quickstart_with_endpoints(server: EtcdServer, client: Client, before: list[str]) -> None:
    result = run(EXAMPLES[[path.name for path in EXAMPLES].index("quickstart.py")], *before, server.endpoint)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Started" not in result.stdout
    assert_in_order(QUICKSTART, result.stdout)
    for key in ("/foo", "/quickstart"):
        with pytest.raises(KeyNotFoundError):
            await client.keys.get(key)


@pytest.mark.parametrize(
    ("endpoint", "complaint"),
    [("127.0.0.1:1", "no endpoint answered"), ("ftp://etcd", "not an endpoint: 'ftp://etcd'")],
)
@pytest.mark.slow
def test_quickstart_without_a_server(endpoint: str, complaint: str) -> None:
    result = run(EXAMPLES[[path.name for path in EXAMPLES].index("quickstart.py")], endpoint)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
