"""An ordinary FastAPI application, put on the mesh in two lines."""

import os

from fastapi import FastAPI

from meshkit import MeshService

app = FastAPI()


@app.get("/who")
async def who() -> dict[str, int]:
    return {"pid": os.getpid()}


service = MeshService.from_app(app, name="plain")
