"""The page itself, compressed: Gradio compresses its scripts and style sheets, but not the page, which is larger."""

from typing import Any

from starlette.middleware.gzip import GZipMiddleware

# Fewer bytes are not worth it; a higher level takes longer than it saves.
SMALLEST, LEVEL = 1000, 6


class CompressedPage:
    """Middleware that compresses the page and its configuration, and passes all else on."""

    paths = ("/", "/config")

    def __init__(self, app: Any):
        self.app, self.compressed = app, GZipMiddleware(app, SMALLEST, LEVEL)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        ours = scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in self.paths
        await (self.compressed if ours else self.app)(scope, receive, send)
