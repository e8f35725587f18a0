"""What browser tests do in Explore, and wait for there."""

TEXT = "Oil prices rose as oil traders worried about oil"


def route(page, text):
    page.fill("#text textarea", text)
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "start => document.querySelector('.grid-flow').textContent.replace(/\\d+/g, '').startsWith(start)",
        arg="".join(text.split())[:12],
    )


def wait_for_words(page, selector, words):
    """The parts of an answer appear one after the other."""
    page.wait_for_function(
        "([selector, words]) => document.querySelector(selector)?.textContent.includes(words)", arg=[selector, words]
    )


def wait_for_cells(page, experts):
    """The grid's cells in the order of the page show these experts."""
    shown = "[...document.querySelectorAll('#routing-grid .cell[data-t]')].map(cell => cell.innerText).join()"
    page.wait_for_function(f"wanted => {shown} === wanted", arg=",".join(experts))


def cell(page, token, layer):
    return page.locator(f'.cell[data-t="{token}"][data-l="{layer}"]')


def choose_model(page, name):
    page.click("#model input")
    page.locator("ul[role=listbox] li", has_text=name).click()


def open_detail(page, name):
    """A tab of the detail panel: Token, Layer, Experts, Attribution or Flow."""
    page.click(f'#detail-tabs button[role=tab]:has-text("{name}")')
