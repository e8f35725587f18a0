"""Where the app listens: a port that is one, an address that can be listened on, and no proxy before its own page.

Imports nothing heavy. Try it: bind_error("::1", 7860)
"""

import argparse
import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

# As Gradio looks for a free port by itself, which it can't for IPv6.
FIRST_PORT, PORTS = 7860, 100
EXAMPLES = "Write 127.0.0.1 for this machine alone, or 0.0.0.0 to be reached from others."
# What people paste: a scheme, a host (IPv6 in brackets, or alone), a port, a path.
URL = re.compile(r"(?P<scheme>\w+:/*)?(?P<host>\[[^]]*\]|[^:/]*)(?::(?P<port>\d+))?(?P<path>/.*)?")


def port_number(text: str) -> int:
    """A port from the command line. Raises ArgumentTypeError when it is none."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not a port: ports are 1 to 65535")
    return int(text)


def host_name(text: str) -> str:
    """A name or an address, without the brackets that IPv6 has in a URL. Raises ArgumentTypeError when it is empty."""
    name = text.strip()
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if not name:
        raise argparse.ArgumentTypeError("it is empty: give a name or an address, such as 127.0.0.1")
    return name


def bind_error(host: str, port: int | None) -> str | None:
    """Why nobody can listen there, or None. Gradio would say that the port is taken, whatever the reason."""
    url = URL.fullmatch(host)
    if url and (url["scheme"] or url["port"] or url["path"]):
        meant = f"--host {url['host'] or '127.0.0.1'}" + (f" --port {url['port']}" if url["port"] else "")
        return f"can't listen on {host}: it is more than a name or an address. Write {meant}"
    try:
        found = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            with socket.create_server(address, family=family):
                pass
    except (OSError, UnicodeError) as error:
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            return f"port {port} is taken: choose another --port, or leave it out"
        if isinstance(error, (socket.gaierror, UnicodeError)):
            return f"can't listen on {host}: it is neither a name nor an address known here. {EXAMPLES}"
        if error.errno == errno.EADDRNOTAVAIL:
            return f"can't listen on {host}: it is not an address of this machine. {EXAMPLES}"
        return f"can't listen on {host}: {error.strerror}"
    return None


def free_port(host: str) -> int | None:
    """The first free one; None = let Gradio look for it, as it can but for IPv6."""
    if ":" not in host:
        return None
    first = int(os.environ.get("GRADIO_SERVER_PORT") or FIRST_PORT)
    # Gradio looks at 127.0.0.1 before it takes a port of any address.
    for port in range(first, first + PORTS):
        if not (bind_error(host, port) or bind_error("127.0.0.1", port)):
            return port
    return None


def in_url(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


@contextmanager
def without_proxy() -> Iterator[None]:
    """Inside, no proxy of the environment is used at all, not even to see that one can't be."""
    kept = {name: os.environ.get(name) for name in ("no_proxy", "NO_PROXY")}
    os.environ.update(dict.fromkeys(kept, "*"))
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def ask_oneself_directly(host: str) -> None:
    """Add this machine and the address listened on to what the environment excepts from a proxy: Gradio, and whoever
    else in this process or one that it starts, asks the page over HTTP."""
    given = [entry.strip() for name in ("no_proxy", "NO_PROXY") for entry in os.environ.get(name, "").split(",")]
    excepted = ",".join(dict.fromkeys([*filter(None, given), "127.0.0.1", "localhost", "::1", host]))
    os.environ.update(no_proxy=excepted, NO_PROXY=excepted)
