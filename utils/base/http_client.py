"""Open http(s) URLs: safe redirects, no way from public to local hosts, and a time limit for the response."""

from __future__ import annotations

import ipaddress
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

from utils.base.errors import ConfigError
from utils.base.inputs import split_url

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
RESPONSE_SECONDS = 60.0  # from the connection to the last header, with all redirects


def check_url(url: str) -> None:
    """Refuse what is no http(s) URL.

    Raises:
        ConfigError: it is none.
    """
    parts = split_url(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url}: not a URL to download from; expected http:// or https://")


def open_url(url: str, timeout: float, public: bool = False) -> tuple[Any, Deadline]:
    """Open `url`; redirects lead to http(s) only, not from https to http, nor from a public to a local host.

    Hosts are checked by the IP of the connection, as a name may have another one when it is resolved again.

    Args:
        url: http or https.
        timeout: maximum time without data, seconds.
        public: the host has to be public, too.

    Returns:
        The response, see `urllib.request.urlopen`, and the deadline of its connection.

    Raises:
        ConfigError: a local host, where a public one is required.
        OSError, HTTPException: it cannot be opened.
    """
    visit = _Visit(public)
    if public:
        _check_public(url)
    opener = urllib.request.build_opener(_Http(visit), _Https(visit), _SafeRedirects(visit))
    request = urllib.request.Request(url, headers={"User-Agent": "yolov5-lska"})
    with visit.deadline.within(RESPONSE_SECONDS):
        return opener.open(request, timeout=timeout), visit.deadline


class Deadline:
    """Breaks a connection after a time, in whatever step it is: timeouts of sockets start again with a byte.

    Attributes:
        late: whether it has.
    """

    def __init__(self) -> None:
        self.late = False
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        """Break the connection after this time, unless `stop` is called."""
        self._timer = threading.Timer(seconds, self._break)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Keep the connection."""
        if self._timer is not None:
            self._timer.cancel()

    def connected(self, to: socket.socket) -> None:
        """Set the connection, also when another one is opened for a redirect."""
        self._socket = to
        if self.late:  # while the name was resolved, for example
            raise TimeoutError

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Raise TimeoutError if the block takes longer."""
        self.start(seconds)
        try:
            yield
        except OSError:
            if not self.late:
                raise
        finally:
            self.stop()
        if self.late:  # http.client may take a broken connection for the end of the headers
            raise TimeoutError(f"no response within {seconds:g} seconds")

    def _break(self) -> None:
        self.late = True
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Visit:
    """What opening one URL has come across.

    Attributes:
        public: whether hosts have to be public; None before the first connection, if that may be local.
        deadline: of the connection.
    """

    def __init__(self, public: bool) -> None:
        self.public = True if public else None
        self.deadline = Deadline()

    def connected(self, to: socket.socket, host: str, proxied: bool) -> None:
        """Check the host of a new connection; that of a proxy, which resolves names itself, is not known."""
        self.deadline.connected(to)
        if proxied:
            return
        is_public = _is_public(str(to.getpeername()[0]))
        if self.public is None:
            self.public = is_public
        elif self.public and not is_public:
            raise ConfigError(f"{host} is not a public address; download the file yourself")


class _Http(urllib.request.HTTPHandler):
    """Handler of http: URLs that reports its connections to a visit."""

    def __init__(self, visit: _Visit) -> None:
        super().__init__()
        self._visit = visit

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connection(HTTPConnection, self._visit, req), req)


class _Https(urllib.request.HTTPSHandler):
    """Handler of https: URLs that reports its connections to a visit."""

    def __init__(self, visit: _Visit) -> None:
        super().__init__()
        self._visit = visit

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_connection(HTTPSConnection, self._visit, req), req)


def _connection(
    base: type[HTTPConnection], visit: _Visit, request: urllib.request.Request
) -> type[HTTPConnection]:
    proxied = request.has_proxy() or bool(getattr(request, "_tunnel_host", None))

    class Connection(base):  # type: ignore[valid-type, misc]
        def connect(self) -> None:
            super().connect()
            visit.connected(self.sock, self.host, proxied)

    return Connection


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Handler of redirects: to http(s) only, and never from https to http."""

    def __init__(self, visit: _Visit) -> None:
        self._visit = visit

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if split_url(newurl).scheme not in allowed:
            raise urllib.error.URLError(f"redirected to {newurl}, which is not {' or '.join(allowed)}")
        if self._visit.public:
            _check_public(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_public(url: str) -> None:
    """Refuse loopback and private hosts, before a connection. Unknown hosts pass: opening the URL fails."""
    host = split_url(url).hostname or ""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return
    if not all(_is_public(one) for one in found):
        raise ConfigError(f"{url}: {host} is not a public address; download the file yourself")


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if (hidden := _ipv4_of(ip)) is not None:
            return hidden.is_global and not hidden.is_multicast
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast


def _ipv4_of(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 that an IPv6 stands for: mapped, 6to4, NAT64, or after 96 bits of 0."""
    translated = ip in _NAT64 or int(ip) < 2**32
    return ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) % 2**32) if translated else None)
