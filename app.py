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
    """Stream one of a soup's files from disk, so that the server's memory does not grow with it."""
    store = services.store()
    soup, form, name = (request.path_params[part] for part in ("soup", "form", "name"))
    if not any(file.name == name for file in store.soup_files(soup, form)):
        return PlainTextResponse("There is no such file; prepare the weights.", status_code=404)
    return FileResponse(
        store.soup_folder(soup, form) / name,
        filename=name,
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
    routes=[Route("/download/{soup}/{form}/{name}", download)],
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=settings.current().hosts)],
    on_script_error=errors.show,
)
