"""What peers send, read; the log is told of what is no message, once for each."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence

from aserpc import transport
from aserpc.errors import MessageTooLargeError, ProtocolError
from aserpc.header import unpack_header
from aserpc.messages import Buffer, Message

logger = logging.getLogger(__name__)

#: Peers, and what they may not say, of which the log has told.
MAX_TOLD = 1000


class Reception:
    """Reads messages."""

    def __init__(self) -> None:
        self._told: OrderedDict[bytes, None] = OrderedDict()

    def read(
        self, peer: bytes, frames: Sequence[Buffer], expected: tuple[type[Message], ...], side: str
    ) -> Message:
        """Return the message of some frames; raise `ProtocolError` where they are none."""
        try:
            if not frames:
                msg = "a message without a header"
                raise ProtocolError(msg)
            transport.check_size(frames)
            return unpack_header(frames[0], expected)
        except (ProtocolError, MessageTooLargeError) as error:
            if self.is_new(peer):
                logger.warning("a %s sent what is no message: %s", side, error)
            raise ProtocolError(str(error)) from None

    def is_new(self, what: bytes) -> bool:
        """Whether something is worth a word in the log: it was not told of lately."""
        if what in self._told:
            return False
        self._told[what] = None
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        return True
