"""RFC 9457 problem documents."""

from pydantic import BaseModel, ConfigDict, Field

from app.schemas import examples


class ProblemFault(BaseModel):
    """One fault in the input."""

    pointer: str = Field(
        description="JSON pointer into the body (RFC 6901), or query/NAME, path/NAME, header/NAME",
        examples=["/price/amount"],
    )
    code: str = Field(description="What is wrong, for programs", examples=["too-many-digits"])
    message: str = Field(description="What is wrong, for people")


class Problem(BaseModel):
    """Every error of the service, the framework's own included."""

    type: str = Field(description="Stable address of the problem type; it answers with a description")
    title: str
    status: int
    detail: str = Field(description="What happened in this case, and what to do")
    request_id: str | None = Field(description="Finds the request in the service's log")
    errors: list[ProblemFault]


class ProblemType(BaseModel):
    """A kind of problem that the service can answer with."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.PROBLEM_TYPE]})

    type: str = Field(examples=["/problems/no-price"])
    title: str
    status: int
    description: str
