"""A visitor's page without a browser: the HTTP requests of a page of this app.

It opens the page, keeps its heartbeat, sends an event as Gradio's own page does (queue/join, then the session's
stream), and everything that follows from it (“then”), each with a session of its own.
Try it: python -m benchmarks.load --visitors 2 --seconds 5
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

API = "/gradio_api"


class Refused(Exception):
    """The server refused an event; the message is what the page would show."""


class Busy(Refused):
    """The queue was full."""


@dataclass
class Answer:
    """The result of one event.

    Attributes:
        values: the outputs, event by event in the order they came, as the page receives them.
        first: seconds until the first event was answered.
        whole: seconds until all that followed was answered too.
        size: bytes received.
    """

    values: list[list[Any]] = field(default_factory=list)
    first: float = 0.0
    whole: float = 0.0
    size: int = 0


class Layout:
    """Which event is which, from the configuration that the server gives every page."""

    def __init__(self, config: dict[str, Any]):
        self.events = {event["id"]: event for event in config["dependencies"]}
        self.values = {item["id"]: item["props"].get("value") for item in config["components"]}
        self.ids = {item["props"].get("elem_id"): item["id"] for item in config["components"]}
        self.states = {item["id"] for item in config["components"] if item["type"] == "state"}

    @classmethod
    async def of(cls, client: httpx.AsyncClient) -> "Layout":
        return cls((await client.get("/config")).raise_for_status().json())

    def find(self, elem_id: str | None, name: str) -> list[int]:
        """Events of a component; None = of the page itself."""
        known = self.ids[elem_id] if elem_id else None
        return [
            number
            for number, event in self.events.items()
            for target, kind in event["targets"]
            if kind == name and (target == known if elem_id else target not in self.values)
        ]

    def following(self, number: int) -> list[int]:
        return [other for other, event in self.events.items() if event["trigger_after"] == number]


class Page:
    """One open page.

    Args:
        client: with the app's address as its base.
        layout: of the app; shared by all pages.
    """

    def __init__(self, client: httpx.AsyncClient, layout: Layout):
        self.client, self.layout = client, layout
        self.session = secrets.token_hex(6)
        self.values: dict[int, Any] = {}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Page"]:
        """Keep the page open: its heartbeat tells the server that the visitor is still there."""
        heart = asyncio.create_task(self._heartbeat())
        try:
            (await self.client.get("/")).raise_for_status()
            for number in self.layout.find(None, "load"):
                await self._chain(number, None, Answer(), time.perf_counter())
            yield self
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)

    async def act(self, elem_id: str, name: str, data: Any = None, **typed: str) -> Answer:
        """Send an event of a component and wait for all that follows.

        Args:
            data: what the component tells of the event.
            typed: elem_id -> what was typed into it before.

        Raises:
            Busy: the queue was full.
            Refused: an event failed.
        """
        for box, text in typed.items():
            self.values[self.layout.ids[box]] = text
        answer = Answer()
        (number,) = self.layout.find(elem_id, name)
        await self._chain(number, data, answer, time.perf_counter())
        return answer

    async def _chain(self, number: int, data: Any, answer: Answer, start: float) -> None:
        event = self.layout.events[number]
        # What the browser alone answers asks the server nothing.
        asks = event.get("backend_fn", True)
        values = await self._ask(event, data, answer) if asks else []
        answer.whole = time.perf_counter() - start
        answer.first = answer.first or answer.whole
        answer.values.append(values)
        for component, value in zip(event["outputs"] if asks else [], values, strict=True):
            if not (isinstance(value, dict) and value.get("__type__") == "update"):
                self.values[component] = value
            elif "value" in value:
                self.values[component] = value["value"]
        for following in self.layout.following(number):
            await self._chain(following, None, answer, start)

    async def _ask(self, event: dict[str, Any], data: Any, answer: Answer) -> list[Any]:
        inputs = [self._value(component) for component in event["inputs"]]
        body = {"data": inputs, "event_data": data, "fn_index": event["id"], "session_hash": self.session}
        if not event["queue"]:
            reply = await self.client.post(f"{API}/run/predict", json=body)
            answer.size += len(reply.content)
            return self._checked(reply)["data"]
        joined = self._checked(await self.client.post(f"{API}/queue/join", json=body))["event_id"]
        output = None
        async with self.client.stream("GET", f"{API}/queue/data", params={"session_hash": self.session}) as stream:
            async for line in stream.aiter_lines():
                answer.size += len(line)
                if not line.startswith("data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] == "process_completed" and message.get("event_id") == joined:
                    if not message["success"]:
                        raise Refused(str(message["output"].get("error")))
                    output = message["output"]["data"]
                elif message["msg"] == "unexpected_error":
                    raise Refused(str(message.get("message")))
        if output is None:
            raise Refused("The stream ended without an answer.")
        return output

    def _value(self, component: int) -> Any:
        if component in self.layout.states:  # A visitor's state stays on the server.
            return None
        return self.values.get(component, self.layout.values[component])

    @staticmethod
    def _checked(reply: httpx.Response) -> dict[str, Any]:
        said = reply.json() if "json" in reply.headers.get("content-type", "") else {"detail": reply.text[:200]}
        if reply.status_code in (429, 503):
            raise Busy(str(said.get("detail")))
        if reply.status_code != 200:
            raise Refused(str(said.get("detail") or said.get("error")))
        return said

    async def _heartbeat(self) -> None:
        async with self.client.stream("GET", f"{API}/heartbeat/{self.session}") as stream:
            async for _ in stream.aiter_lines():
                pass
