"""The page as a server: from the flags of app.py to an address, and how it ends.

Try it: python app.py --host ::1
"""

import argparse
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import gradio as gr
import torch

from switch_model.storage.paths import local_path
from train.data.source import data_folder
from train.runs.signals import HANGUP, answer
from ui.catalog.models import ModelShelf
from ui.page import build_demo, launch_options
from ui.server.address import ask_oneself_directly, free_port, in_url, without_proxy
from ui.server.downloads import remove_temporary_folders
from ui.server.limits import VisitorLimits
from ui.server.workspace import Workspace

# How long the server may take to end, and remove its copies of uploads: Gradio itself gives it five seconds.
CLOSING_SECONDS = 60
# How long a thread may keep others waiting (Python's own is 0.005).
SWITCH_SECONDS = 0.0003


def serve(options: argparse.Namespace, public: bool) -> None:
    """Open the models, serve the page and wait until it is ended.

    Raises ValueError, CheckpointError or OSError for a flag that can't be followed.
    """
    data_dir = options.data_dir and data_folder(options.data_dir)
    if data_dir and not os.path.isdir(data_dir):
        raise ValueError(f"--data_dir {data_dir}: there is no such folder")
    data_folder()  # Of the environment, whose ~ may be nobody's.
    check_device(options.device)
    checkpoint = options.checkpoint and local_path(options.checkpoint)
    shelf = ModelShelf.find(checkpoint, options.device, revision=options.revision, dtype=options.dtype)
    if options.checkpoint:
        shelf.load(shelf.default)
    if public:
        serve_many()
    workspace = Workspace(
        Path(local_path(options.runs_dir)), data_dir, options.max_runs, VisitorLimits() if public else None
    )
    demo = build_demo(shelf, workspace)
    local, shared = listen(demo, options.host, options.port, options.share, public)
    addresses = f"{local} and {shared}" if shared else local
    print(f"Switch Explorer listens on {addresses}  (Ctrl+C stops it)", flush=True)
    _wait_until_ended(demo)


def listen(demo: gr.Blocks, host: str, port: int | None, share: bool, public: bool) -> tuple[str, str | None]:
    """Serve the page in threads: (its address here, its public one). Raises ValueError with the reason when it can't.

    Gradio asks the page for itself once it is there, which must not go through a proxy; what makes a public link must.
    """
    ask_oneself_directly(host)
    address = {"server_name": in_url(host), "server_port": port or free_port(host), "share": share}
    try:
        with nullcontext() if share else without_proxy():
            _, local, shared = demo.launch(prevent_thread_lock=True, **address, **launch_options(public))
    except Exception as error:  # Of the socket, and all that the network can do to a request.
        raise ValueError(f"can't listen on {host}: {error}") from error
    # The address that stands for all of a machine's is none that a browser takes.
    return local.replace("//[::]", "//[::1]"), shared


def _wait_until_ended(demo: gr.Blocks) -> None:
    """Until Ctrl+C, SIGTERM or the end of the terminal; then close the page.

    SIGTERM is how Docker and Spaces end it. By itself it would end Python at once, and leave on the disk what visitors
    uploaded. Gradio's copies go as the server closes.
    """
    for number in (signal.SIGTERM, HANGUP):
        answer(number, lambda *_: sys.exit())
    try:
        demo.block_thread()
    finally:
        demo.close(verbose=False)
        demo.server.thread.join(CLOSING_SECONDS)
        remove_temporary_folders()


def serve_many() -> None:
    """One thread for each pass: a text gains little from a second core, which serves another visitor better.

    And Python's threads take turns more often: a pass gives its turn away at every product and, at the usual 5 ms,
    would wait that long for each of them while another visitor's answer is being drawn.
    """
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_SECONDS)


def check_device(device: str | None) -> None:
    """Raise ValueError when this machine has no such device."""
    if device is None:
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either, by kind of device.
        raise ValueError(f"--device {device}: {str(error).splitlines()[0]}") from error
