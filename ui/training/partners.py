"""Runs to compare a run with: the same with dense MLPs, and the same with nothing that keeps loads even."""

from dataclasses import replace

from train.arguments.groups import ModelArguments
from train.runs.run import Run

TWIN, LESSON = "-dense", "-no-balance"


def first_of(name: str) -> str:
    """The run that a twin or a lesson was made from."""
    return name.removesuffix(TWIN).removesuffix(LESSON)


def dense(model: ModelArguments) -> ModelArguments:
    """The same work per token without a choice. Where the classifier reads experts alone, one of them is the MLP."""
    if model.readout == "experts":
        return replace(model, num_experts=1)
    return replace(model, sparse_step=0, decoder_sparse_step=None)


def unbalanced(model: ModelArguments) -> ModelArguments:
    return replace(model, balance="loss", aux_loss_coef=0.0, sequence_balance_coef=0.0)


def may_have(run: Run, suffix: str) -> bool:
    """Whether a partner of that kind can be trained: of a sparse run, and a dense one only with weights of its own."""
    arguments = run.arguments()
    own = suffix == LESSON or arguments.train.init_from is None
    return not arguments.model.is_dense and own and not run.name.endswith(suffix)
