"""A model that writes in a real Chromium: its text token by token, both stacks in one grid, a token looked at, Stop."""

import re

import pytest

from tests.support.explore_page import choose_model, open_detail, wait_for_words


@pytest.fixture(scope="module")
def shared(shared):
    """The module's page with a model that writes, whose choice alone lets it write."""
    page, wrong = shared
    choose_model(page, "hindi · encoder-decoder")
    page.wait_for_selector(".grid-stack >> nth=1")
    assert page.locator("#route").count() == 0 and page.is_visible("#generate")
    wait_for_words(page, "#prediction", "60 tokens written")
    return page, wrong


@pytest.fixture
def page(shared):
    page, wrong = shared
    yield page
    assert not wrong, wrong


def focused(page):
    """(token, layer, label) of the cell that has the keyboard."""
    return page.evaluate("(({dataset, ariaLabel}) => [+dataset.t, +dataset.l, ariaLabel])(document.activeElement)")


def test_keys_move_between_the_stacks_and_the_closer_look_follows(page):
    page.wait_for_selector(".grid-stack >> nth=1")
    reads = page.evaluate("document.querySelectorAll('.grid-body')[0].querySelectorAll('.grid-column').length")
    page.locator('.cell[tabindex="0"]').focus()
    page.keyboard.press("Home")
    assert focused(page)[:2] == [reads, 2], "Home stays in its stack"
    page.keyboard.press("ArrowUp")
    token, layer, label = focused(page)
    assert (token, layer) == (0, 1) and "encoder layer 1" in label
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    token, layer, label = focused(page)
    assert (token, layer) == (reads, 2) and "decoder layer 0" in label
    page.keyboard.press("ArrowLeft")
    assert focused(page)[:2] == [reads - 1, 0]
    page.keyboard.press("Enter")
    for tab, cards in (("Token", ("#token", "#what-if")), ("Layer", ("#load", "#probabilities"))):
        open_detail(page, tab)
        for card in cards:
            wait_for_words(page, f"{card} h2", "encoder layer 0")


def test_a_switched_off_expert_writes_the_text_anew_in_steps(page):
    open_detail(page, "Experts")
    page.wait_for_selector("button.switch")
    page.evaluate(
        """() => { window.seen = new Set(); const card = document.querySelector('#prediction');
        new MutationObserver(() => card.querySelector('.caret') && seen.add(card.textContent))
          .observe(card, {subtree: true, childList: true}) }"""
    )
    # The second click comes while the first one's text is written, which it ends.
    page.locator("button.switch").nth(-1).click()
    page.locator("button.switch").nth(-2).click()
    page.wait_for_function("document.querySelector('#prediction').textContent.includes('with your changes')")
    page.wait_for_selector("#stop-writing:disabled")
    assert page.evaluate("seen.size") >= 2, "the text came in steps"
    page.wait_for_function("document.querySelectorAll('button.switch.off').length === 2")
    # The text before stands beside; what is in one of them alone is marked.
    page.wait_for_selector(".versions mark")
    # All experts and both texts are in view together.
    tops = page.evaluate(
        "['#prediction', '.panel-rows'].map((one) => document.querySelector(one).getBoundingClientRect())"
    )
    assert tops[1]["bottom"] - tops[0]["top"] < 700 and tops[0]["bottom"] < tops[1]["top"]
    changed, before = page.locator(".versions .answer-text").all_inner_texts()
    assert before != changed
    page.click("[data-act=reset]")
    page.wait_for_function("!document.querySelector('#prediction').textContent.includes('with your changes')")
    page.wait_for_function("!document.querySelector('button.switch.off')")


def test_the_pieces_of_a_written_word_stand_in_line(page):
    page.wait_for_selector(".grid-column.written + .grid-column.written")
    # Of pieces that share a line; a word longer than a line wraps.
    steps = page.evaluate(
        """() => [...document.querySelectorAll('.grid-column.written + .grid-column.written')]
          .filter((node) => node.offsetLeft > node.previousElementSibling.offsetLeft)
          .map((node) => node.offsetTop - node.previousElementSibling.offsetTop)"""
    )
    assert steps and set(steps) == {0}


def test_a_text_is_written_stopped_and_looked_at(page):
    page.click("#writing-settings .label-wrap")
    page.fill("#writing-length input[type=number]", "200")
    page.keyboard.press("Tab")
    page.fill("#text textarea", "The weather")
    page.evaluate(
        """() => { window.seen = new Set(); const card = document.querySelector('#prediction');
        new MutationObserver(() => seen.add(card.textContent)).observe(card, {subtree: true, childList: true}) }"""
    )
    # Stopped as soon as that can be: a small model on a quick machine is done in a second.
    page.evaluate(
        """() => { const stop = () => document.querySelector('#stop-writing');
        const watch = new MutationObserver(() => { if (!stop().disabled) { watch.disconnect(); window.stopped = true;
          stop().click(); } });
        watch.observe(stop(), {attributes: true}) }"""
    )
    page.keyboard.press("Control+Enter")
    page.wait_for_function("window.stopped")
    page.wait_for_selector("#stop-writing:disabled")
    # A busy machine may have stopped it at its first token.
    page.wait_for_function("/ tokens? written/.test(document.querySelector('#prediction').textContent)")
    count = int(re.search(r"(\d+) tokens? written", page.inner_text("#prediction")).group(1))
    assert count == 1 or page.evaluate("seen.size") >= 2, "the text came in steps"
    page.wait_for_function("count => document.querySelectorAll('.grid-column.written').length === count", arg=count)
    # A token of the decoder: its routes in the decoder's layers, and what might have followed.
    page.locator(".grid-column.written .cell").first.click()
    page.wait_for_function("document.querySelector('#token').textContent.includes('what might follow')")
    assert page.locator("#token .stack").count() == 3
