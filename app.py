"""The server: the dashboard, and the routes that stream soups to the browser.

Run it with `make app`, or `streamlit run app.py -- --root FOLDER --task FILE.py:ATTRIBUTE`.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parent))

from pages.components import errors, services, settings

settings.configure(sys.argv[1:])


async def download(request: Request) -> Response:
    """Stream a soup's weights from disk, so that the server's memory does not grow with them."""
    soup = services.store().soup(request.path_params["soup"])
    if soup is None or soup.file is None:
        return PlainTextResponse("There is no such soup; build it first.", status_code=404)
    file = services.store().folder / soup.file
    if not file.is_file():
        return PlainTextResponse("The file is gone; prepare the weights again.", status_code=410)
    return FileResponse(
        file,
        filename=file.name,
        media_type="application/octet-stream",
        # Streamlit would gzip it otherwise: minutes of CPU for weights that do not shrink.
        headers={"Content-Encoding": "identity", "Cache-Control": "no-store"},
    )


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[dict[str, Any]]:
    """Keep a worker warm as long as the server runs."""
    services.supervisor().start()
    yield {}
    services.supervisor().stop()


app = st.App(
    Path(__file__).parent / "pages" / "main.py",
    lifespan=lifespan,
    routes=[Route("/download/{soup}", download)],
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=settings.current().hosts)],
    on_script_error=errors.show,
)
