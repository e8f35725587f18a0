"""How an event answers: without Gradio's progress, not part of the API, and what becomes of one that comes while the
same is being answered.

Gradio drops that one unless told otherwise: a picker then shows what the page does not. The last one (LAST) it answers
with the event data of the first: where a handler reads its event, EACH is right, or a script that sends one object.
Try it: button.click(answer, inputs, outputs, **LAST)
"""

from typing import Any

_QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Dropped: where a second press makes no sense, since the first one starts, writes or moves something.
ONCE = _QUIET | {"trigger_mode": "once"}
# Answered after the one before, with what the page holds then.
LAST = _QUIET | {"trigger_mode": "always_last"}
# Each is answered.
EACH = _QUIET | {"trigger_mode": "multiple"}
# Shows what is built hidden, in the browser alone. A browser loads the script of a kind of component where one of them
# is not hidden anywhere on the page, in tabs that were never opened too: some are larger than all of this project's.
SHOW: dict[str, Any] = {"fn": None, "inputs": None, "js": "() => ({ __type__: 'update', visible: true })"}
