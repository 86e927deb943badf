"""fsspec's files over HTTP, with one request where it makes two, and never to what gives a machine its credentials."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from maskrcnn.storage.outside import is_metadata_host

IDLE_S, WHOLE_S = 9, 60
"""How long a request may take without a byte, and as a whole; fsspec itself waits for five minutes."""

_REFUSES_HEAD = frozenset({400, 403, 405, 501})
_OF_A_VERSION = ("ETag", "Content-MD5", "Last-Modified")
_Address = tuple[int, int, int, str, tuple[Any, ...]]
"""As `socket.getaddrinfo` gives it."""


class HttpFiles(HTTPFileSystem):  # type: ignore[misc]
    """Objects behind http:// and https:// URLs."""

    def __init__(self) -> None:
        super().__init__(get_client=_open_session)

    async def _info(self, url: str, **_: Any) -> dict[str, Any]:
        """Describe an object by HEAD; by GET only where HEAD is refused, or tells no size."""
        session = await self.set_session()
        entry: dict[str, Any] = {}
        for request in (session.head, session.get):
            headers = {"Accept-Encoding": "identity"}
            async with request(self.encode_url(url), allow_redirects=True, headers=headers) as answer:
                if answer.method == "HEAD" and answer.status in _REFUSES_HEAD:
                    continue
                self._raise_not_found_for_status(answer, url)
                entry = _entry(url, answer.headers)
            if entry["size"] is not None:
                break
        return entry


async def _open_session(**options: Any) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(socket_factory=open_socket)
    timeout = aiohttp.ClientTimeout(total=WHOLE_S, sock_connect=IDLE_S, sock_read=IDLE_S)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, **options)


def open_socket(address: _Address) -> socket.socket:
    """Make the socket for an address, which comes from a URL, a redirect or a name's resolution: here all meet.

    Args:
        address: as `socket.getaddrinfo` gives it.

    Raises:
        PermissionError: for an address that answers with a machine's secrets.
    """
    family, kind, protocol, _, (host, *_) = address
    if is_metadata_host(host):
        raise PermissionError(errno.EACCES, "must not lead to an address of this network's own services")
    return socket.socket(family, kind, protocol)


def _entry(url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    is_plain = headers.get("Content-Encoding", "identity") in ("identity", "")
    size = headers.get("Content-Length", "") if is_plain else ""
    entry: dict[str, Any] = {"name": url, "type": "file", "size": int(size) if size.isdecimal() else None}
    if headers.get("Accept-Ranges") == "none":
        entry["partial"] = False
    return entry | {name: headers[name] for name in _OF_A_VERSION if headers.get(name)}
