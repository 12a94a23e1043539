"""Mixed load on a server, valid and not, and its memory: `python -m tests.serve.load --seconds 3600`."""

from __future__ import annotations

import argparse
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import psutil

from tests.serve.process import started
from tests.serve.service import encoded, make_image

HOST = "127.0.0.1"
_HEAD = "POST /v1/detect/tiny HTTP/1.1\r\nHost: {}\r\nContent-Type: multipart/form-data; boundary=f\r\n"
_PART = '--f\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


class Load:
    """Threads that send requests of all kinds until they are told to stop.

    Attributes:
        counts: responses by kind and status; a status of 0 is a connection that was closed.
    """

    def __init__(self, url: str, threads: int, pause: float) -> None:
        self.url = url
        self.pause = pause
        self.counts: Counter[tuple[str, int]] = Counter()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._images = [encoded(make_image(k, 40 + 30 * k, 60 + 50 * k)) for k in range(4)]
        self._threads = [threading.Thread(target=self._run, args=(seed,)) for seed in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        rng = random.Random(seed)
        kinds: dict[str, Callable[[httpx.Client, random.Random], int]] = {
            "image": self._image,
            "drawn": lambda client, rng: self._post(client, self._images[rng.randrange(4)], format="image"),
            "garbage": lambda client, rng: self._post(client, rng.randbytes(2000)),
            "damaged": lambda client, rng: self._post(client, self._images[3][: rng.randrange(20, 4000)]),
            "parameter": lambda client, rng: self._post(client, self._images[0], conf="high"),
            "unknown model": lambda client, rng: self._post(client, b"", model=str(rng.random())),
            "metrics": lambda client, rng: client.get(f"{self.url}/metrics").status_code,
            "cut off": lambda client, rng: self._raw("Content-Length: 5000\r\n\r\n" + _PART),
            "no headers": lambda client, rng: self._raw("X-"),
            "too large": lambda client, rng: self._raw("Content-Length: 99999999\r\n\r\n", wait=True),
        }
        while not self._stop.wait(self.pause):
            kind = rng.choice(list(kinds))
            with httpx.Client(timeout=60, verify=False) as client:
                status = kinds[kind](client, rng)
            with self._lock:
                self.counts[kind, status] += 1

    def _image(self, client: httpx.Client, rng: random.Random) -> int:
        return self._post(client, self._images[rng.randrange(4)])

    def _post(self, client: httpx.Client, content: bytes, model: str = "tiny", **fields: str) -> int:
        url = f"{self.url}/v1/detect/{model}"
        return client.post(url, files={"image": content}, data=fields).status_code

    def _raw(self, rest: str, wait: bool = False) -> int:
        """Send an incomplete request; close the connection at once, or read the status of the response."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall((_HEAD.format(host) + rest).encode())
            return int(connection.recv(100).split()[1]) if wait else 0


@dataclass
class Outcome:
    """The server's memory in bytes at 20 times, the responses (see `Load`), and its log of errors."""

    memory: list[int]
    counts: Counter[tuple[str, int]]
    errors: str


def run_load(seconds: float, threads: int = 3, pause: float = 0.0) -> Outcome:
    """Send mixed load to a server, then stop it with SIGTERM, which has to end it with status 0."""
    with started("--max-wait-ms", "0") as server:
        process, used = psutil.Process(server.process.pid), []
        with Load(server.url, threads, pause) as load:
            for _ in range(20):
                time.sleep(seconds / 20)
                used.append(process.memory_info().rss)
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert server.process.stderr is not None
        return Outcome(used, load.counts, server.process.stderr.read())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests of a thread")
    options = parser.parse_args()
    outcome = run_load(options.seconds, pause=options.pause)
    print("MB:", *(round(value / 1e6) for value in outcome.memory))
    for (name, code), number in sorted(outcome.counts.items()):
        print(f"{name:15} {code:3} {number:8}")
    print(outcome.errors)
