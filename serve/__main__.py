"""Serve models of all tasks over HTTP: `python -m serve --weights a.pt b-seg.pt c-cls.pt`."""

from __future__ import annotations

import os
import socket
from importlib import import_module
from ipaddress import ip_address
from typing import Any

from serve.serve_options import ServeOptions
from utils.base import script
from utils.base.errors import YoloError
from utils.base.log import LOG, color
from utils.base.options import options_from, parse_options

_SHUTDOWN_SECONDS = 10  # for requests in progress; slower ones are cut off
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run(**kwargs: Any) -> None:
    """Serve until interrupted, with the options of the command line as keywords: `run(weights="best.pt")`."""
    serve(options_from(ServeOptions, kwargs), os.environ.get("API_KEY", ""))


def main() -> None:
    """Serve until interrupted, with the options of the command line."""
    serve(parse_options(ServeOptions), os.environ.get("API_KEY", ""))


def serve(options: ServeOptions, api_key: str = "") -> None:
    """Serve until Ctrl-C or SIGTERM; what has been uploaded is finished first. Returns after a SIGTERM.

    Raises:
        YoloError: a package is missing, or the port is not available.
        ConfigError, DataError: see `models.backends`.
    """
    # Read by OpenCV when it is imported: a second check behind the one of each image header.
    os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(options.max_pixels)
    try:
        for package in ("fastapi", "prometheus_client", "python_multipart"):
            import_module(package)  # before the models are loaded, which takes longer
        import uvicorn
    except ImportError as error:
        raise YoloError(
            f"{error.name} is missing: pip install fastapi prometheus-client python-multipart uvicorn"
        ) from error

    with _bind(options.host, options.port) as listener:  # before the models are loaded, too
        from serve.app import make_app
        from serve.connections import Connection, Server, connection_limit
        from serve.middleware import Metrics
        from serve.models import load_models
        from serve.service import InferenceService

        metrics = Metrics()
        service = InferenceService(load_models(options, metrics), options, metrics)
        config = uvicorn.Config(
            make_app(service, api_key, local=options.host in _LOOPBACK),
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        Connection.most = connection_limit()
        listener.listen(128)  # before the URL is printed: clients that connect at once are queued
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        LOG.info(f"serving {', '.join(service.models)} at {color(url, 'bold')}; Ctrl-C stops")
        if not api_key and not ip_address(host).is_loopback:
            LOG.warning(f"any client that reaches {host} can send images; set API_KEY to require a key")
        try:
            Server(config, service.uploads.stop).run(sockets=[listener])
        finally:
            service.close()


def _bind(host: str, port: int) -> socket.socket:
    """Reserve the port; clients cannot connect before `listen`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        return bound
    except OSError as error:
        raise YoloError(f"--host {host} --port {port}: cannot listen: {error.strerror or error}") from error


if __name__ == "__main__":
    script.main(main)
