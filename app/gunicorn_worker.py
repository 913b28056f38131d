"""gunicorn's ASGI worker, which also tells the application that the stop begins."""

from gunicorn.workers.gasgi import ASGIWorker


class Worker(ASGIWorker):  # type: ignore[misc]  # gunicorn publishes no types
    """Turns readiness off at the signal; requests in flight go on."""

    def handle_exit_signal(self) -> None:
        """Begin the graceful stop."""
        self.asgi.state.readiness.stop()
        super().handle_exit_signal()
