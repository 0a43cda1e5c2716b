"""A structure that is submitted: its request, its future, and how its end becomes results."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future
from functools import cached_property
from typing import Any

from aserpc.client import blocking, io_thread
from aserpc.client.failures import to_exception
from aserpc.client.guards import check_complete, check_results
from aserpc.client.provenance import provenance
from aserpc.client.state import Effect, Resolve
from aserpc.messages import Answer, Request
from aserpc.payload import PackedAtoms, unpack_results


class Results(dict[str, Any]):
    """A calculator's results: {property: value}."""

    def __init__(self, values: Mapping[str, Any], answer: Answer) -> None:
        super().__init__(values)
        self._answer = answer

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where they come from, see `RemoteCalculator.provenance`."""
        # What a worker tells of itself is longer than most results: few look at it.
        return provenance(self._answer)

    def with_known(self, known: Mapping[str, Any]) -> Results:
        """Return these with others of the same structure."""
        return Results({**known, **self}, self._answer)


class Submission:
    """A request with its future.

    One object of few parts: there may be thousands, which the collector of garbage looks through.

    Parameters
    ----------
    request
        The request.
    packed
        Its structure.
    timeout
        Seconds of the broker's silence after which it is given up.
    allow_nonfinite
        Whether results may be NaN or infinite.
    """

    __slots__ = ("_allow_nonfinite", "_packed", "_request", "_thread", "_timeout", "future")

    def __init__(
        self, request: Request, packed: PackedAtoms, timeout: float, *, allow_nonfinite: bool
    ) -> None:
        self.future: Future[Results] = Future()
        self._request = request
        #: None once the end is known.
        self._packed: PackedAtoms | None = packed
        self._timeout = timeout
        self._allow_nonfinite = allow_nonfinite

    def begin(self, broker: str) -> Future[Results]:
        """Have the process's thread for a broker send it; return its future."""
        future = self.future
        self._thread = io_thread.submit(broker, self._request.key, self._send, self._ended)
        future.add_done_callback(self._done)
        return future

    def _send(self, channel: blocking.Channel) -> list[Effect]:
        request, packed = self._request, self._packed
        if packed is None:  # it is cancelled already
            return []
        payload, now = packed.frames(), time.monotonic()
        return channel.state.submit(request, payload, now, self._timeout, request.deadline)

    def _ended(self, end: Resolve) -> None:
        future = self.future
        if not future.set_running_or_notify_cancel():  # a cancelled one is left as it is
            self._forget()
            return
        try:
            results = self._results(end)
        except Exception as error:  # noqa: BLE001 -- it is this request's, not the thread's
            future.set_exception(error)
        else:
            future.set_result(results)
        finally:
            del future  # of which this is part, by the traceback of its exception

    def _results(self, end: Resolve) -> Results:
        """Return the results that the request has ended with, or raise its error."""
        if end.error is not None:
            raise end.error
        assert end.answer is not None
        name, names = self._request.calculator, self._request.properties
        if end.answer.error is not None:
            raise to_exception(end.answer.error, name)
        results = Results(unpack_results(end.payload), end.answer)
        check_complete(results, name, names)
        if not self._allow_nonfinite and self._packed is not None:
            check_results(results, name, names, self._packed)
        return results

    def _done(self, future: Future[Results]) -> None:
        if not future.cancelled():
            self._forget()
        elif self._thread.cancel(self._request.key):
            # Nobody else will: without it `wait` and `as_completed` would wait for ever.
            future.set_running_or_notify_cancel()
            self._forget()
        # Else `_ended` is about to.

    def _forget(self) -> None:
        """Let go of the future, which keeps its callbacks and so this, and of the structure."""
        del self.future
        self._packed = None
