"""What about a run's arguments would surprise: allowed, but hardly meant.

Try it: argument_warnings(Arguments.resolve({"dataset": "toy", "lr": 999.0}))
"""

from train.arguments.arguments import Arguments

# Beyond these, training falls apart or does not begin.
LR_ABOVE, LR_BELOW = 0.1, 1e-7
MOST_DROPPED = 0.8


def argument_warnings(arguments: Arguments) -> list[str]:
    """Sentences: what is unusual, what comes of it, and what is usual."""
    model, train = arguments.model, arguments.train
    found = []
    if train.lr is not None and train.lr > LR_ABOVE:
        found.append(
            f"A learning rate (lr) of {train.lr:g} is so high that the loss will hardly fall: usual are 0.0001 to 0.01."
        )
    if train.lr is not None and train.lr < LR_BELOW:
        found.append(f"A learning rate (lr) of {train.lr:g} is so low that hardly anything is learned.")
    for name in ("dropout", "expert_dropout", "switch_dropout", "token_dropout"):
        if (value := getattr(model, name)) > MOST_DROPPED:
            found.append(f"With --{name} {value:g} little of a text is left to learn from: usual are 0 to 0.5.")
    for name in ("aux_loss_coef", "z_loss_coef", "sequence_balance_coef"):
        if (value := getattr(model, name)) > 1:
            found.append(f"With --{name} {value:g} the model learns to balance its experts rather than its task.")
    sparse = model.sparse_step != 0 and model.router in ("topk", "sigmoid_bias")
    if sparse and model.top_k == model.num_experts * model.expert_granularity:
        found.append(
            f"Each token gets all {model.top_k} experts of a layer, so that the router chooses nothing: --num_experts "
            "more, or --top_k fewer."
        )
    if train.weight_decay > 1:
        found.append(f"A weight decay of {train.weight_decay:g} pulls all weights to zero: usual are 0 to 0.1.")
    if train.warmup >= 1 and train.total_iters is not None and train.warmup >= train.total_iters:
        found.append("The warm-up is as long as the run: the full learning rate is never reached.")
    return found
