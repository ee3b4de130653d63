"""A reverse proxy, as a team would put before the server: it adds a path, and may hide the host."""

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx2 as httpx
import uvicorn
import websockets
from anyio import create_task_group
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

_HOPS = {"connection", "transfer-encoding", "keep-alive", "upgrade"}
_SOCKET = {"host", "connection", "upgrade", "origin", "user-agent"}


@dataclass(frozen=True)
class Proxy:
    """Passes on what comes below a path.

    Attributes:
        port: Where it listens.
        upstream: Host and port of the server.
        path: Such as "/team/stockpot".
        keeps_path: Whether the server sees the path.
        keeps_host: Whether the server sees the host that the browser asked.
    """

    port: int
    upstream: str
    path: str
    keeps_path: bool
    keeps_host: bool

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run it; give the URL of the pages."""
        methods = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE"]
        routes = [
            WebSocketRoute(f"{self.path}/{{rest:path}}", self._socket),
            Route(f"{self.path}/{{rest:path}}", self._request, methods=methods),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), port=self.port, log_level="error", ws="websockets-sansio"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"{self.origin}{self.path}"
        finally:
            server.should_exit = True
            thread.join()

    def _path(self, rest: str, query: str) -> str:
        path = f"{self.path}/{rest}" if self.keeps_path else rest
        return path.lstrip("/") + (f"?{query}" if query else "")

    def _host(self) -> str:
        return f"127.0.0.1:{self.port}" if self.keeps_host else self.upstream

    async def _request(self, request: Request) -> StreamingResponse:
        headers = [(k, v) for k, v in request.headers.items() if k not in {"host", *_HOPS}]
        client = httpx.AsyncClient()
        answer = await client.send(
            client.build_request(
                request.method,
                f"http://{self.upstream}/"
                f"{self._path(request.path_params['rest'], request.url.query)}",
                headers=[*headers, ("host", self._host())],
                content=await request.body(),
            ),
            stream=True,
        )

        async def body() -> AsyncIterator[bytes]:
            async for chunk in answer.aiter_raw():
                yield chunk
            await client.aclose()

        response = StreamingResponse(body(), answer.status_code)
        response.raw_headers = [
            (k.lower().encode(), v.encode("latin-1"))
            for k, v in answer.headers.multi_items()
            if k.lower() not in _HOPS
        ]
        return response

    async def _socket(self, socket: WebSocket) -> None:
        headers = [
            (k, v)
            for k, v in socket.headers.items()
            if k not in _SOCKET and not k.startswith("sec-websocket")
        ]
        protocols = [p.strip() for p in socket.headers["sec-websocket-protocol"].split(",")]
        async with websockets.connect(
            f"ws://{self._host()}/{self._path(socket.path_params['rest'], socket.url.query)}",
            host="127.0.0.1",
            port=int(self.upstream.partition(":")[2]),
            origin=websockets.Origin(socket.headers["origin"]),
            subprotocols=[websockets.Subprotocol(p) for p in protocols],
            additional_headers=headers,
            max_size=None,
            proxy=None,
        ) as upstream:
            await socket.accept(upstream.subprotocol)

            async def up() -> None:
                with suppress(WebSocketDisconnect):
                    while True:
                        await upstream.send(await socket.receive_bytes())
                await upstream.close()

            async with create_task_group() as group:
                group.start_soon(up)
                async for message in upstream:
                    assert isinstance(message, bytes)
                    await socket.send_bytes(message)
