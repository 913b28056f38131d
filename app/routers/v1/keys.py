"""Keys, and who the caller is."""

from typing import Annotated

from fastapi import Path, Query, Request, Response, status

from app.access import Scope
from app.dependencies import Actor, CursorCodec, Keys, ReadingOnPrimary, RequestCaller, Writing
from app.errors import DuplicateKeyName, InvalidRequest, TooManyKeys, UnknownKey
from app.exact_json import ExactJsonRoute, requires
from app.idempotency import IDEMPOTENT, STORED_AS
from app.problems import POST_PROBLEMS, responses
from app.routers.headers import CACHE_CONTROL, LOCATION, answer, link, next_page
from app.routing import Router
from app.schemas.key import Key, KeyCreate, KeyList, NewKey, WhoAmI
from app.services import keys

router = Router(tag="keys", route_class=ExactJsonRoute)

Id = Annotated[str, Path(description="The key's id: the part between `pb_` and the secret", max_length=100)]

_LINKS = {
    "key": link("read_key", {"key_id": "$response.body#/id"}),
    "revoke": link("revoke_key", {"key_id": "$response.body#/id"}),
}


@router.post(
    "/keys",
    status_code=status.HTTP_201_CREATED,
    summary="Make a key",
    dependencies=[requires(Scope.ADMIN), IDEMPOTENT],
    responses=responses(DuplicateKeyName, TooManyKeys, InvalidRequest, *POST_PROBLEMS)
    | {201: answer(LOCATION, links=_LINKS)},
)
async def create_key(
    data: KeyCreate, session: Writing, ring: Keys, actor: Actor, request: Request, response: Response
) -> NewKey:
    """The answer's `key` is shown this once: the service keeps no more of it than it takes to recognise it."""
    key = await keys.create(session, data, ring.secret, actor=actor)
    response.headers[LOCATION] = f"{request.url.path}/{key.id}"
    response.headers[CACHE_CONTROL] = "no-store"
    # Sent again with its Idempotency-Key, the request is answered without the secret, which nobody keeps.
    request.scope[STORED_AS] = key.model_copy(update={"key": None}).model_dump_json().encode()
    return key


@router.get(
    "/keys",
    summary="List the keys",
    dependencies=[requires(Scope.ADMIN)],
    responses=responses(InvalidRequest) | {200: answer(links=next_page("list_keys"))},
)
async def list_keys(
    session: ReadingOnPrimary,
    cursors: CursorCodec,
    revoked: Annotated[keys.Revoked, Query(description="Only revoked keys, only others, or both")] = "false",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(description="`next` of the page before; the other parameters stay")] = None,
) -> KeyList:
    """In the order in which they were made. None is deleted: a name and an instant tell which key wrote something."""
    return await keys.list_all(session, revoked=revoked, limit=limit, cursor=cursor, cursors=cursors)


@router.get(
    "/keys/{key_id}",
    summary="Read a key",
    dependencies=[requires(Scope.ADMIN)],
    responses=responses(UnknownKey, InvalidRequest),
)
async def read_key(key_id: Id, session: ReadingOnPrimary) -> Key:
    """Its name and scopes, and until when it is accepted."""
    return await keys.read(session, key_id)


@router.delete(
    "/keys/{key_id}",
    summary="Revoke a key",
    dependencies=[requires(Scope.ADMIN)],
    responses=responses(UnknownKey, InvalidRequest),
)
async def revoke_key(key_id: Id, session: Writing, actor: Actor) -> Key:
    """Every replica refuses it within two seconds. Its name is free for another key then."""
    return await keys.revoke(session, key_id, actor=actor)


@router.get("/whoami", summary="Who am I?", dependencies=[requires()], responses=responses())
async def who_am_i(caller: RequestCaller, ring: Keys, response: Response) -> WhoAmI:
    """The caller as the ledger records it, and what its key allows."""
    response.headers[CACHE_CONTROL] = "no-store"
    return WhoAmI(
        id=caller.id,
        name=caller.name,
        scopes=sorted(caller.scopes),
        expires_at=caller.expires_at,
        auth_required=ring.auth_required,
    )
