"""What the API answers, as its OpenAPI description says it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from jedi_diffusion.app.jobs import PictureFormat


class ImageData(BaseModel):
    """A picture: itself, or where it is."""

    b64_json: str | None = Field(None, description="The picture, where response_format is b64_json.")
    url: str | None = Field(None, description="An address that needs no token, where it is url.")
    seed: int


class InputTokens(BaseModel):
    """What was read."""

    image_tokens: int = Field(description="Of the references: one for each place of the model's grid.")
    text_tokens: int = Field(description="Of the prompt and the references' prompts.")


class OutputTokens(BaseModel):
    """What was made."""

    image_tokens: int
    text_tokens: int


class Usage(BaseModel):
    """What pictures took, as OpenAI's API counts it."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class Images(BaseModel):
    """Pictures, with what OpenAI's API does not have beside."""

    created: int = Field(description="Seconds since 1970.")
    data: list[ImageData]
    background: Literal["opaque"]
    output_format: PictureFormat
    quality: Literal["low", "medium", "high", "xhigh", "max"]
    size: str = Field(description="WIDTHxHEIGHT in pixels.")
    usage: Usage
    warnings: list[str] = Field(description="Such as words that the model does not know.")
    model: str
    made_with: str


class Model(BaseModel):
    """The model of this server."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    about: str
    size: int = Field(description="Pixels of a side of its own pictures.")
    fingerprint: str = Field(description="SHA-256 of its weights.")


class Models(BaseModel):
    """All models of this server, of which there is one."""

    object: Literal["list"]
    data: list[Model]


class Error(BaseModel):
    """What was wrong, in OpenAI's shape; `job` and `done` where a failed job has finished pictures."""

    message: str
    type: str
    param: str | None = Field(description="The field that is wrong.")
    code: str | None
    job: str | None = None
    done: list[ImageData] | None = None


class Failure(BaseModel):
    """An answer that is none."""

    error: Error


class PictureState(BaseModel):
    """One picture of a job."""

    seed: int
    prompt: str
    step: int = Field(description="Steps that are done.")
    url: str | None = Field(description="Where it is, once it is finished.")


class JobState(BaseModel):
    """How far a job is."""

    id: str
    object: Literal["job"]
    created: int
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1, description="Share of the steps that are done.")
    steps: int
    seconds_left: float | None
    pictures: list[PictureState]
    error: Error | None


class Health(BaseModel):
    """Whether the server works."""

    status: str
    replicas: dict[str, int] | None = None


SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "description": "Authorization: Bearer TOKEN"},
    "password": {"type": "http", "scheme": "basic", "description": "Any name, and the token as password"},
}
"""How clients say their token, in OpenAPI's words."""


def secured(schema: dict[str, Any], needs_token: bool, open_paths: tuple[str, ...]) -> dict[str, Any]:
    """Add to a schema how tokens are given, and whether they are needed; open_paths need none."""
    schema.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
    if needs_token:
        schema["security"] = [{name: []} for name in SECURITY_SCHEMES]
        for path in open_paths:
            for operation in schema["paths"].get(path, {}).values():
                operation["security"] = []
    return schema
