"""What the columns of tables mean: one sentence or two for each, in the words of docs/metrics.md.

A column's header is a button; the script in definitions.html, once in a page or report, shows its meaning on hover, on
focus and on a tap. Try it: header("load CV")
"""

import json

from markupsafe import Markup, escape

from train.templates import render

DEFINITIONS = {
    "layer": "A layer with experts, counted from 0; layers without experts are counted too.",
    "load CV": "Standard deviation of the experts’ shares of the tokens over the mean of these shares. 0 = even.",
    "load entropy": (
        "How evenly the experts are used: entropy of their shares of the tokens, over the log of their number. "
        "1 = even."
    ),
    "token entropy": (
        "How uncertain the router is about one token: entropy of its probabilities over the log of the number of "
        "experts, mean over tokens. 0 = certain."
    ),
    "balance loss": (
        "Number of experts times the sum, over experts, of share of the tokens times mean router probability. "
        "1 = even, the number of experts = all tokens to one."
    ),
    "dropped": "Share of the tokens that found their expert’s buffer full: no expert read them.",
    "mutual information with the class (normalised)": (
        "How much of a text’s class the expert of one token tells: mutual information over the entropy of the class. "
        "0 % = nothing, 100 % = all. Shuffled: the mean when the classes are permuted over texts."
    ),
    "distinct experts (by chance)": (
        "How many different experts the tokens of one text choose, over all their choices; mean over the texts of 30 "
        "tokens and more. In brackets: if each token drew its experts by their loads."
    ),
    "token": "A token of the vocabulary that occurs at least 10 times in these texts.",
    "count": "Occurrences of the token in these texts.",
    "share here": "Share of these occurrences that chose this expert.",
    "lift": (
        "log2 of that share over this expert’s share of all tokens, with half an occurrence added. 0 = by chance, "
        "1 = twice as often."
    ),
    "score": (
        "Occurrences that chose this expert, times lift. The list is ranked by it: first what is both frequent and "
        "typical of the expert."
    ),
    "true class": "A row for each true class, a column for each predicted class: the number of such texts.",
    "experts off": "The metric when no expert of the layer can be chosen: its sparse MLP adds nothing.",
    "choices shuffled": (
        "The metric when the choices are permuted among the tokens of all texts: each expert keeps its load, and reads "
        "tokens that were meant for others."
    ),
    "most important expert off": (
        "The metric without the one expert whose absence costs most: its tokens go to the most probable of the others. "
        "Where a model has very many, of the most used ones."
    ),
    "q": (
        "False discovery rate (Benjamini and Hochberg): of all pairs of a token and an expert with a q this "
        "small, at most this share is due to chance. By chance: the routes of each text permuted among its "
        "tokens."
    ),
    "lift in two halves": "The lift in two halves of the texts, drawn at random. What is stable is in both.",
    "number": "The expert’s number in its layer.",
    "share of tokens": "Share of the tokens that chose this expert, as any of their choices.",
    "typical tokens": (
        "The tokens of the highest score: often there, and more often than elsewhere. Bold: more often than "
        "chance, at a false discovery rate of 5 % over all tokens, experts and layers."
    ),
    "found": (
        "Number of tokens of the vocabulary that this expert takes more often than chance, at a false discovery "
        "rate of 5 %."
    ),
    "stability (by chance)": (
        "Rank correlation, over tokens, of the expert’s share of them in two halves of the texts; 1 = the same "
        "order. In brackets: with the routes of each text permuted, which leaves what is due to the texts’ "
        "topics."
    ),
    "typical class (q)": (
        "The class or source with the highest lift (log2). In brackets: the false discovery rate of a lift so far"
        " from 0, with the classes permuted over texts."
    ),
    "effect (by chance)": (
        "With this expert taken from the tokens that chose it: mean change of the predicted class’s probability in "
        "points, or of the log-probability of a text’s tokens. In brackets: of random experts of the same load, "
        "which take as many tokens of each text, drawn at random."
    ),
    "q of the effect": (
        "False discovery rate, over all experts measured, of an effect so far from that of random experts of the "
        "same load."
    ),
    "routed alike": "Share of the aligned tokens that chose the same expert both times, dropped or not.",
    "by chance": "The same share were experts sampled by their two loads: the sum over experts of load times load.",
    "load CV (by chance)": (
        "Standard deviation of the experts’ shares of the choices over their mean. In brackets: when every token "
        "draws its experts at random."
    ),
    "idle (by chance)": ("Experts without a token. In brackets: when every token draws its experts at random."),
    "repeated (by chance)": (
        "Share of a token’s experts that the token before it in its text had too. In brackets: when all tokens "
        "are shuffled."
    ),
    "strongest pair": (
        "The two experts that tokens choose together most often, compared with chance, and those tokens. In "
        "brackets: as many by chance."
    ),
    "same experts (by chance)": (
        "Share of a token’s experts that both traces have. In brackets: when the tokens of one trace are shuffled."
    ),
    "rank (by chance)": (
        "The same share over the first choice, the first two and so on, averaged. In brackets: when the tokens of "
        "one trace are shuffled."
    ),
    "same first choice (by chance)": (
        "Share of the tokens whose first choice is the same expert. In brackets: when the tokens of one trace are "
        "shuffled."
    ),
    "expert": "Share of the tokens that chose this expert, before drops.",
    "size": "Layers with experts, experts in each, and parameters: those that one token uses, and all.",
    "sparse layers": "The layers with experts, by their names in files and commands.",
    "widths": "Numbers per token between layers (hidden), inside an expert, and in the heads of attention.",
    "capacity in evaluation": (
        "How many tokens one expert takes at most; the rest are dropped. An even share is tokens over experts."
    ),
    "classes": "What the model can answer.",
    "family": "The architecture, by its name in transformers.",
    "experts for each token": "How many experts a router chooses for one token: k.",
    "shared experts": "Experts that every token goes through, beside those that its router chooses.",
    "kind": "What the model does with a text.",
    "tokenizer": "Splits a text into tokens: its algorithm, its number of tokens, and how many the model reads.",
    "target tokenizer": "The tokenizer of the output, which has a vocabulary of its own.",
}


def is_defined(name: str) -> bool:
    """Whether a column's name has a definition."""
    return _known(name) in DEFINITIONS


def header(name: str) -> Markup:
    """A column's header: a button that shows what the column means; a name without a definition stays text."""
    if not is_defined(name):
        return escape(name)
    return render("definition.html", name=name, anchor=_anchor(_known(name))).strip()


def definitions_script() -> Markup:
    """The meanings and the script that shows them, for the head of a page."""
    meanings = {_anchor(name): meaning for name, meaning in DEFINITIONS.items()}
    return render("definitions.html", meanings=Markup(json.dumps(meanings, ensure_ascii=False)))


def atlas_script() -> Markup:
    """Sorting and searching of the expert atlas, for the head of a page."""
    return render("analysis/atlas_script.html")


def _known(name: str) -> str:
    return "expert" if name.removeprefix("expert ").isdecimal() else name


def _anchor(name: str) -> str:
    return "means-" + "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())
