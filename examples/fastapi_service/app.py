"""A FastAPI service that knows who calls."""

from typing import Annotated

from fastapi import Depends, FastAPI, Request

from zerotrust import Caller

app = FastAPI()
NOTES: dict[str, list[str]] = {}


def caller_of(request: Request) -> Caller:
    caller: Caller = request.scope["zerotrust.caller"]
    return caller


Calling = Annotated[Caller, Depends(caller_of)]


@app.get("/notes")
def notes(caller: Calling) -> list[str]:
    return NOTES.get(str(caller.id), [])


@app.post("/notes/{text}")
def add(text: str, caller: Calling) -> dict[str, str]:
    NOTES.setdefault(str(caller.id), []).append(text)
    return {"noted_for": str(caller.id), "token": caller.mode.label}
