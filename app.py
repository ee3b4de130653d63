"""The server: the dashboard, and the route that streams soups to the browser.

Run it with `stockpot`, `make app`, or `streamlit run app.py -- FOLDER --task FILE.py:ATTRIBUTE`.
"""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parent))

from pages.components import settings

# Before torch is imported, which takes seconds.
if address := settings.requested_address(sys.argv[1:]):
    settings.listen_on(address)

from pages.components import access, display, exports, header, state
from pages.components.access import Boundary
from pages.components.uploads import UploadsToDisk
from soupcore import StockpotError
from soupcore.progress import silence
from soupcore.workspace import workspace_folder
from soupcore.writers.forms import zip_of

# Streamlit would gzip it: minutes of CPU for weights that do not compress.
_HEADERS = {"Content-Encoding": "identity", "Cache-Control": "no-store"}

logger = logging.getLogger(__name__)

silence()  # pages show progress themselves

known = settings.configure(sys.argv[1:])
token = settings.token(required=known.requires_token)


async def download(request: Request) -> Response:
    """Stream a file of a soup, or its folder as an archive, from disk in constant memory."""
    try:
        store = state.store()
    except StockpotError as error:
        return PlainTextResponse(str(error), status_code=503)
    soup, form, name = (request.path_params[part] for part in ("soup", "form", "name"))
    folder = store.soup_folder(soup, form)
    files = {file.name: folder / file.name for file in store.soup_files(soup, form)}
    inside = [file for file in files if file.startswith(f"{name.removesuffix('.zip')}/")]
    if name.endswith(".zip") and inside:
        return StreamingResponse(
            zip_of({file: files[file] for file in inside}),
            media_type="application/zip",
            headers=_HEADERS | {"Content-Disposition": f'attachment; filename="{quote(name)}"'},
        )
    if name not in files:
        return PlainTextResponse(
            "File not found. Create it on the page of the soup first.",
            status_code=404,
        )
    return FileResponse(
        files[name],
        filename=name,
        media_type="application/octet-stream",
        headers=_HEADERS,
    )


@asynccontextmanager
async def lifespan(_: st.App) -> AsyncIterator[dict[str, Any]]:
    """Print the server's URL, and run the workers while the server runs."""
    access.start_log(workspace_folder() / settings.log_name())
    for link in settings.links(token):
        print(f"Stockpot is at {link}", flush=True)
    try:
        supervisor = state.supervisor()
    except StockpotError as error:  # the pages show it until it is fixed
        logger.warning("%s", error)
        yield {}
        return
    supervisor.start()
    for task in known.tasks_for(known.sweep):
        state.descriptions().prepare(task)
    yield {}
    settings.end_soon()
    state.descriptions().stop()
    supervisor.stop()
    state.incoming().close()


app = st.App(
    Path(__file__).parent / "pages" / "main.py",
    lifespan=lifespan,
    routes=[Route(f"{settings.base_path()}/download/{{soup}}/{{form}}/{{name}}", download)],
    middleware=[
        Middleware(
            Boundary,
            hosts=settings.hosts(known.hosts),
            origins=known.origins,
            token=token,
            base=settings.base_path(),
            html=settings.index_html() + header.SCRIPT + exports.SCRIPT,
        ),
        Middleware(access.LogDownloads),
        Middleware(UploadsToDisk, incoming=state.incoming, base=settings.base_path()),
    ],
    on_script_error=display.show_error,
)
