"""The grid of several experts per token in a real Chromium: chosen, moved through by keys, folded; and their film."""

import pytest

from switch_model.adapters import families
from tests.support.explore_page import open_detail, wait_for_words
from tests.support.moe_models import save_tiny, tiny
from tests.support.pages import running_app

pytestmark = pytest.mark.skipif(bool(families.too_old()), reason="The routers of older versions return other things.")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    settings = {"num_hidden_layers": 20, "max_position_embeddings": 512, "num_local_experts": 20}
    model = tiny("mixtral", "ForSequenceClassification", **settings)
    folder = save_tiny(tmp_path_factory.mktemp("models") / "mixtral", model)
    with running_app(folder, tmp_path_factory.mktemp("none")) as address:
        yield address


def test_a_table_of_choices_is_read_moved_through_and_folded(open_page):
    page = open_page()
    page.fill("#text textarea", "oil prices rose " * 100)
    page.click("#route")
    page.wait_for_function("document.querySelector('.matrix-frame')?.getAttribute('aria-colcount') === '301'")
    # 300 tokens in 20 layers, of which only those in view are there.
    assert page.locator(".matrix-cell").count() < 2000
    page.locator('.matrix-cell[data-t="4"][data-l="2"]').click()
    page.wait_for_function("document.querySelector('#token').textContent.includes('layer 2')")
    page.locator('.matrix-cell[data-t="5"][data-l="1"]').hover()
    page.wait_for_selector(".matrix-box .grid-tip:not([hidden])")
    page.focus(".matrix-frame")
    for key in ("End", "ArrowDown"):
        page.keyboard.press(key)
    page.wait_for_selector('.matrix-cell.current[data-t="299"][data-l="3"]')
    assert "expert" in page.locator(".matrix-cell.current").get_attribute("aria-label")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#token').textContent.includes('layer 3')")
    page.get_by_role("button", name="Fold layers").click()
    page.wait_for_function("document.querySelector('.matrix-frame').scrollHeight < 300")
    page.locator(".matrix-chip").first.click()
    assert page.locator(".matrix-chip[aria-pressed=true]").count() == 1
    page.locator(".matrix-map summary").click()
    page.locator(".matrix-map canvas").click(position={"x": 5, "y": 5 * 11 + 3})
    page.wait_for_selector(".matrix-label.chosen[data-layer='5']")
    assert page.locator(".matrix-chip[aria-pressed=true] b").inner_text() == "0"

    # Its film: what it says of the choice are the token's own experts, as the formulas below have them.
    page.click("#watch-film")
    page.wait_for_function("document.querySelector('[data-do=play]')?.textContent === 'Pause'")
    page.click("[data-do=play]")
    page.locator("#film .film-time").fill("5")
    page.locator(".film-stage").press("Home")
    page.click("[data-do=on]")
    page.wait_for_function("document.querySelector('#how-steps h2').textContent.includes('oil in decoder layer 5')")
    page.wait_for_function("document.querySelector('#how-steps li.now h3')?.textContent === '2. Choice'")
    chosen = page.locator("#how-steps li").nth(2).locator(".chip").all_inner_texts()
    assert f"It chooses 2 of them: experts {', '.join(chosen)}." in page.inner_text(".film-said")


def test_a_press_on_the_map_of_experts_counts_though_it_is_drawn_anew_before_the_release(open_page):
    page = open_page()
    open_detail(page, "Experts")
    box = page.locator(".expert-map canvas").bounding_box()
    # The square of expert 1, and of expert 2 beside it.
    one, two = ((box["x"] + 56 + 22 * expert + 11, box["y"] + 11) for expert in (1, 2))
    page.mouse.click(*one)
    page.mouse.move(*two)
    page.mouse.down()
    wait_for_words(page, ".panel-acts .facts", "Changed")
    page.mouse.up()
    page.wait_for_function("document.querySelector('.panel-acts .facts').textContent.split('layer 0 off').length === 3")
