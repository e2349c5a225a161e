"""What a test that is also a measurement leaves behind: a record of what it checked.

If KV_HARNESS_RECORDS names a file, each record is appended to it as one line of JSON, in one write:
whatever happens next, the file holds whole records.  `python -m harness.measure` reads them.
"""

import json
import os
from contextlib import contextmanager

from allocators.base import Unsupported
from harness.measure.job import one_line
from harness.measure.steps.checks import VARIABLE


@contextmanager
def recorded(kind, **facts):
    """Yield a record of `facts` to be added to, and leave it when the block has ended.

    Its status is ok unless the block says otherwise, unsupported where something was refused with
    a reason (which is no error), failed after any other exception.  A block that is interrupted
    has checked nothing and leaves no record.
    """
    record = {**facts, "status": "ok", "reason": ""}
    try:
        yield record
    except Unsupported as refusal:
        record |= {"status": "unsupported", "reason": str(refusal)}
    except Exception as error:
        if record["status"] == "ok":
            record |= {"status": "failed", "reason": one_line(error)}
        leave(kind, record)
        raise
    leave(kind, record)


def leave(kind, record):
    """Append a record, if records are wanted."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps({"kind": kind, **record}) + "\n").encode())
    finally:
        os.close(descriptor)
