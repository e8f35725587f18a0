"""Runs to compare a run with: the same with dense MLPs, with nothing that keeps loads even, and with two experts for
each token."""

from dataclasses import replace
from typing import Any

from train.arguments.arguments import Arguments
from train.runs.run import Run
from train.tasks.registry import TASKS

TWIN, LESSON, TWO, ON_EDGE = "-dense", "-no-balance", "-top-2", "-on-edge"
# All that are shown together.
PARTNERS = (TWIN, LESSON, TWO)


def first_of(name: str) -> str:
    """The run that a partner was made from."""
    for suffix in PARTNERS:
        name = name.removesuffix(suffix)
    return name


def dense(arguments: Arguments) -> Arguments:
    """The same work per token without a choice. Where the classifier reads experts alone, one of them is the MLP."""
    if arguments.model.readout == "experts":
        return replace(arguments, model=replace(arguments.model, num_experts=1))
    model, several = arguments.model, {}
    if model.router != "switch":  # As wide as all experts of a token are together.
        whole = model.d_ff or 4 * model.d_model
        own = model.d_expert or whole // model.expert_granularity
        several = {"d_ff": own * (model.top_k + model.num_shared_experts), "d_expert": None, "expert_granularity": 1}
        several |= {"router": "switch", "num_shared_experts": 0, "expert_groups": 1, "routed_scaling_factor": 1.0}
    return replace(arguments, model=replace(model, sparse_step=0, decoder_sparse_step=None, **several))


def unbalanced(arguments: Arguments) -> Arguments:
    """The same with nothing that keeps loads even."""
    off: dict[str, Any] = {"balance": "loss", "aux_loss_coef": 0.0, "sequence_balance_coef": 0.0}
    if arguments.model.router == "sigmoid_bias":
        off["balance_rate"] = 0.0
    return replace(arguments, model=replace(arguments.model, **off))


def two_experts(arguments: Arguments) -> Arguments:
    """The same work per token by two experts of half the width, of twice as many."""
    from train.arguments.presets import of_router
    from train.sweep.routers import KINDS

    kind = KINDS["top-2"]
    return Arguments.from_dict(arguments.to_dict() | of_router(kind["router"]) | kind)


def stays_even(arguments: Arguments) -> bool:
    """Whether this is the toy at a size where routing stays even without a balance loss, too: no lesson."""
    small = arguments.train.preset == "tiny" or not TASKS[arguments.train.task].labelled
    return arguments.data.source.is_toy and not small


def on_edge(arguments: Arguments) -> Arguments:
    """The toy at the size where the balance loss makes the difference."""
    asked = {name: getattr(arguments.train, name) for name in ("probe", "device", "save_total_limit")}
    return Arguments.resolve({"dataset": "toy", "preset": "tiny"} | asked)


def may_have(run: Run, suffix: str) -> bool:
    """Whether a partner of that kind can be trained: of a sparse run, and a dense one only with weights of its own."""
    if run.watched:
        return False
    arguments = run.arguments()
    model = arguments.model
    if suffix == TWO and (
        model.router != "switch" or model.readout == "experts" or model.attention_experts != "none" or model.d_expert
    ):
        return False  # It has several already, or can't have them.
    own = suffix == LESSON or arguments.train.init_from is None
    if suffix == LESSON and arguments.model.router == "expert_choice":
        return False  # Its loads are even by construction.
    return not arguments.model.is_dense and own and not run.name.endswith(suffix)
