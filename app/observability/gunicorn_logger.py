"""gunicorn's own messages, sent through the service's log."""

from typing import Any

from gunicorn.glogging import Logger as GunicornLogger


class Logger(GunicornLogger):  # type: ignore[misc]  # gunicorn publishes no types
    """Hands records to the root logger instead of writing them itself."""

    def setup(self, cfg: Any) -> None:
        """Undo what gunicorn sets up for itself."""
        super().setup(cfg)
        self.error_log.handlers = []
        self.error_log.propagate = True
