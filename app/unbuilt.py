"""Models of libraries that are built when they are first used, as ours of answers are."""

import importlib

from pydantic import BaseModel


def import_unbuilt(name: str) -> None:
    """Import a module, and build none of the models that it and what it imports define.

    :param name: its full name. Whatever was imported before stays as it is.
    """
    before = BaseModel.model_config
    # Models inherit what this says when they are defined.
    BaseModel.model_config = {**before, "defer_build": True}
    try:
        importlib.import_module(name)
    finally:
        BaseModel.model_config = before
