"""The usual stack of tutorials: FastAPI, an async SQLAlchemy session per request, one table, one row per item."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine(
    os.environ["DATABASE_URL"], pool_size=int(os.environ["DATABASE_POOL_SIZE"]), max_overflow=0
)
SessionLocal = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    """Declarative base."""


class Item(Base):
    """An item with its price."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str | None]
    price: Mapped[float]
    tax: Mapped[float | None]


class ItemCreate(BaseModel):
    """A new item."""

    name: str
    description: str | None = None
    price: float
    tax: float | None = None


class ItemRead(ItemCreate):
    """An item as answered."""

    model_config = ConfigDict(from_attributes=True)

    id: int


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Create the table at the start, close the connections at the end."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


async def get_session() -> AsyncIterator[AsyncSession]:
    """The session of one request."""
    async with SessionLocal() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


@app.post("/items/", response_model=ItemRead)
async def create_item(data: ItemCreate, session: Session) -> Item:
    """Create an item."""
    item = Item(**data.model_dump())
    session.add(item)
    await session.commit()
    return item


@app.get("/items/", response_model=list[ItemRead])
async def list_items(session: Session, offset: int = 0, limit: int = 100) -> list[Item]:
    """List items."""
    return list((await session.scalars(select(Item).order_by(Item.id).offset(offset).limit(limit))).all())


@app.get("/items/{item_id}", response_model=ItemRead)
async def read_item(item_id: int, session: Session) -> Item:
    """Read an item."""
    item = await session.get(Item, item_id)
    if item is None:
        raise HTTPException(status_code=404, detail="Item not found")
    return item
