"""nginx as a proxy to the upstream: one worker, and none of its work written down."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bench.parts.processes import free_port, server

_CONFIGURATION = """\
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    client_body_buffer_size 64k;
    keepalive_requests 100000000;
    upstream model {{
        server {upstream};
        keepalive 256;
        keepalive_requests 100000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""
# Where Debian puts it is not on everybody's PATH.
_PLACES = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


def find() -> str | None:
    """The machine's nginx, if it has one."""
    return shutil.which("nginx", path=_PLACES)


@contextlib.contextmanager
def running(program: str, *, upstream: str) -> Iterator[tuple[str, int]]:
    """Proxy to the upstream's address; yields its own address and its process id."""
    with tempfile.TemporaryDirectory(prefix="tollgate-nginx-") as name:
        folder, port = Path(name), free_port()
        file = folder / "nginx.conf"
        file.write_text(_CONFIGURATION.format(folder=folder, port=port, upstream=urlsplit(upstream).netloc))
        address = f"http://127.0.0.1:{port}"
        command = [program, "-e", "stderr", "-p", name, "-c", str(file)]
        with server(command, health=f"{address}/health", environ=os.environ) as pid:
            yield address, pid
