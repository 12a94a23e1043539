"""Load the models, listen, and answer until told to stop."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from serve.serve_options import ServeOptions
from utils.base.errors import YoloError
from utils.base.log import LOG, color

_SHUTDOWN_SECONDS = 10  # for requests under way; what takes longer is cut off


def serve(options: ServeOptions, api_key: str = "") -> None:
    """Answer requests until Ctrl-C or SIGTERM; those under way are finished first.

    Raises:
        YoloError: a package is missing, or the address cannot be listened at.
        ConfigError, DataError: see `models.backends`.
    """
    try:
        import fastapi  # noqa: F401 - looked for before the models are loaded, which takes longer
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise YoloError(
            f"{error.name} is missing: pip install fastapi prometheus-client python-multipart uvicorn"
        ) from error

    with _bind(options.host, options.port) as listener:  # before the models, too
        from serve.app import make_app
        from serve.models import load_models
        from serve.service import DetectionService
        from serve.service_metrics import Metrics

        metrics = Metrics()
        service = DetectionService(load_models(options, metrics), options, metrics)
        config = uvicorn.Config(
            make_app(service, api_key, local=options.host in ("127.0.0.1", "localhost", "::1")),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        listener.listen(128)  # before the line below is read: who comes at once is answered a moment later
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        LOG.info(f"serving {', '.join(service.models)} at {color(address, 'bold')}; Ctrl-C stops")
        if not api_key and not ip_address(host).is_loopback:
            LOG.warning(f"whoever reaches {host} can send images; set API_KEY to ask for a key")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            service.close()


def _bind(host: str, port: int) -> socket.socket:
    """Take the address; nobody can connect until the server listens there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        return bound
    except OSError as error:
        raise YoloError(
            f"--host {host} --port {port}: cannot listen there: {error.strerror or error}"
        ) from error
