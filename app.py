"""The app: python app.py [--checkpoint FOLDER] [--data_dir DIR] [--runs_dir DIR] [--port PORT] [--public] …

Opens a page where you type a text and see which expert of a Switch Transformer reads each token, and train your own.
Needs no network; on Spaces this is the app_file.
"""

import argparse
import os
import sys
from pathlib import Path

from ui.address import port_number, why_not

# Before gradio and huggingface_hub are imported: both read these once. Nothing here calls home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
ON_A_SPACE = "SPACE_ID" in os.environ


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="app.py", description="Explore where a Switch Transformer routes each token.", allow_abbrev=False
    )
    # A Space tells its app where to listen through this variable.
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if ON_A_SPACE else "127.0.0.1")
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=port_number, help="port to listen on (default: the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="also make a public link through gradio.live")
    parser.add_argument("--checkpoint", help="a checkpoint folder, .zip or hub id to offer first")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: CUDA when there is one)")
    parser.add_argument("--data_dir", help="folder with <dataset>/<split>.parquet for more data")
    parser.add_argument("--runs_dir", default="runs", help="folder of training runs (default: %(default)s)")
    parser.add_argument("--max_runs", type=int, default=1, help="runs at once; more wait (default: %(default)s)")
    parser.add_argument("--public", action="store_true", help="limit what training takes (on a Space always)")
    return parser.parse_args(arguments)


def fail(message: str) -> None:
    print(f"app.py: {message}", file=sys.stderr)
    sys.exit(2)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)

    if options.data_dir and not os.path.isdir(options.data_dir):
        fail(f"--data_dir {options.data_dir}: there is no such folder")
    if problem := why_not(options.host, options.port):
        fail(problem)
    # After the flags are read, so that --help and a wrong flag answer at once.
    from switch_model import CheckpointError
    from ui.demo import build_demo, launch_options, serve_until_ended
    from ui.models import ModelShelf, check_device, serve_many
    from ui.workshop import Caps, Workshop

    try:
        check_device(options.device)
        shelf = ModelShelf.find(options.checkpoint, options.device)
        if options.checkpoint:
            shelf.load(shelf.default)
    except (CheckpointError, ValueError) as error:
        fail(str(error))
    caps = Caps() if options.public or ON_A_SPACE else None
    if caps:
        serve_many()
    demo = build_demo(shelf, Workshop(Path(options.runs_dir), options.data_dir, options.max_runs, caps))
    address = {"server_name": options.host, "server_port": options.port, "share": options.share}
    try:
        _, local, public = demo.launch(prevent_thread_lock=True, **address, **launch_options(caps is not None))
    except OSError as error:
        fail(f"can't listen on {options.host}: {error}")
    print(
        f"Switch Explorer listens on {local}" + (f" and {public}" if public else "") + "  (Ctrl+C stops it)", flush=True
    )
    serve_until_ended(demo)


if __name__ == "__main__":
    main()
