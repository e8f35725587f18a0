"""Runs every notebook of docs/notebooks in a kernel of its own: make notebooks. Nothing is written into them."""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent.parent
# For a busy machine.
CELL_SECONDS = 600


def main() -> int:
    # As if the checkout were installed.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    failed = 0
    paths = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    for path in paths:
        notebook, start = nbformat.read(path, as_version=4), time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(
                notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
            )
            try:
                client.execute()
            except CellExecutionError as error:
                failed += 1
                print(f"{path.name}: {error}", flush=True)
                continue
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        widgets = sum("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs)
        print(f"{path.name}: {time.monotonic() - start:.0f} s, {widgets} widgets", flush=True)
    print(f"{len(paths) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
