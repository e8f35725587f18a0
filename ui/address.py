"""Where the app listens: a port that is one, and an address that can be listened on. Imports nothing heavy."""

import argparse
import errno
import socket


def port_number(text: str) -> int:
    """A port from the command line. Raises ArgumentTypeError when it is none."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: ports are 1 to 65535")
    return int(text)


def why_not(host: str, port: int | None) -> str | None:
    """Why nobody can listen there, or None. Gradio would say that the port is taken, whatever the reason."""
    try:
        with socket.create_server((host, port or 0)):
            return None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"port {port} is taken: choose another --port, or leave it out"
        return f"can't listen on {host}: {error.strerror or error}"
