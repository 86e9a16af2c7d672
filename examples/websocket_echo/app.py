"""Says everything back, with the name of who said it."""

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def echo(websocket: WebSocket) -> None:
    caller = websocket.scope["zerotrust.caller"]
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(f"{caller.id}: {text}")


app = Starlette(routes=[WebSocketRoute("/echo", echo)])
