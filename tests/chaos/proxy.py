"""A network that can be cut: a TCP proxy in threads of the test's process."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

#: Makes closing a socket tell the other end at once, by a reset.
AT_ONCE = struct.pack("ii", 1, 0)


class Proxy:
    """Passes connections on to a port of this machine, unless it is cut.

    Parameters
    ----------
    target
        The port.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: Where to connect.
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = self._ended = False
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._run(self._accept)

    def close_all(self) -> None:
        """Close all connections, and new ones, too."""
        self._refuses = True
        self._drop()

    def freeze(self) -> None:
        """Let nothing through, and tell nobody."""
        self._flows.clear()

    def restore(self, *, drops: bool = False) -> None:
        """Undo a cut; what was on its way gets through, or is dropped with its connections."""
        self._refuses = False
        if drops:
            self._drop()
        self._flows.set()

    def close(self) -> None:
        """End."""
        self._ended = True
        self._drop()
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _run(self, target: object, *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def _accept(self) -> None:
        while not self._ended:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                _close(near)
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _close(near)
                continue
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open |= {near, far}
            self._run(self._pass, near, far)
            self._run(self._pass, far, near)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self._flows.wait()
                sink.sendall(data)
        self._flows.wait()
        with self._lock:
            closing = {source, sink} & self._open
            self._open -= closing
        for sock in closing:
            _close(sock)

    def _drop(self) -> None:
        with self._lock:
            # Their threads close them.
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
                    sock.shutdown(socket.SHUT_RDWR)


def _close(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
    sock.close()
