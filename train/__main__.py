"""python -m train"""

import signal
import sys

if sys.version_info < (3, 11):  # noqa: UP036 - who starts it has not installed it.
    sys.exit(f"error: Python 3.11 or newer is needed, and this is {sys.version.split()[0]}.")

from train.launch import cannot_train, one_of_several, prepare_streams, trains
from train.requirements import why_it_failed
from train.runs.signals import HANGUP, INTERRUPTED, answer, ended_by_signals


def run(arguments: list[str] | None = None) -> int:
    prepare_streams()
    own = sys.argv[1:] if arguments is None else arguments
    if said := cannot_train() if trains(own) else one_of_several():
        print(f"error: {said}", file=sys.stderr)
        return 2
    try:
        with ended_by_signals():
            from train.cli.main import main
        # Afterwards SIGTERM, and a terminal that closes, end with a word as Ctrl-C does.
        answer(signal.SIGTERM, signal.default_int_handler)
        answer(HANGUP, signal.default_int_handler)
        return main(arguments)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if (said := why_it_failed(error)) is None:
            raise
        print(f"error: {said}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run())
