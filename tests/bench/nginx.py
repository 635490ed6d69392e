"""The bench's image source and object store: one nginx, so that neither end of the measured work is Python."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.process import Program
from sandbox.service import Service
from tests.bench.pictures import Picture

# nginx's own PUT (the dav module) answers 201 or 204, which nothing turns into the 200 of OSS: `error_page` begins at
# 300. So the body is kept where nginx keeps bodies, in a file of its own that `client_body_in_file_only` leaves there,
# and only when it is complete (proxy_request_buffering) the second server is asked for the status line.
# It is one process (master_process off), so that killing it leaves none behind.
_CONFIGURATION = """
daemon off;
master_process off;
pid nginx.pid;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    types {{ image/png png; }}
    client_max_body_size 0;
    client_body_temp_path objects;
    proxy_temp_path temp;
    fastcgi_temp_path temp;
    scgi_temp_path temp;
    uwsgi_temp_path temp;

    # Every object of one length has the same bytes; the empty one is the worker's probe.
    map $http_content_length $crc {{
        0 0;
        {checksums}
    }}

    upstream answer {{
        server 127.0.0.1:{answer};
        keepalive 256;
    }}

    server {{
        listen 127.0.0.1:{front};
        location /source/ {{ root .; }}
        location / {{
            client_body_in_file_only on;
            proxy_pass http://answer;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            add_header x-oss-hash-crc64ecma $crc always;
        }}
    }}

    server {{
        listen 127.0.0.1:{answer};
        if ($request_method = DELETE) {{ return 204; }}
        location / {{ return 200; }}
    }}
}}
"""


class Nginx(Service):
    """Serves pictures by GET, and takes them by PUT as OSS does: 200, with the checksum of what it stored."""

    title = "nginx"
    port_names = ("front", "answer")

    def __init__(self, directory: Path, pictures: Sequence[Picture]) -> None:
        super().__init__(directory)
        self._pictures = pictures

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['front']}"

    def source_url(self, picture: Picture) -> str:
        return f"{self.url}/source/{picture.name}.png"

    def objects(self) -> list[Path]:
        """What was put, in files whose names are only numbers; an empty one is what a probe left."""
        return [path for path in (self.directory / "objects").iterdir() if path.stat().st_size]

    def _prepare(self, ports: Mapping[str, int]) -> None:
        for name in ("source", "objects", "temp"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        for picture in self._pictures:
            (self.directory / "source" / f"{picture.name}.png").write_bytes(picture.content)
        checksums = " ".join(f"{len(picture.content)} {picture.crc64};" for picture in self._pictures)
        (self.directory / "nginx.conf").write_text(_CONFIGURATION.format(checksums=checksums, **ports))

    def _programs(self, ports: Mapping[str, int]) -> Sequence[Program]:
        place = str(self.directory)
        return (
            Program(
                name="nginx",
                command=[_nginx(), "-p", place, "-c", f"{place}/nginx.conf", "-e", "stderr"],
                log=self.directory / "nginx.log",
                port=ports["front"],
            ),
        )


def _nginx() -> str:
    for candidate in (shutil.which("nginx"), "/usr/sbin/nginx"):  # Debian keeps it off the path of users
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    raise LookupError("nginx is not installed: run `sandbox/setup bench`")
