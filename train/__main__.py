"""python -m train"""

import signal
import sys

from train.interrupts import INTERRUPTED, ended_by_signals

if __name__ == "__main__":
    with ended_by_signals():
        from train.cli import main
    try:
        # Afterwards SIGTERM ends with a word as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        status = main()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        status = INTERRUPTED
    sys.exit(status)
