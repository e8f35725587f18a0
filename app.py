"""The app: python app.py [--checkpoint FOLDER] [--data_dir DIR] [--host HOST] [--port PORT] [--share] [--device DEVICE]

Opens a page where you type a text and see which expert of a Switch Transformer reads each token.
Needs no network; on Spaces this is the app_file.
"""

import argparse
import os
import sys

from ui.address import port_number, why_not

# Before gradio and huggingface_hub are imported: both read these once. Nothing here calls home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="app.py", description="Explore where a Switch Transformer routes each token.", allow_abbrev=False
    )
    # A Space tells its app where to listen through this variable.
    host = os.environ.get("GRADIO_SERVER_NAME") or ("0.0.0.0" if "SPACE_ID" in os.environ else "127.0.0.1")
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=port_number, help="port to listen on (default: the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="also make a public link through gradio.live")
    parser.add_argument("--checkpoint", help="a checkpoint folder, .zip or hub id to offer first")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: CUDA when there is one)")
    parser.add_argument("--data_dir", help="folder with <dataset>/<split>.parquet for more samples")
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
    from ui.demo import build_demo, launch_options
    from ui.models import ModelShelf, check_device

    try:
        check_device(options.device)
        shelf = ModelShelf.find(options.checkpoint, options.device)
        if options.checkpoint:
            shelf.load(shelf.default)
    except (CheckpointError, ValueError) as error:
        fail(str(error))
    demo = build_demo(shelf, options.data_dir)
    try:
        _, local, public = demo.launch(
            server_name=options.host,
            server_port=options.port,
            share=options.share,
            prevent_thread_lock=True,
            **launch_options(),
        )
    except OSError as error:
        fail(f"can't listen on {options.host}: {error}")
    print(
        f"Switch Explorer listens on {local}" + (f" and {public}" if public else "") + "  (Ctrl+C stops it)", flush=True
    )
    demo.block_thread()


if __name__ == "__main__":
    main()
