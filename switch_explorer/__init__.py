"""The installed app and its commands: switch-explorer [MODEL] [flags of app.py], switch-explorer COMMAND [flags].

The app's own packages have names that others use too (train, ui). Installed, they lie in the folder `inside`, and only
this command, and what it starts, has that folder on its path. In a checkout they lie beside this package.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Those of python -m train; "train" alone trains.
COMMANDS = (
    *("train", "runs", "stop", "resume", "evaluate", "predict", "analyze", "package", "calibrate", "publish"),
    *("export", "convert", "import", "sweep", "compare-routers", "prune"),
)

USAGE = f"""\
switch-explorer [MODEL] [flags]    the app, with this model first: a bundled one's name, a folder, zip or hub id
switch-explorer COMMAND [flags]    {", ".join(COMMANDS[:7])},
                                   {", ".join(COMMANDS[7:14])},
                                   {", ".join(COMMANDS[14:])} (elsewhere: python -m train COMMAND)

The app:
"""


def root() -> Path:
    """The folder with the app's packages and the bundled models."""
    return HERE / "inside" if (HERE / "inside").is_dir() else HERE.parent


def bundled_model(name: str) -> Path:
    """The folder of a model that comes along, such as ag_news. Raises ValueError for another name."""
    folder = root() / "assets" / "models" / name
    if not (folder / "config.json").is_file():
        known = sorted(path.parent.name for path in folder.parent.glob("*/config.json"))
        raise ValueError(f"There is no bundled model {name}. Bundled: {', '.join(known)}.")
    return folder


def main(arguments: list[str] | None = None) -> int | None:
    """Run the command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if str(root()) not in sys.path:
        sys.path.insert(0, str(root()))
    os.environ["SWITCH_EXPLORER_STARTED_AS"] = "switch-explorer"  # switch_model/commands.py: messages name it.
    if words and words[0] in COMMANDS:
        from train.__main__ import run

        return run(words[1:] if words[0] == "train" else words)
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
    from app import ignore_closed_stdout, prepare_streams
    from app import main as serve

    prepare_streams()
    ignore_closed_stdout()
    if words and not words[0].startswith("-"):
        bundled = root() / "assets" / "models" / words[0]
        # A name of a bundled model, where nothing here has that name.
        model = str(bundled) if bundled.is_dir() and not Path(words[0]).exists() else words[0]
        words = ["--checkpoint", model, *words[1:]]
    return serve(words, "switch-explorer")
