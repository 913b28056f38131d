"""The addresses in the `type` of problem documents."""

from typing import Annotated

from fastapi import Path

from app import errors
from app.errors import NotFound
from app.exact_json import PUBLIC, ExactJsonRoute
from app.problems import responses
from app.routing import Router
from app.schemas.problem import ProblemType

router = Router(prefix="/problems", tag="problems", route_class=ExactJsonRoute)

Slug = Annotated[str, Path(description="The last part of a problem's `type`", examples=["no-price"])]


@router.get("", summary="List the problem types", dependencies=[PUBLIC], responses=responses(public=True))
async def list_problem_types() -> list[ProblemType]:
    """Every kind of problem that this service answers with."""
    return [_describe(kind) for kind in errors.problem_types()]


@router.get(
    "/{slug}", summary="Describe a problem type", dependencies=[PUBLIC], responses=responses(NotFound, public=True)
)
async def read_problem_type(slug: Slug) -> ProblemType:
    """What the problem means and what to do about it."""
    for kind in errors.problem_types():
        if kind.slug == slug:
            return _describe(kind)
    raise NotFound("There is no such problem type. They are listed at /problems.")


def _describe(kind: type[errors.ProblemError]) -> ProblemType:
    return ProblemType(
        type=f"/problems/{kind.slug}",
        title=kind.title,
        status=kind.status,
        description=(kind.__doc__ or "").strip(),
    )
