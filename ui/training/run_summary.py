"""What a run's metrics say, in words and small pieces of HTML. Pure functions: lines of metrics.jsonl in, text out.

Lines may be missing, incomplete or from an older version: then less is said, and nothing is raised. What
is HTML comes as Markup; `dead_experts`, `probe_words` and `duration` return plain text.
Try it: dead_experts(Run.open("runs/toy").metrics())
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from switch_model.grid.layer_names import layer_titles
from train.formatting import percent
from ui.look.html import part, progress_bar, quiet
from ui.look.page_words import LABELS

Records = Sequence[Mapping[str, Any]]

# The last lines of training, over which an expert's load is judged: one line alone may hold few tokens.
RECENT_LINES = 3
# Of an even share: an expert with less learns next to nothing.
DEAD_SHARE = 0.01
# Of an even share: fewer, and it is worth a word.
FEW_SHARE = 0.25
# Of all tokens: an expert with more has all but swallowed its layer (with two experts 60 % would be ordinary).
COLLAPSED_SHARE, COLLAPSED_TIMES_EVEN = 0.6, 1.8
MANY_DROPS = 0.2
# Numbers of experts in one sentence.
MAX_NAMED_EXPERTS = 8

PIECES = "training/pieces.html"
# A run whose turn it is, before its process has said so.
STARTING = "starting"
STATES = ("queued", "running", "stopping", "stopped", "finished", "failed")
# They differ between any two runs and say nothing about either.
NAMES_OF_RUNS = ("output_dir", "run_name")


def finite(value: Any) -> float | None:
    """A number as it is; None for anything else, NaN and infinity included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def lines_of(records: Records, kind: str) -> list[Mapping[str, Any]]:
    """The lines of one kind that say which step they are of, in the order of steps."""
    found = [record for record in records if record.get("kind") == kind and finite(record.get("step")) is not None]
    return sorted(found, key=_step)


def routing_lines(records: Records) -> list[Mapping[str, Any]]:
    """The lines that tell about routing: those of training, or where there are none, of evaluation."""
    for kind in ("train", "eval"):
        if lines := [line for line in lines_of(records, kind) if line.get("routing")]:
            return lines
    return []


# ---- health of the routing ----


def dead_experts(records: Records) -> str:
    """What is wrong with the routing and what to do, or that nothing is. "" before the first line."""
    lines = routing_lines(records)
    if not lines:
        said = any(record.get("kind") in ("train", "eval") for record in records)
        return "This model is dense: it has no experts." if said else ""
    return " ".join(routing_warnings(records)) or f"All experts are in use{_least_used(lines[-RECENT_LINES:])}."


def routing_warnings(records: Records) -> list[str]:
    """A sentence or two per layer with experts that starve, with one that takes nearly all, or with many drops."""
    lines = routing_lines(records)[-RECENT_LINES:]
    if not lines:
        return []
    trained = lines[-1].get("kind") == "train"
    titles = _titles(lines[-1]["routing"])
    return [
        warning
        for name in [layer.get("layer", "") for layer in lines[-1]["routing"]]
        if (warning := _layer_warning(_recent(lines, name), titles[str(name)].capitalize(), trained))
    ]


def _titles(layers: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return layer_titles(str(layer.get("layer", "")) for layer in layers)


def _least_used(lines: Records) -> str:
    """ ", but …" where an expert has few tokens, though not next to none."""
    loads = recent_loads(lines)
    shares = [
        (share * len(load_E), expert, name) for name, load_E in loads.items() for expert, share in enumerate(load_E)
    ]
    share, expert, name = min(shares, default=(1, 0, ""))
    if share >= FEW_SHARE:
        return ""
    title = layer_titles(loads)[name]
    return f", but expert {expert} of {title} takes only {percent(share)} of an even share"


def recent_loads(records: Records) -> dict[str, list[float]]:
    """Sparse layer -> mean share of tokens per expert over the last lines that tell about routing."""
    lines = routing_lines(records)[-RECENT_LINES:]
    layers = [layer.get("layer", "") for layer in lines[-1]["routing"]] if lines else []
    return {str(name): load for name in layers if (load := _mean_load(_recent(lines, name)))}


def recent_drops(records: Records) -> float | None:
    """Share of choices dropped, mean over layers, in the same lines; None where they do not say."""
    return _mean([layer for line in routing_lines(records)[-RECENT_LINES:] for layer in line["routing"]], "drop_rate")


def _recent(lines: Records, name: str) -> list[Mapping[str, Any]]:
    return [layer for line in lines for layer in line["routing"] if layer.get("layer") == name]


def _layer_warning(recent: list[Mapping[str, Any]], title: str, trained: bool) -> str:
    said = []
    load_E = _mean_load(recent)
    if load_E:
        even = 1 / len(load_E)
        dead = [expert for expert, share in enumerate(load_E) if share < DEAD_SHARE * even]
        busiest = max(range(len(load_E)), key=load_E.__getitem__)
        if load_E[busiest] > max(COLLAPSED_SHARE, COLLAPSED_TIMES_EVEN * even):
            said.append(f"expert {busiest} takes {percent(load_E[busiest])} of all tokens")
        if dead:
            verb = "receives" if len(dead) == 1 else "receive"
            said.append(f"{_experts(dead, len(load_E))} {verb} next to nothing (under 1 % of an even share)")
    sentences = [f"{title}: {'; '.join(said)}."] if said else []
    if said:
        balance = _mean(recent, "balance_loss")
        known = "" if balance is None else f"The balance loss is {balance:.1f} (1 = even): "
        advice = f"raise “{LABELS['aux_loss_coef']}”, or lower “{LABELS['lr']}”."
        sentences.append(known + advice if known else advice.capitalize())
    drops = _mean(recent, "drop_rate")
    if drops is not None and drops > MANY_DROPS:
        label = LABELS["capacity_factor" if trained else "capacity_factor_eval"]
        where = "" if said else f"{title}: "
        words = f"{percent(drops)} of the tokens are dropped, because their expert is full: raise “{label}”."
        sentences.append(where + words)
    return " ".join(sentences)


def _experts(some: list[int], of: int) -> str:
    """expert 3; experts 3 and 7; 60 of 64 experts."""
    if len(some) == 1:
        return f"expert {some[0]}"
    if len(some) > MAX_NAMED_EXPERTS:
        return f"{len(some)} of {of} experts"
    return f"experts {', '.join(map(str, some[:-1]))} and {some[-1]}"


def _mean_load(layers: list[Mapping[str, Any]]) -> list[float]:
    """Mean share per expert; lines with another number of experts than the last are passed over."""
    loads = [load for layer in layers if (load := layer_load(layer))]
    loads = [load for load in loads if len(load) == len(loads[-1])]
    return [sum(shares) / len(loads) for shares in zip(*loads, strict=True)]


def layer_load(layer: Mapping[str, Any]) -> list[float]:
    """Share of tokens per expert of one layer in one line; [] where a number is missing."""
    load = layer.get("load")
    whole = isinstance(load, list) and all(finite(share) is not None for share in load)
    return load if whole else []


def _mean(layers: list[Mapping[str, Any]], key: str) -> float | None:
    values = [value for layer in layers if (value := finite(layer.get(key))) is not None]
    return sum(values) / len(values) if values else None


# ---- the text being watched ----


def probe_lines(records: Records) -> list[Mapping[str, Any]]:
    """The lines of kind "probe" that route the same tokens as the last one."""
    lines = lines_of(records, "probe")
    return [line for line in lines if line.get("pieces") and line["pieces"] == lines[-1].get("pieces")]


def probe_layer(line: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """One layer of a probe's line: the named one, or the first where there is no such layer."""
    tokens = len(line["pieces"])
    layers = [layer for layer in line.get("layers") or () if len(layer.get("expert") or ()) == tokens]
    return next((layer for layer in layers if layer.get("layer") == name), layers[0] if layers else None)


def probe_words(records: Records, layer: str | None = None) -> str:
    """How many tokens changed their expert since the evaluation before, if the model has such, and which class is
    predicted."""
    lines = probe_lines(records)
    if not lines:
        return "Appears with the first evaluation."
    last, before = lines[-1], lines[-2] if len(lines) > 1 else None
    if not last.get("layers"):
        sentences = ["A dense model routes nothing."]
    else:
        sentences = [_changes(lines, layer)] if before else [f"At step {last['step']:,}: one evaluation so far."]
    if predicted := _predicted(last):
        changed = before and before.get("label") != last.get("label") and _predicted(before)
        sentences.append(f"Predicted {predicted}{f', after {changed}' if changed else ''}.")
    return " ".join(filter(None, sentences))


def _changes(lines: Records, name: str | None) -> str:
    routed = [(line["step"], probe_layer(line, name)) for line in lines]
    routed = [(step, layer) for step, layer in routed if layer]
    if len(routed) < 2:
        return ""
    (before, first), (step, last) = routed[-2:]
    where = f"in {_titles(lines[-1]['layers'])[str(last.get('layer', ''))]}"
    changed = sum(old != new for old, new in zip(first["expert"], last["expert"], strict=True))
    if changed:
        whose = "its" if changed == 1 else "their"
        return f"From step {before:,} to {step:,}, {changed} of {_tokens(last)} changed {whose} expert {where}."
    since = step
    for earlier, layer in reversed(routed):
        if layer["expert"] != last["expert"]:
            break
        since = earlier
    return f"No token has changed its expert {where} since step {since:,}."


def _tokens(layer: Mapping[str, Any]) -> str:
    count = len(layer["expert"])
    return f"{count} token{'s' if count != 1 else ''}"


def _predicted(line: Mapping[str, Any]) -> str:
    score = finite(line.get("score"))
    if line.get("label") is None:
        return ""
    return f"{line['label']}" + ("" if score is None else f" ({percent(score)})")


# ---- how far a run is ----


def duration(seconds: float | None) -> str:
    """45 s, 2 min 10 s, 1 h 05 min; "–" where it is not known."""
    if finite(seconds) is None:
        return "–"
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def state_badge(state: str) -> Markup:
    """The state as a small coloured pill. A state that is not ours has no colour of its own."""
    return part(PIECES, "state_badge", state, state in STATES)


def progress_html(progress: Mapping[str, Any], state: str, began: bool = True) -> Markup:
    """A bar with the step of all steps, the time spent, and, while it runs, about how long it still takes.

    Args:
        began: whether its process trains already; else there is no step to finish.
    """
    step, steps = finite(progress.get("step")), finite(progress.get("max_steps"))
    seconds, phase = finite(progress.get("seconds")), progress.get("phase")
    at_work = state in ("running", "stopping")
    said = []
    if state == "queued":
        said.append("waiting for its turn")
    elif state == STARTING:
        said.append("starting: its process begins")
    elif state == "running" and not steps:
        said.append("starting: reading data, building the model")
    if step is not None and steps:
        said.append(f"step {step:,.0f} of {steps:,.0f}")
    if seconds:
        said.append(duration(seconds))
    left = _seconds_left(step, steps, seconds, finite(progress.get("steps_per_second")))
    if state == "running" and left:
        said.append(f"about {duration(left)} left")
    if state == "stopping":
        finishing = "finishing its step, then saving a checkpoint"
        said.append(finishing if began and steps else f"ends before its {'next' if step else 'first'} step")
    elif at_work and steps and phase in ("evaluating", "saving"):
        said.append(phase)
    done = min(max(step / steps, 0), 1) if step is not None and steps else 0.0
    return progress_bar("steps done", done, at_work) + quiet(" · ".join(said))


def _seconds_left(step: float | None, steps: float | None, seconds: float | None, speed: float | None) -> float | None:
    """Early on at the present speed: the start would weigh too much. Later at the whole run's, with its evaluations."""
    if step is None or not steps or step >= steps:
        return None
    overall = step / seconds if step and seconds else None
    speed = speed if speed and speed > 0 else None
    pace = (speed or overall) if 10 * step < steps else (overall or speed)
    return (steps - step) / pace if pace else None


# ---- arguments of several runs ----


def arguments_diff_html(arguments: Mapping[str, Mapping[str, Any]]) -> Markup:
    """A table of the arguments in which runs differ: a row per argument, a column per run.

    Args:
        arguments: run name -> argument -> value.
    """
    if len(arguments) < 2:
        return quiet("Choose two or more runs to see in which arguments they differ.")
    names = dict.fromkeys(name for values in arguments.values() for name in values if name not in NAMES_OF_RUNS)
    rows = {name: [_shown(values, name) for values in arguments.values()] for name in names}
    rows = {name: cells for name, cells in rows.items() if len(set(cells)) > 1}
    if not rows:
        return quiet("These runs have the same arguments.")
    return part(PIECES, "arguments_diff", list(arguments), list(rows.items()))


def _shown(values: Mapping[str, Any], name: str) -> str:
    """A value as one would write it on the command line; "–" where a run of another version had no such argument."""
    if name not in values:
        return "–"
    value = values[name]
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _step(record: Mapping[str, Any]) -> float:
    return record["step"]
