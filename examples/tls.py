"""Talk TLS, and prove who you are by a certificate.

python examples/tls.py    # needs trustme, which makes the certificates
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory

from aioetcd2 import Client, ClusterError
from aioetcd2.testing import EtcdServer, EtcdTLS

try:
    import trustme
except ModuleNotFoundError:
    raise SystemExit("this example makes its certificates with trustme:  pip install trustme") from None


def files(authority: trustme.CA, folder: Path) -> tuple[Path, Path, Path]:
    """Certificate and key of a server, and the certificate of the authority, as etcd wants them."""
    certificate = authority.issue_cert("127.0.0.1")
    cert, key, ca = (folder / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(cert))
    certificate.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    return cert, key, ca


async def attempt(name: str, server: EtcdServer, context: ssl.SSLContext | None) -> None:
    async with Client(server.endpoints, ssl=context) as client:
        try:
            await client.keys.set("/greeting", f"hello from {name}")
        except ClusterError as error:
            print(f"{name:<12} refused: {error.errors[0].reason}")
        else:
            print(f"{name:<12} stored its greeting at {server.endpoint}")


async def main() -> None:
    authority = trustme.CA()

    trusting = ssl.create_default_context()  # with your own authority: create_default_context(cafile="ca.pem")
    authority.configure_trust(trusting)

    known = ssl.create_default_context()
    authority.configure_trust(known)
    authority.issue_cert("me@example.com").configure_cert(known)  # or known.load_cert_chain("cert.pem", "key.pem")

    with TemporaryDirectory() as folder:
        cert, key, ca = files(authority, Path(folder))
        async with EtcdServer(tls=EtcdTLS(cert, key, ca_file=ca, context=known)) as server:
            await attempt("known", server, known)
            await attempt("anonymous", server, trusting)
            await attempt("distrustful", server, None)


if __name__ == "__main__":
    asyncio.run(main())
