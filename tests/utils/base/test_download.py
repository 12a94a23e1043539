"""Downloads: the complete and correct file, or no file and a one-line error."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Answer, Site, serve
from utils.base.download import download_bytes, download_file
from utils.base.errors import ConfigError, DataError
from utils.base.http_client import _is_public

BODY = bytes(range(256)) * 5000  # 1.28 MB: more than one chunk
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve({"/file.bin": Answer(BODY)}) as running:
        yield running


def test_a_file_is_downloaded(site: Site, tmp_path: Path) -> None:
    got = download_file(f"{site.url}/file.bin", tmp_path / "deep er" / "f.bin", sha256=SHA256, size=len(BODY))

    assert got.read_bytes() == BODY
    assert got == tmp_path / "deep er" / "f.bin"


def test_a_file_without_content_length_is_downloaded(site: Site, tmp_path: Path) -> None:
    site.answers["/stream"] = Answer(BODY, promised=-1)

    assert download_file(f"{site.url}/stream", tmp_path / "f").read_bytes() == BODY


def test_a_redirect_is_followed(site: Site, tmp_path: Path) -> None:
    site.answers["/old"] = Answer(status=302, headers={"Location": "/file.bin"})

    assert download_file(f"{site.url}/old", tmp_path / "f", sha256=SHA256).read_bytes() == BODY


def test_only_a_file_with_another_hash_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "f"
    download_file(f"{site.url}/file.bin", path, sha256=SHA256)
    download_file(f"{site.url}/file.bin", path, sha256=SHA256)
    assert len(site.asked) == 1

    path.write_bytes(b"cut")
    download_file(f"{site.url}/file.bin", path, sha256=SHA256)
    assert len(site.asked) == 2
    assert path.read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (Answer(status=404), {}, "HTTP status 404"),
        (Answer(BODY, promised=len(BODY) + 9), {}, "ended after|connection broke"),
        (Answer(BODY), {"sha256": "0" * 64}, f"sha256 is {SHA256}, expected 0000"),
        (Answer(BODY), {"size": len(BODY) + 1}, "has 1,280,000 bytes, expected 1,280,001"),
        (Answer(BODY, promised=-1), {"size": len(BODY) + 1}, "ended after 1,280,000 of 1,280,001"),
        (Answer(BODY), {"limit": 1000}, "more than the 1,000 allowed"),
        (Answer(BODY, promised=-1), {"limit": 1000}, "received more than the expected 1,000 bytes"),
        (Answer(promised=2**62), {"limit": 2**63}, "free"),
        (
            Answer(status=302, headers={"Location": "file:///etc/passwd"}),
            {},
            "'file:///etc/passwd' is not allowed",
        ),
        (Answer(status=302, headers={"Location": "ftp://127.0.0.1/x"}), {}, "redirected to ftp:"),
    ],
)
def test_any_other_response_is_an_error_and_leaves_no_file(
    site: Site, tmp_path: Path, answer: Answer, expected: dict[str, Any], message: str
) -> None:
    site.answers["/x"] = answer

    with pytest.raises(DataError, match=message):
        download_file(f"{site.url}/x", tmp_path / "f", **expected)

    assert list(tmp_path.iterdir()) == []


def test_a_missing_server_is_a_one_line_error_with_advice(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"http://127.0.0.1:{free.getsockname()[1]}/f"
        with pytest.raises(DataError, match=r"cannot be reached \(Connection refused\).*put it at .*/f$"):
            download_file(url, tmp_path / "f")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/f", "/etc/passwd", "http:///f", ""])
def test_only_http_urls_are_accepted(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a URL"):
        download_file(url, tmp_path / "f")


def test_a_file_is_downloaded_into_memory(site: Site) -> None:
    assert download_bytes(f"{site.url}/file.bin", limit=len(BODY)) == BODY
    for promised in (None, -1):
        site.answers["/file.bin"] = Answer(BODY, promised=promised)
        with pytest.raises(DataError, match="allowed"):
            download_bytes(f"{site.url}/file.bin", limit=len(BODY) - 1)
    with pytest.raises(ConfigError, match="http"):
        download_bytes("file:///etc/hostname", limit=10)


def test_local_hosts_are_not_public(site: Site) -> None:
    for url in (f"{site.url}/file.bin", f"http://localhost:{site.url.rpartition(':')[2]}/file.bin"):
        with pytest.raises(ConfigError, match="not a public address"):
            download_bytes(url, limit=len(BODY), public=True)
    assert not site.asked


def test_redirects_to_local_hosts_are_not_public(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.base import http_client as module

    site.answers["/away"] = Answer(status=302, headers={"Location": f"{site.url}/file.bin"})
    check = module._check_public
    monkeypatch.setattr(module, "_check_public", lambda url: None if url.endswith("/away") else check(url))
    monkeypatch.setattr(module._Visit, "connected", lambda *_: None)
    with pytest.raises(ConfigError, match=r"file.bin: 127.0.0.1 is not a public address"):
        download_bytes(f"{site.url}/away", limit=len(BODY), public=True)
    assert site.asked == ["/away"]


def public_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first IP that is checked count as a public one."""
    from utils.base import http_client as module

    answers = iter([True])
    monkeypatch.setattr(module, "_is_public", lambda _: next(answers, False))


def test_a_name_that_has_a_local_ip_when_it_is_resolved_again_is_refused(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the connection counts, not what the name was resolved to before."""
    public_at_first(monkeypatch)
    with pytest.raises(ConfigError, match="127.0.0.1 is not a public address"):
        download_bytes(f"{site.url}/file.bin", limit=len(BODY), public=True)
    assert not site.asked


def test_redirects_from_a_public_host_do_not_lead_to_a_local_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.answers["/away"] = Answer(status=302, headers={"Location": f"{site.url}/file.bin"})
    assert download_file(f"{site.url}/away", tmp_path / "a").exists()  # both are local
    public_at_first(monkeypatch)
    with pytest.raises(ConfigError, match="127.0.0.1 is not a public address"):
        download_file(f"{site.url}/away", tmp_path / "b")


@pytest.mark.parametrize(
    ("ip", "public"),
    [("8.8.8.8", True), ("::ffff:8.8.8.8", True), ("::ffff:127.0.0.1", False), ("169.254.169.254", False)]
    + [("10.0.0.1", False), ("fe80::1%eth0", False), ("::1", False), ("0.0.0.0", False)]
    + [("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("fec0::1", False), ("::127.0.0.1", False)]
    + [("224.0.0.1", False), ("64:ff9b::808:808", True), ("2606:4700::1111", True)],
)
def test_public_addresses(ip: str, public: bool) -> None:
    assert _is_public(ip) == public


@pytest.mark.parametrize(
    "start",
    [b"", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: "],
    ids=["body", "size of a chunk", "trailer"],
)
def test_a_download_that_trickles_ends(start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLOV5_MAX_DOWNLOAD", "1")
    with (
        trickling(b"HTTP/1.1 200 OK\r\n" + start + b"\r\n" * (not start.endswith(b"X: "))) as url,
        pytest.raises(DataError, match="not complete after 1 "),
    ):
        download_file(url, tmp_path / "f")
    assert list(tmp_path.iterdir()) == []


def test_headers_that_trickle_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.base.http_client.RESPONSE_SECONDS", 0.5)
    with (
        trickling(b"HTTP/1.1 200 OK\r\nX: ") as url,
        pytest.raises(DataError, match="no response within 0.5 s"),
    ):
        download_file(url, tmp_path / "f")


@contextmanager
def trickling(start: bytes) -> Iterator[str]:
    """Run a server that sends `start`, and then a letter every 20 ms; yield its URL."""
    ended = threading.Event()

    def answer() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(start)
            while not ended.wait(0.02):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/f"
        finally:
            ended.set()
            thread.join()
