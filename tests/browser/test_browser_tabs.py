"""Analyse and Models in a real Chromium: a table analysed, a checkpoint uploaded."""

import shutil

import pytest

from tests.support.explore_page import open_detail
from tests.support.pages import save_tiny_checkpoint


def test_analyse_a_table_and_open_a_misread_text_in_explore(page, tmp_path):
    table = tmp_path / "news.csv"
    rows = "".join(
        f"oil prices rose {word},Business\nthe team won {word},Sports\n" for word in ("as", "about", "winter")
    )
    table.write_text("text,label\n" + rows, encoding="utf-8")
    page.get_by_role("tab", name="Analyse").click()
    page.set_input_files("[data-testid='Your own table…-upload-button']", str(table))
    # Until then the tab shows its example.
    page.wait_for_function(
        """() => [...document.querySelectorAll('#confusion [data-true]')]
          .reduce((sum, cell) => sum + Number(cell.textContent), 0) === 6"""
    )
    chosen = [page.input_value(f"#analyse-{name} input") for name in ("data", "texts", "classes")]
    assert chosen == ["news.csv", "text", "label"]
    page.locator("#confusion [data-true]:enabled").first.click()
    page.wait_for_selector("#cell-texts .sample")
    text = page.locator("#cell-texts .sample span").first.inner_text()
    page.locator("#cell-texts .sample").first.click()
    page.wait_for_function(f"document.querySelector('#text textarea').value === {text!r}")
    words = text.split()
    page.wait_for_function(f"document.querySelectorAll('.grid-token').length === {len(words)}")
    assert page.locator("#routing-grid .grid-token").all_text_contents() == words


def test_a_text_found_opens_at_its_token_and_a_button_leads_back_to_what_was_found(page):
    page.get_by_role("tab", name="Analyse").click()
    page.click("#analyse")
    page.wait_for_selector("#layer-table .term")
    # A column tells what it means to who reaches it by keyboard.
    page.locator("#layer-table .term").nth(1).focus()
    assert "Standard deviation" in page.locator(".term-bubble:visible").inner_text()
    page.fill("#route-word textarea, #route-word input", "the")
    page.click("#route-find")
    page.wait_for_selector("#route-hits .sample")
    found = page.locator("#route-hits .sample").all_inner_texts()
    page.locator("#route-hits .sample").nth(1).click()
    page.wait_for_function(
        """() => { const place = document.querySelector('#routing-grid .cell.selected')?.dataset.t;
        return document.querySelectorAll('#routing-grid .grid-token')[place]?.textContent.trim().toLowerCase() === 'the'
          && location.hash.includes('text=') }"""
    )
    page.click("#back-to-results")
    page.wait_for_function(
        "document.querySelector('#pages [role=tab][aria-selected=true]').textContent.trim() === 'Analyse'"
    )
    assert page.locator("#route-hits .sample").all_inner_texts() == found
    page.locator("#back-to-results").wait_for(state="hidden")


def test_upload_a_good_checkpoint_and_a_hostile_one(open_page, tmp_path):
    page = open_page()
    folder = save_tiny_checkpoint(tmp_path / "mine", num_experts=6)
    archive = shutil.make_archive(str(tmp_path / "mine"), "zip", folder)
    chooser = "[data-testid='Upload a zip or files…-upload-button']"
    page.get_by_role("tab", name="Models").click()
    page.set_input_files(chooser, archive)
    page.wait_for_function("document.querySelector('#model-facts').textContent.includes('6 experts')")
    (tmp_path / "evil.pt").write_bytes(b"\x80\x04evil.")
    page.set_input_files(chooser, str(tmp_path / "evil.pt"))
    page.wait_for_function("document.querySelector('#own-model-said').textContent.includes('never is opened here')")
    page.click("#explore-model")
    open_detail(page, "Experts")
    page.wait_for_function("document.querySelectorAll('.switch[data-l=\"0\"]').length === 6")
    # Nobody else is offered it.
    other = open_page()
    other.click("#model input")
    assert "mine" not in " ".join(other.locator("[role=option]").all_inner_texts())
    # Removed, it is gone from every picker, and Explore goes on with the default model.
    page.get_by_role("tab", name="Models").click()
    page.click("#remove-model")
    page.wait_for_function("document.querySelector('#model-facts').textContent.includes('4 experts')")
    page.locator("#remove-model").wait_for(state="hidden")
    page.get_by_role("tab", name="Explore").click()
    page.wait_for_function("document.querySelectorAll('.switch[data-l=\"0\"]').length === 4")
    page.wait_for_function("document.querySelector('#model input').value === 'tiny'")


def wait_for_tab(page, name, fragment):
    page.wait_for_function(
        "([name, fragment]) => location.hash === fragment"
        " && document.querySelector('#pages [role=tab][aria-selected=true]')?.textContent.trim() === name",
        arg=[name, fragment],
    )


def test_back_a_reload_and_a_pasted_address_keep_the_tab(new_page, address):
    page = new_page()
    page.goto(address)
    page.get_by_role("tab", name="Analyse").click()
    wait_for_tab(page, "Analyse", "#tab=analyse")
    page.get_by_role("tab", name="Compare").click()
    wait_for_tab(page, "Compare", "#tab=compare")
    page.go_back()
    wait_for_tab(page, "Analyse", "#tab=analyse")
    page.reload()
    wait_for_tab(page, "Analyse", "#tab=analyse")
    page.evaluate("location.hash = '#tab=models'")
    wait_for_tab(page, "Models", "#tab=models")


def test_a_reload_back_and_a_pasted_address_keep_text_and_place(open_page, new_page):
    page = open_page()
    page.fill("#text textarea", "the team won the winter alert")
    page.click("#route")
    page.wait_for_function("document.querySelectorAll('.grid-token').length === 6")
    page.click("#routing-grid .cell[data-t='4'][data-l='1']")
    fragment = "#tab=explore&model=tiny&text=the+team+won+the+winter+alert&layer=1&token=4"
    wait_for_tab(page, "Explore", fragment)
    page.get_by_role("tab", name="Models").click()
    wait_for_tab(page, "Models", fragment.replace("explore", "models"))
    page.go_back()
    wait_for_tab(page, "Explore", fragment)
    selected = 'document.querySelector(\'.cell.selected[data-t="4"][data-l="1"]\')'
    page.reload()
    page.wait_for_function(selected)
    wait_for_tab(page, "Explore", fragment)
    other = open_page(fragment.replace("explore", "analyse"))
    wait_for_tab(other, "Analyse", fragment.replace("explore", "analyse"))
    other.wait_for_function(selected)
    assert other.input_value("#text textarea") == "the team won the winter alert"


@pytest.mark.parametrize(
    "fragment, selector, said",
    [
        ("#tab=explore&model=gone&text=oil", "#link-failed p", "no model 'gone'"),
        ("#tab=analyse&text=oil&token=x", "#link-failed p", "damaged"),
        ("#s=oil", "#link-failed p", "damaged"),
        ("#tab=gone", "#tab-unknown", "no tab “gone”"),
    ],
)
def test_an_address_that_opens_nothing_says_so_above_all_tabs(open_page, fragment, selector, said):
    page = open_page(fragment)
    page.wait_for_selector(f"{selector}:visible")
    assert said in page.inner_text(selector)


def run_text(page, text):
    page.fill("#text textarea", text)
    page.click("#route")


def wait_for_text(page, text, place=""):
    """Box, grid and address are of this text, at this place."""
    page.wait_for_function(
        """([text, place]) => document.querySelector('#text textarea').value === text
        && [...document.querySelectorAll('#routing-grid .grid-token')].map((one) => one.textContent).join(' ') === text
        && document.querySelector(`#routing-grid .cell.selected${place}`)
        && location.hash.includes(new URLSearchParams({ text }))""",
        arg=[text, place],
    )


def test_each_text_is_an_entry_that_back_restores_with_its_place(open_page):
    page, place = open_page(), "[data-t='1'][data-l='1']"
    first = page.input_value("#text textarea")
    for text in ("oil prices rose", "the team won", "winter alert"):
        run_text(page, text)
        wait_for_text(page, text)
        page.click(f"#routing-grid .cell{place}")
        wait_for_text(page, text, place)
    for text in ("the team won", "oil prices rose"):
        page.go_back()
        wait_for_text(page, text, place)
    page.go_back()
    page.wait_for_function(f"document.querySelector('#text textarea').value === {first!r}")
    page.go_forward()
    wait_for_text(page, "oil prices rose", place)


def test_back_and_a_pasted_address_lose_no_text_and_a_late_answer_writes_into_no_other_entry(new_page, address):
    page, held, slow = new_page(), [], []
    page.goto(address)
    page.wait_for_selector("#what-if .what-row")
    page.route("**/queue/join**", lambda request: held.append(request) if slow else request.continue_())
    run_text(page, "oil prices rose")
    wait_for_text(page, "oil prices rose")
    slow.append("slow")
    run_text(page, "the team won")
    page.wait_for_function("location.hash.includes('the+team')")
    page.go_back()
    page.wait_for_function("document.querySelector('#text textarea').value === 'oil prices rose'")
    slow.clear()
    # The answer to Back comes first.
    for request in reversed(held):
        request.continue_()
    wait_for_text(page, "oil prices rose")
    page.go_forward()
    wait_for_text(page, "the team won")
    # Typed and not run.
    page.locator("#text textarea").press("End")
    page.keyboard.type(" oil")
    page.evaluate("location.hash = '#tab=explore&model=tiny&text=winter+alert'")
    wait_for_text(page, "winter alert")
    page.go_back()
    for again in (lambda: None, page.reload):
        again()
        page.wait_for_function(
            "document.querySelector('#text textarea')?.value === 'the team won oil'"
            " && document.querySelectorAll('#routing-grid .grid-token').length === 3"
        )
    page.unroute("**/queue/join**")


def test_a_tab_chosen_while_the_server_is_slow_stays(new_page, address):
    page, held, chosen = new_page(), [], []
    page.route("**/queue/join**", lambda route: route.continue_() if chosen else held.append(route))
    page.goto(f"{address}#tab=analyse&model=tiny&text=oil+prices+rose")
    wait_for_tab(page, "Analyse", "#tab=analyse&model=tiny&text=oil+prices+rose")
    page.get_by_role("tab", name="Models").click()
    wait_for_tab(page, "Models", "#tab=models&model=tiny&text=oil+prices+rose")
    chosen.append("Models")
    for route in held:
        route.continue_()
    page.wait_for_function("document.querySelector('#text textarea').value === 'oil prices rose'")
    wait_for_tab(page, "Models", "#tab=models&model=tiny&text=oil+prices+rose&layer=0&token=0")
