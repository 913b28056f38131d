"""What the log must not tell."""

import json
import logging

from app.observability import logs


def test_a_traceback_does_not_tell_of_rows() -> None:
    error = ValueError('null value in column "name"\nDETAIL:  Failing row contains (7, hunter2,\nhunter2).')
    record = logging.LogRecord("app", logging.ERROR, "app.py", 1, "failed", None, (ValueError, error, None))
    line = logs.formatter("json").format(record)
    assert json.loads(line)["exception"][0]["exc_value"] == 'null value in column "name"'
    assert "hunter2" not in line
    group = ExceptionGroup("several", [error])
    record.exc_info = (ExceptionGroup, group, None)
    assert "hunter2" not in logs.formatter("json").format(record)
