"""A real nginx before a member, as it comes: it buffers answers, and ends a wait that is quiet for some seconds."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from async_timeout import timeout

from aioetcd2.testing import _free_port

if TYPE_CHECKING:
    from typing_extensions import Self

READ_TIMEOUT = 5
"""Seconds after which nginx gives up an answer that brings nothing; 60 as it comes."""

CONFIGURATION = """\
daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout {read_timeout}s;
        }}
    }}
}}
"""


def find_nginx() -> str | None:
    """Where nginx is; `None` = not on this machine."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Nginx:
    """Passes on what a member says, when it likes.

    Args:
        upstream: The endpoint of the member.

    Attributes:
        endpoint: Where a client connects.
    """

    def __init__(self, upstream: str) -> None:
        port = _free_port()
        self.endpoint = f"http://127.0.0.1:{port}"
        self._folder = tempfile.TemporaryDirectory(prefix="nginx-")
        self._configuration = CONFIGURATION.format(port=port, upstream=upstream, read_timeout=READ_TIMEOUT)
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        binary = find_nginx()
        assert binary is not None, "there is no nginx on this machine"
        Path(self._folder.name, "nginx.conf").write_text(self._configuration)
        command = [binary, "-p", self._folder.name, "-c", "nginx.conf", "-e", "error.log"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=self._folder.name)
        parts = urlsplit(self.endpoint)
        async with timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
                except OSError:
                    assert self._process.poll() is None, "nginx has exited"
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(self._process.wait)
        self._folder.cleanup()
