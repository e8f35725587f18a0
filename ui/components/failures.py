"""What no handler expected, in words: in the first card that the handler would have filled, or else as a message.

Whoever serves the page finds the stack trace where the server prints.
Try it: say_failures(demo), once all of a page's handlers are connected
"""

import functools
import inspect
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from switch_model import CheckpointError
from train.data.errors import DataError
from train.runs.run import RunError
from ui.look.html import notice
from ui.look.page_words import page_words

# What a card without a template of its own is made with.
_PLAIN = inspect.signature(gr.HTML).parameters["html_template"].default


def say_failures(demo: gr.Blocks) -> None:
    """Wrap every handler of a page."""
    for event in demo.fns.values():
        if event.fn is not None:
            event.fn = _wrapped(event.fn, event.outputs)


def words_of(error: Exception) -> str:
    """What went wrong, for who looks at the page."""
    if isinstance(error, (CheckpointError, DataError, RunError)):
        return page_words(error)
    if isinstance(error, MemoryError):
        return "This takes more memory than there is. Try something smaller."
    reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return f"This did not work ({reason}). The rest of the page goes on: try again, or choose something else."


def _wrapped(handler: Callable[..., Any], outputs: Sequence[Any]) -> Callable[..., Any]:
    place = next((index for index, output in enumerate(outputs) if _is_card(output)), None)

    def answer(error: Exception) -> Any:
        traceback.print_exception(error)
        if place is None:
            raise gr.Error(words_of(error), print_exception=False) from error
        said = notice(words_of(error))
        return said if len(outputs) == 1 else [said if index == place else gr.skip() for index in range(len(outputs))]

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def steps(*given: Any, **named: Any) -> Any:
            try:
                yield from handler(*given, **named)
            except gr.Error:
                raise
            except Exception as error:
                yield answer(error)

        return steps

    @functools.wraps(handler)
    def once(*given: Any, **named: Any) -> Any:
        try:
            return handler(*given, **named)
        except gr.Error:
            raise
        except Exception as error:
            return answer(error)

    return once


def _is_card(output: Any) -> bool:
    """Whether words can stand in it, and are seen there."""
    seen, around = output.visible is True, output.parent
    while seen and around is not None:
        seen, around = getattr(around, "visible", True) is not False, around.parent
    return seen and isinstance(output, gr.HTML) and output.html_template == _PLAIN
