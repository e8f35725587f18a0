"""How tests wait: for something to hold, never for a time to pass. No test asserts how long anything took.

Try it: wait_until(lambda: run.state().name == "finished")
"""

import subprocess
import time
from collections.abc import Callable

# Seconds. Only what never comes waits so long: a busy machine may take twenty times what an idle one does.
PATIENCE = 300.0


def wait_until(holds: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Come back as soon as `holds()` is true. A process that ends before says so with its output."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert process is None or process.poll() is None, process.stdout.read()
        assert time.monotonic() < end, f"waited for {PATIENCE:g} seconds in vain"
        time.sleep(0.02)
