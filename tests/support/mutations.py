"""Break the code the way a person might, and see that a test notices. Each mistake must turn the tests red.

python tests/support/mutations.py            about ten seconds a mistake; prints which test caught it; exit status 1 if one survives
python tests/support/mutations.py "a cache"  those alone whose description holds these words
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# What is wrong, where, and the change that makes it so. Each `before` must occur exactly once.
MISTAKES = [
    ("drops are ignored", "layers/experts", "permute_tokens(expert_N, routing.kept.flatten(), positions)", "permute_tokens(expert_N, routing.mask.flatten(), positions)"),
    ("dropped tokens are computed all the same", "routing", "return self.mask & (self.slot < self.capacity.unsqueeze(-1))", "return self.mask"),
    ("padding is routed", "layers/router", "mask_GN = expert_BT.view(groups, -1), mask.reshape(groups, -1)", "mask_GN = expert_BT.view(groups, -1), torch.ones_like(mask).reshape(groups, -1)"),
    ("padding counts for capacity", "layers/router", "tokens_B = mask.sum(dim=1)", "tokens_B = torch.ones_like(mask).sum(dim=1)"),
    ("padding counts in the load", "routing", "chose = self.mask & self.chosen_logit.isfinite()", "chose = self.chosen_logit.isfinite()"),
    ("padding counts in the z-loss", "routing", "torch.where(routing.mask & z_BT.isfinite(), z_BT, 0.0)", "torch.where(z_BT.isfinite(), z_BT, 0.0)"),
    ("the gate is squared", "sparse_mlp", "self.router.gate(routing).flatten()", "self.router.gate(routing).flatten().square()"),
    ("the gate is left out", "sparse_mlp", "self.router.gate(routing).flatten().unsqueeze(-1)", "self.router.gate(routing).flatten().unsqueeze(-1).sign()"),
    ("the gate carries no gradient", "sparse_mlp", "self.router.gate(routing).flatten()", "self.router.gate(routing).detach().flatten()"),
    ("capacity is one too many", "routing", "return self.mask & (self.slot < self.capacity.unsqueeze(-1))", "return self.mask & (self.slot <= self.capacity.unsqueeze(-1))"),
    ("capacity rounds down", "layers/router", "torch.ceil(tokens.double()", "torch.floor(tokens.double()"),
    ("capacity forgives no rounding", "layers/router", " - 1e-6)", ")"),
    ("training's factor in evaluation", "layers/router", "config.capacity_factor if self.training else config.eval_capacity_factor", "config.capacity_factor"),
    ("noise in evaluation", "layers/router", "if self.training and config.router_noise_eps > 0:", "if config.router_noise_eps > 0:"),
    ("jitter in place", "layers/router", "hidden_BTD = hidden_BTD * noise_BTD", "hidden_BTD *= noise_BTD"),
    ("additive noise is multiplied", "layers/router", "logits_BTE + noise_BTE", "logits_BTE * noise_BTE"),
    ("the last token first, counted with tensors", "layers/dispatch", "chose_EGN.cumsum(dim=-1, dtype=torch.int32)", "chose_EGN.flip(-1).cumsum(dim=-1, dtype=torch.int32).flip(-1)"),
    ("the weakest token first", "layers/router", "highest_first(gate_BT", "highest_first(-gate_BT"),
    ("sequences share their slots", "layers/router", "1 if per_batch else mask.shape[0]", "1"),
    ("the balance loss is not scaled", "routing", "return routing.num_experts * (load_E", "return (load_E"),
    ("losses are summed over layers", "models/routing_losses", "losses_L * shares).mean()", "losses_L * shares).sum()"),
    ("the z-loss forgets the square", "routing", "z_BT.square().sum()", "z_BT.sum()"),
    ("the router follows the model's dtype", "layers/router", "hidden_BTD = hidden.to(self.dtype)", "hidden_BTD = hidden.to(self.classifier.weight.dtype)"),
    ("padding attends", "models/stack", "bias = padding_bias(mask, dtype)\n", "bias = padding_bias(mask, dtype) * 0\n"),
    ("scores are scaled", "layers/attention", "scale=1.0", "scale=None"),
    ("the first slot of a row is its first token", "layers/pooling", "return mask_BT.long().argmax(dim=1)", "return mask_BT.long().argmax(dim=1) * 0"),
    ("an ablated expert's share is kept", "layers/router", "logits_BTE = logits_BTE.masked_fill(off, -math.inf)", "logits_BTE = logits_BTE.masked_fill(off, 0.0)"),
    ("a forced token counts padding", "interventions", "positions = mask[index].nonzero().flatten()", "positions = torch.arange(mask.shape[1])"),
    ("expert dropout after wo", "layers/experts", "return output_RD.index_select(0, position_N)", "return self.dropout(output_RD.index_select(0, position_N))"),
    ("word pairs reach over padding", "layers/hashed_bigrams", "both_BT = mask & mask.roll(1, dims=1)", "both_BT = mask | True"),
    ("dropout does not make up for what it drops", "layers/dropout", "ctx.scale = 1 / (1 - rate)", "ctx.scale = 1.0"),
    ("buffers start a position late", "layers/dispatch", "(count_M.cumsum() - count_M)[buffer_M]", "(count_M.cumsum() - count_M - 1)[buffer_M]"),
    ("padded experts read a neighbour's rows", "layers/dispatch", "index * longest - first", "index * (longest - 1) - first"),
    ("a token gets another's answer", "layers/dispatch", "position_N[order_K] = np.arange(computed)", "position_N[order_K] = np.arange(computed)[::-1]"),
    ("dropout inside the experts forgets its scale on the way back", "layers/grouped_linear", "ctx.scale = lengths, 1 / (1 - rate)", "ctx.scale = lengths, 1"),
    ("gradient flows through what ReLU cut off", "layers/grouped_linear", "threshold_backward.grad_input(to_inner, inner, 0,", "threshold_backward.grad_input(to_inner, inner, -1,"),
    ("an expert's gradient lands on another expert", "layers/grouped_linear", "gradient_EFD.unbind(0), strict=True", "gradient_EFD.flip(0).unbind(0), strict=True"),
    ("weights start at torch's defaults", "models/pretrained", "if isinstance(module, (nn.Linear, nn.Embedding)):", "if False:"),
    ("a decoder sees the future", "models/stack", "if self.causal and tokens > 1:", "if False:"),
    ("a causal stack counts its capacity from the text", "layers/router", "tokens_B = torch.full_like(tokens_B, config.block_size)", "pass"),
    ("cross-attention looks at padding", "models/stack", "else padding_bias(encoder_mask, dtype)", "else padding_bias(encoder_mask, dtype) * 0"),
    ("cross-attention takes the keys of the wrong layer", "models/stack", "cross_attention_cache.layers[self.layer]", "cross_attention_cache.layers[0]"),
    ("decoding with a cache drops tokens", "layers/router", "        if past_tokens is None:\n            capacity_B = self._capacity", "        if True:\n            capacity_B = self._capacity"),
    ("padding on the left moves learned positions", "models/stack", "position_BS = (mask.cumsum(dim=1) - 1).clamp(min=0)", "position_BS = (torch.ones_like(mask).cumsum(dim=1) - 1).clamp(min=0)"),
    ("a dropped token keeps its attention", "layers/sparse_attention", "self.o(context_BTI).masked_fill(~routing.kept.unsqueeze(-1), 0.0), routing", "self.o(context_BTI), routing"),
    ("an imported expert lands on another's place", "storage/switch_transformers", "zip(sources, places, strict=True)", "zip(sources, reversed(places), strict=True)"),
    ("an ablated expert keeps its logit", "adapters/rechoosing", "return logits.masked_fill(self.changes.ablated.view_as(logits), -math.inf)", "return logits"),
    ("a bias brings an ablated expert back", "adapters/rechoosing", "flat = flat.masked_fill(self.changes.ablated, -math.inf)", "pass"),
    ("a forced expert is not chosen", "adapters/rechoosing", "flat = flat.masked_fill(first, math.inf)", "pass"),
    ("an ablated expert spoils its group", "adapters/rechoosing", "scores = values.values.masked_fill((values.values == -math.inf) & left, 0.0)", "scores = values.values"),
    ("a cache shifts forced tokens", "adapters/hooks", "past = call.past.to(device) if self.growing else None", "past = None"),
    ("hooks stay on", "adapters/hooks", "                handle.remove()", "                pass"),
    ("a thread changes another's choices", "adapters/hooks", "return threading.get_ident() != self.thread", "return False"),
    ("experts stay in no order", "adapters/hooks", "order_NK = ranks_NK.argsort(dim=-1, descending=True, stable=True)", "order_NK = torch.arange(ranks_NK.shape[-1]).expand_as(ranks_NK)"),
    ("padding on the left counts as text", "adapters/hooks", "real[:, mask.shape[1] - tokens :]", "torch.ones_like(real[:, mask.shape[1] - tokens :])"),
    ("missing weights are random", "adapters/loading", 'if missing := sorted(report["missing_keys"]):', "if missing := []:"),
    ("weights are not divided by their sum", "layers/routers/token_choice", "if config.norm_topk_prob:", "if False:"),
    ("a bias weighs, too", "layers/routers/token_choice", "weights_BTK = scores_BTE.gather(-1, experts_BTK)", "weights_BTK = self.ranks(logits, scores_BTE).gather(-1, experts_BTK)"),
    ("groups are not chosen first", "layers/routers/token_choice", "if groups == kept:", "if True:"),
    ("second choices are served first", "layers/routers/choosing", "order_GN.unsqueeze(1) * choices + index_K1", "order_GN.unsqueeze(1) * choices + index_K1.flip(0)"),
    ("a full expert computes all the same", "layers/routers/choosing", "record.weights.masked_fill(full_BTK, 0.0)", "record.weights"),
    ("experts take one token too many", "layers/routers/expert_choice", "place_BTE < slots_B", "place_BTE <= slots_B"),
    ("experts take padding", "layers/routers/expert_choice", "masked_fill(~mask.unsqueeze(-1), -1.0)", "masked_fill(~mask.unsqueeze(-1), 1.0)"),
    ("shared experts are left out", "sparse_mlp", "if self.shared_experts is not None:", "if False:"),
    ("rotary positions turn the other way", "layers/positions", "torch.cat([-second, first], dim=-1)", "torch.cat([second, -first], dim=-1)"),
]  # fmt: skip
TESTS = [
    "switch_model/test_routing",
    "switch_model/test_routers",
    "switch_model/test_oracle_topk",
    "train/test_mixtral",
    "switch_model/test_oracle_bruteforce",
    "switch_model/test_oracle_transformers",
    "switch_model/test_model",
    "switch_model/test_oracle_heads",
    "switch_model/test_heads",
    "switch_model/adapters/test_adapters",
    "switch_model/adapters/test_opening",
]


def caught_by(module: str, before: str, after: str) -> str | None:
    """The test that fails with the mistake in place; None when all pass."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv*", ".git", "runs", "assets"))
        path = copy / "switch_model" / f"{module}.py"
        text = path.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise SystemExit(f"{module}.py holds {text.count(before)} times: {before}")
        path.write_text(text.replace(before, after), encoding="utf-8")
        tests = [f"tests/{name}.py" for name in TESTS]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--durations=0", *tests]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    return failed.group(1) if failed else f"exit status {done.returncode}"


def main(words: str = "") -> int:
    survivors = 0
    for what, module, before, after in (mistake for mistake in MISTAKES if words in mistake[0]):
        test = caught_by(module, before, after)
        survivors += test is None
        print(f"| {what} | {test or '**not caught**'} |", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
