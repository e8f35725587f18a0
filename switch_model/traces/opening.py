"""A file of routing, whatever wrote it, as a trace.

Try it: open_trace("capture.csv", top_k=8)
"""

import json
from pathlib import Path

from switch_model.traces.api_answers import array_of, traces_in
from switch_model.traces.tables import from_csv, from_json_lines
from switch_model.traces.trace import RoutingTrace, TraceError, checked, joined, one_text

MAX_BYTES = 500_000_000


def open_trace(
    path: str | Path, *, num_layers: int | None = None, top_k: int | None = None, num_experts: int | None = None
) -> RoutingTrace:
    """Read a trace: an answer of vLLM or SGLang, a table of llama.cpp, JSON lines, a saved record, or a .npy array.

    Args:
        path: .json, .jsonl, .csv or .npy.
        num_layers, top_k: layers and experts per token of the model, for files that do not say them.
        num_experts: experts of a layer; None = as the file says, or the highest index + 1.

    Raises:
        TraceError: with what is wrong and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise TraceError(f"There is no file {path}.")
    if path.stat().st_size > MAX_BYTES:
        raise TraceError(f"{path.name} has more than {MAX_BYTES / 1e6:g} MB: capture fewer tokens.")
    ending, said = path.suffix.lower(), None
    if ending == ".npy":
        return checked(one_text(array_of(path.read_bytes())), num_experts)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"{path.name} is not text: give a .json, .jsonl, .csv or .npy file.") from error
    if ending in (".csv", ".tsv", ".txt"):
        trace, said = from_csv(text, top_k)
    elif ending in (".jsonl", ".ndjson") and '"routed_experts"' not in text:
        trace, said = from_json_lines(text)
    elif ending in (".json", ".jsonl", ".ndjson"):
        trace = joined(traces_in(_parsed(text, ending, path.name), num_layers, top_k))
    else:
        raise TraceError(f"{path.name} is no trace: give a .json, .jsonl, .csv or .npy file.")
    return checked(trace, num_experts or said)


def _parsed(text: str, ending: str, name: str) -> object:
    try:
        if ending == ".json":
            return json.loads(text)
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{name} is not valid JSON: it was cut off or changed.") from error
