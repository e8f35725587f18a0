"""What a process finds around it: homes in paths, streams that can't take what is printed, a terminal that closes,
launchers, packages that can't be imported."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from switch_model import CheckpointError, load_checkpoint
from switch_model.storage.paths import local_path
from tests.support.waits import wait_until
from train import requirements
from train.arguments.arguments import Arguments
from train.arguments.values import PATHS
from train.cli.main import main
from train.cli.parser import read_flags
from train.data.source import known_datasets
from train.requirements import why_it_failed, why_not_imported
from train.runs.process import StopRequest
from train.runs.run import Run, RunError, named_after

ROOT = Path(__file__).parent.parent
NOBODY = "~nobody-of-that-name/x"


# ---- paths ----


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home, and beside it the folder one stands in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_what_a_path_means(home):
    Path("~draft.csv").touch()
    Path("~").mkdir()  # As a program leaves behind that knows no homes.
    meant = {
        "~": str(home),
        "~/a b/": f"{home}/a b/",
        "~root/x": "/root/x",
        "~draft.csv": "~draft.csv",
        "file:///data/my%20rows.csv": "/data/my rows.csv",
        "FILE://localhost/data": "/data",
        "file:/data": "/data",
        "owner/name": "owner/name",
        "a/~/b": "a/~/b",
        "": "",
    }
    assert {given: local_path(given) for given in meant} == meant
    with pytest.raises(ValueError, match="no user nobody-of-that-name"):
        local_path(NOBODY)


def test_a_home_is_one_in_flags_config_files_environment_and_python(home, monkeypatch):
    given = {name: f"~/{name}" for name in PATHS}
    meant = {name: f"{home}/{name}" for name in PATHS}
    for task in ({}, {"task": "translation"}):
        assert meant.items() <= Arguments.resolve(given | task).to_dict().items()
    assert meant.items() <= read_flags([f"--{name}={path}" for name, path in given.items()], "")[0].to_dict().items()
    config = home / "run.yaml"
    config.write_text("".join(f"{name}: {path}\n" for name, path in given.items()))
    assert meant.items() <= read_flags(["--config=~/run.yaml"], "")[0].to_dict().items()
    (home / "sets" / "own").mkdir(parents=True)
    (home / "sets" / "own" / "train.parquet").touch()
    monkeypatch.setenv("SWITCH_DATA_DIR", "~/sets")
    assert "own" in known_datasets()
    with pytest.raises(CheckpointError, match="The checkpoint lacks"):
        load_checkpoint("~/sets")
    assert not Path("~").exists()


REQUIRED = {
    "evaluate": ["--checkpoint", "c", "--dataset", "d"],
    "analyze": ["--checkpoint", "c", "--dataset", "d", "--output", "o"],
    "predict": [],
    "package": ["--run", "r", "--output", "o"],
    "calibrate": ["--checkpoint", "c", "--dataset", "d"],
    "publish": ["--run", "r", "--repo_id", "i"],
    "convert": ["old.pt", "--tokenizer", "t", "--output", "o"],
    "import": ["s", "--output_dir", "o"],
}
NAMED = {
    "evaluate": ("checkpoint", "dataset", "data_dir", "save_text", "output_dir"),
    "analyze": ("checkpoint", "dataset", "data_dir", "output"),
    "predict": ("checkpoint", "file", "output", "dataset", "data_dir", "trace_file", "save_text"),
    "package": ("run", "output", "data_dir"),
    "calibrate": ("checkpoint", "dataset", "data_dir", "output"),
    "publish": ("run",),
    "convert": ("tokenizer", "output", "config"),
    "import": ("output_dir", "tokenizer"),
}


@pytest.mark.parametrize(
    "words",
    [[command, *REQUIRED[command], f"--{flag}={NOBODY}"] for command, flags in NAMED.items() for flag in flags]
    + [[command, NOBODY] for command in ("resume", "stop", "runs")]
    + [["convert", NOBODY, *REQUIRED["convert"][1:]], ["import", NOBODY, *REQUIRED["import"][1:]]]
    + [["--config", NOBODY], ["--output_dir", NOBODY], ["sweep", "--search=seed=1|2", "--output_dir", NOBODY]],
    ids=" ".join,
)
def test_every_path_of_the_command_line_is_read_as_one(words, home, capsys):
    try:
        status = main(words)
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr().err
    assert status == 2 and "there is no user nobody-of-that-name" in said and said.count("\n") == 1
    assert not list(Path().iterdir())


def test_a_run_finds_its_data_from_any_folder(home):
    Path("toy").mkdir()
    Path("my.csv").touch()
    asked = {"data_dir": "sets", "init_from": "owner/name", "tokenizer": "toy", "output_dir": "run"}
    run = Run.create(Arguments.resolve(asked | {"dataset": "my.csv"}))
    here, kept = Path.cwd(), run.arguments().to_dict()
    assert [kept[name] for name in asked] == [f"{here}/sets", "owner/name", f"{here}/toy", f"{here}/run"]
    assert kept["dataset"] == f"{here}/my.csv"
    again = Run.create(Arguments.resolve({"dataset": "toy", "output_dir": "again"}))
    assert again.arguments().data.dataset == "toy"


def test_a_run_is_called_what_a_disk_can_hold(home):
    assert len(named_after("x" * 250 + ".csv").encode()) < 200
    name = named_after(os.fsdecode(b"caf\xe9.csv"))
    assert name.startswith("caf-") and name.isascii()
    with pytest.raises(RunError, match="is UTF-8"):
        Run.create(Arguments.resolve({"output_dir": os.fsdecode(b"caf\xe9")}))


# ---- streams ----

LIGHT = "import os, sys; sys.path.insert(0, sys.argv[1]); from train.launch import *; prepare_streams(); "


def in_shell(code: str, command: str = '"$@"', **environment: str) -> subprocess.CompletedProcess:
    """Python in a shell's command line, with nothing of this project imported but train.launch."""
    words = ["bash", "-o", "pipefail", "-c", command, "bash", sys.executable, "-c", LIGHT + code, str(ROOT)]
    return subprocess.run(words, env=os.environ | environment, capture_output=True, check=False)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_whatever_is_printed_can_be_encoded(encoding):
    done = in_shell("print('5 € · 東京 \\udce9'); print('東京', file=sys.stderr)", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode(encoding)
    assert "\\udce9" in said and ("東京" if encoding == "utf-8" else "\\u6771\\u4eac") in said


def test_a_file_never_gets_the_number_of_a_stream_that_was_closed(tmp_path):
    file = tmp_path / "metrics"
    code = f"file = open({str(file)!r}, 'w'); print('lost'); os.write(1, b'lost'); assert not sys.stdin.read()"
    done = in_shell(code, '"$@" <&- >&-')
    assert done.returncode == 0 and file.read_bytes() == b"", done.stderr
    assert in_shell("print('lost', file=sys.stderr)", '"$@" <&- >&- 2>&-').returncode == 0


def test_a_run_goes_on_when_nobody_reads_and_what_only_prints_says_that_it_did_not():
    code = "import time; [print('x' * 70_000, flush=True) for _ in range(9)]; sys.exit(7)"
    assert in_shell("ignore_closed_stdout(); " + code, '"$@" | true').returncode == 7
    assert in_shell(code, '"$@" 2>/dev/null | true').returncode == 1
    done = in_shell("print('said', file=sys.stderr); sys.exit(7)", '"$@" 2> >(true); exit $?')
    assert done.returncode == 7


def test_a_reader_who_leaves_is_told_of_by_the_status(toy_run, monkeypatch, capsys):
    def left(text):
        raise BrokenPipeError

    monkeypatch.setattr(sys.stdout, "write", left)
    assert main(["runs", str(toy_run.folder.parent)]) == 141
    assert capsys.readouterr().err == ""


@pytest.fixture
def hangups():
    """A hangup means what it does at a terminal, even if these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_run_without_reader_or_utf8_ends_with_its_terminal_as_stopped(tmp_path, hangups):
    run = Run(tmp_path / "run")
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.Popen(
        [sys.executable, "-m", "train", "--epochs", "9999", "--output_dir", str(run.folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii"},
        stdin=subprocess.DEVNULL,
        stdout=writer,
        stderr=writer,
    )
    os.close(writer)
    wait_until(lambda: run.progress().get("step", 0) >= 3 or process.poll() is not None)
    for _ in range(2):  # As a closing terminal may.
        process.send_signal(signal.SIGHUP)
    assert process.wait() == 0
    state, said = run.state(), run.log_path.read_text(encoding="utf-8")
    assert state.name == "stopped" and "with a checkpoint" in state.message, said
    assert run.last_checkpoint() is not None and "Stopping after this step …" in said


def test_who_logs_out_wishes_once_and_ctrl_c_twice_means_it(toy_run, hangups):
    stop = StopRequest(toy_run)
    with stop.noticed():
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        assert stop.signalled
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # As nohup leaves it.
    with StopRequest(toy_run).noticed():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


# ---- launchers ----


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_one_of_several_processes_refuses_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(name, "2")
    assert main(["--output_dir", str(tmp_path / "run"), "--max_steps", "1"]) == 2
    said = capsys.readouterr().err
    assert "2 processes were started" in said and said.count("\n") == 1 and not list(tmp_path.iterdir())


# ---- packages ----


def failing_import(folder: Path, monkeypatch, text: str) -> BaseException:
    (folder / "stand_in").mkdir()
    (folder / "stand_in" / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(BaseException) as raised:
        importlib.import_module("stand_in")
    return raised.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import not_there_at_all", "not_there_at_all is not installed. "),
        ("raise ValueError('numpy.dtype size changed')", "(ValueError: numpy.dtype size changed). Install it anew: "),
        (
            "import math; math.gone",
            "stand_in can't be imported (AttributeError: module 'math' has no attribute 'gone')",
        ),
        ("def f(:", "stand_in can't be imported (SyntaxError: invalid syntax"),
    ],
)
def test_a_package_that_breaks_as_it_is_imported_is_named_with_the_remedy(tmp_path, monkeypatch, text, said):
    told = why_not_imported(failing_import(tmp_path, monkeypatch, text))
    assert said in told and told.endswith("pip install -r requirements.txt") and "\n" not in told


def test_versions_explain_what_fails_and_nothing_else_is_taken_for_an_import(tmp_path, monkeypatch):
    error = failing_import(tmp_path, monkeypatch, "from math import gone")
    monkeypatch.setattr(requirements, "needed", lambda: ["numpy>=1", "psutil<1", "not-there>=2", "x; extra == 'y'"])
    for said in (why_not_imported(error), why_it_failed(TypeError("no keyword 'cache'"))):
        assert "not-there is not installed; psutil is " in said and "and <1 is needed: pip install -r" in said
    assert "numpy" not in said and "TypeError: no keyword 'cache'." in said
    for other in (ValueError("--lr 0 is not allowed"), CheckpointError("no checkpoint")):
        other.__cause__ = error  # Said in words of our own.
        assert why_not_imported(other) is None
    monkeypatch.setattr(requirements, "needed", lambda: ["numpy>=1"])
    assert why_it_failed(TypeError("ours")) is None


def test_what_is_asked_for_is_found():
    assert any(line.startswith("torch") for line in requirements.needed())


@pytest.mark.parametrize("words", [["app.py"], ["-m", "train"]], ids=" ".join)
@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("torch/__init__.py", "raise OSError('libcudart.so.13: cannot open shared object file')", "torch"),
        (
            "sitecustomize.py",
            "import sys; sys.version_info = (3, 10); sys.version = '3.10.1 …'",
            "Python 3.11 or newer",
        ),
    ],
)
def test_the_two_commands_say_in_a_line_what_is_missing(words, file, text, said, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode and done.stderr.count("\n") == 1, done.stderr
    assert said in done.stderr and done.stderr.startswith(("error: ", "app.py: "))
