"""A worker for which names below `silent.test` have a server that never answers: `python -m tests.e2e.silent_names`."""

import socket
import threading
from typing import Any, Final

from consumer.__main__ import main

DOMAIN: Final = ".silent.test"

_look_up = socket.getaddrinfo


def _patient(host: Any, *more: Any, **named: Any) -> Any:
    if isinstance(host, str) and host.endswith(DOMAIN):
        threading.Event().wait()
    return _look_up(host, *more, **named)


if __name__ == "__main__":
    socket.getaddrinfo = _patient
    main()
