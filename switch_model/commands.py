"""How the person calls this package's commands, so that those in messages can be pasted.

In a checkout that is python -m train COMMAND, and python app.py. The installed package has one command for both,
switch-explorer, whose folder `inside` an installation alone has (setup.py).
Try it: command("import")
"""

import os
from pathlib import Path

# Set where the installed command starts, for the processes that it starts in turn too.
STARTED_AS = "SWITCH_EXPLORER_STARTED_AS"


def _installed() -> str | None:
    """The installed command, if the person has that: by its name, or by its files."""
    own = Path(__file__).resolve().parent.parent / "switch_explorer" / "inside"
    return os.environ.get(STARTED_AS) or ("switch-explorer" if own.is_dir() else None)


def command(name: str = "train") -> str:
    """One of the commands, without its flags; "train" alone trains."""
    if installed := _installed():
        return f"{installed} {name}"
    return "python -m train" if name == "train" else f"python -m train {name}"


def app_command() -> str:
    """What starts the app with the checkpoint whose name follows."""
    return _installed() or "python app.py --checkpoint"
