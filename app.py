"""The app: python app.py [--checkpoint FOLDER] [--data_dir DIR] [--runs_dir DIR] [--port PORT] [--public] …

Opens a page where you type a text and see which experts of a mixture-of-experts model read each token (a Switch
Transformer, or a model of transformers such as Mixtral or OLMoE), and train your own.
Needs no network; on Spaces this is the app_file.
"""

import argparse
import gc
import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - who starts it has not installed it.
    sys.exit(f"app.py: Python 3.11 or newer is needed, and this is {sys.version.split()[0]}.")

from train.launch import ignore_closed_stdout, prepare_streams
from train.requirements import why_it_failed
from ui.server.address import bind_error, host_name, port_number, without_proxy

# Before gradio and huggingface_hub are imported: both read these once. Nothing here calls home.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
ON_A_SPACE = "SPACE_ID" in os.environ
# A Space tells its app where to listen through this variable. Gradio would take it for the place to look for ports.
HOST = os.environ.pop("GRADIO_SERVER_NAME", "") or ("0.0.0.0" if ON_A_SPACE else "127.0.0.1")


def parse_arguments(arguments: list[str] | None = None, program: str = "app.py") -> argparse.Namespace:
    description = "Explore where a mixture of experts routes each token: Switch Transformers and others."
    parser = argparse.ArgumentParser(prog=program, description=description, allow_abbrev=False)
    host = "address to listen on (default: %(default)s, this machine only)"
    parser.add_argument("--host", type=host_name, default=HOST, help=host)
    parser.add_argument("--port", type=port_number, help="port to listen on (default: the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="also make a public link through gradio.live")
    parser.add_argument("--checkpoint", help="a checkpoint folder, .zip or hub id to offer first")
    parser.add_argument("--revision", help="of that hub id: a branch, tag, commit or refs/pr/N (default: main)")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of a model of transformers (default: its file's)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, … (default: CUDA when there is one)")
    parser.add_argument("--data_dir", help="folder with <dataset>/<split>.parquet for more data")
    parser.add_argument("--runs_dir", default="runs", help="folder of training runs (default: %(default)s)")
    parser.add_argument("--max_runs", type=int, default=1, help="runs at once; more wait (default: %(default)s)")
    parser.add_argument("--public", action="store_true", help="limit what training takes (on a Space always)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, program: str = "app.py") -> None:
    def fail(message: object) -> None:
        print(f"{program}: {message}", file=sys.stderr)
        sys.exit(2)

    options = parse_arguments(arguments, program)
    if problem := bind_error(options.host, options.port):
        fail(problem)
    print("Switch Explorer starts …", flush=True)
    # What is imported stays. To look for garbage in it again and again would take a sixth of the start.
    gc.disable()
    try:
        # After the flags are read, so that --help and a wrong flag answer at once. Gradio looks for proxies as it is
        # imported, and breaks off at one that it can't use.
        with without_proxy():
            from switch_model import CheckpointError
            from ui.launch import serve
    except Exception as error:
        fail(why_it_failed(error) or error)
    gc.freeze()
    gc.enable()
    try:
        serve(options, public=options.public or ON_A_SPACE)
    except (CheckpointError, ValueError, OSError) as error:
        fail(error)


if __name__ == "__main__":
    prepare_streams()
    ignore_closed_stdout()
    main()
