"""Every exception that aserpc raises.

::

    AserpcError (RuntimeError)
    ├── SettingsError (ValueError)            a bad setting, and where it came from
    ├── RegistryError (ValueError)            a registry, provider or factory that can't be used
    ├── SpawnError                            a worker can't be started as its configuration says
    ├── AddressError (ValueError)             an address that can't be bound or connected to
    ├── KeysError (ValueError)                a key, or the folder of the keys, that can't be used
    ├── NotAllowedError (PermissionError)     the broker does not allow this to your key
    ├── TooManyFilesError (OSError)           no file descriptors left for what is to be done
    ├── ProtocolError (ValueError)            bytes from a peer that are no message of this version
    ├── MessageTooLargeError (ValueError)     refused by the sender, nothing was sent
    ├── PayloadError (TypeError)              a value that the wire has no form for
    ├── NonFiniteError (ValueError)           positions, cell or results that are NaN or infinite
    ├── ServiceError                          the service could not answer; `retries` apply
    │   ├── BrokerUnreachableError (ConnectionError)      nobody answers at the address
    │   ├── BrokerSilentError (TimeoutError, ConnectionError)  the broker stopped answering
    │   ├── BrokerStoppedError (ConnectionError)          the broker said that it stops
    │   ├── BusyError                         more requests wait than may
    │   ├── NoWorkersError                    nobody serves that name
    │   ├── QueueTimeoutError (TimeoutError)  no worker came in `request_queue_timeout`
    │   ├── WorkerLostError (ConnectionError) the workers that had the request were lost
    │   └── WorkerFailedError                 the worker could not make its calculator
    ├── PoisonError                           the workers that computed the request died of it
    ├── CalculationTimeoutError (TimeoutError)  a calculation over its `calculation_timeout`
    ├── DeadlineError (TimeoutError)          the call's own `deadline` has passed
    ├── CancelledRequestError                 the request was cancelled
    └── CalculationError                      the calculator raised; also of the raised type
    LeftOutWarning (UserWarning)              a part of a structure is not sent
"""

from __future__ import annotations

__all__ = [
    "AddressError",
    "AserpcError",
    "BrokerSilentError",
    "BrokerStoppedError",
    "BrokerUnreachableError",
    "BusyError",
    "CalculationError",
    "CalculationTimeoutError",
    "CancelledRequestError",
    "DeadlineError",
    "KeysError",
    "LeftOutWarning",
    "MessageTooLargeError",
    "NoWorkersError",
    "NonFiniteError",
    "NotAllowedError",
    "PayloadError",
    "PoisonError",
    "ProtocolError",
    "QueueTimeoutError",
    "RegistryError",
    "ServiceError",
    "SettingsError",
    "SpawnError",
    "TooManyFilesError",
    "WorkerFailedError",
    "WorkerLostError",
]


class AserpcError(RuntimeError):
    """Base of every error of aserpc."""


class SettingsError(AserpcError, ValueError):
    """A setting with a bad value, an unknown name, or in a broken file."""


class RegistryError(AserpcError, ValueError):
    """A registry, provider or factory that can't be used."""


class SpawnError(AserpcError):
    """A worker can't be started as its configuration says."""


class AddressError(AserpcError, ValueError):
    """An address that can't be bound or connected to."""


class KeysError(AserpcError, ValueError):
    """A key, or the folder of the keys, that can't be used."""


class NotAllowedError(AserpcError, PermissionError):
    """The broker does not allow this to your key, or to anybody without one."""


class TooManyFilesError(AserpcError, OSError):
    """No file descriptors are left, of this process or machine, for what is to be done."""


class ProtocolError(AserpcError, ValueError):
    """Bytes from a peer that are no message of this version."""


class MessageTooLargeError(AserpcError, ValueError):
    """A message over the size limit; the sender refused it and nothing was sent."""


class PayloadError(AserpcError, TypeError):
    """A value that the wire has no form for."""


class NonFiniteError(AserpcError, ValueError):
    """Positions or cell that are NaN or infinite and were not sent, or results that are.

    The message names them. ``allow_nonfinite=True`` passes both.
    """


class ServiceError(AserpcError):
    """The service could not answer; `RemoteCalculator(retries=...)` tries again."""


class BrokerUnreachableError(ServiceError, ConnectionError):
    """Nobody answers at the broker's address."""


class BrokerSilentError(ServiceError, TimeoutError, ConnectionError):
    """The broker stopped answering for longer than the client's timeout."""


class BrokerStoppedError(ServiceError, ConnectionError):
    """The broker stopped while the request waited."""


class BusyError(ServiceError):
    """More requests wait at the broker than may; later there may be room."""


class NoWorkersError(ServiceError):
    """No worker serves the calculator and none is starting."""


class QueueTimeoutError(ServiceError, TimeoutError):
    """The request waited for a worker for longer than `request_queue_timeout`."""


class WorkerLostError(ServiceError, ConnectionError):
    """The workers that had the request were lost, one after the other."""


class WorkerFailedError(ServiceError):
    """A worker could not make its calculator."""


class PoisonError(AserpcError):
    """The workers that computed the request died of it; the message tells how they ended."""


class CalculationTimeoutError(AserpcError, TimeoutError):
    """The calculation took longer than `calculation_timeout` and was ended with its worker.

    The message has the stack where it hung.
    """


class DeadlineError(AserpcError, TimeoutError):
    """The deadline given with the call has passed."""


class CancelledRequestError(AserpcError):
    """The request was cancelled before its answer came."""


class CalculationError(AserpcError):
    """The calculator raised an exception.

    What a client raises is also an instance of the calculator's own exception type where that
    is ASE's or Python's (`SCFError`, `PropertyNotImplementedError`, `ValueError`, ...).

    Attributes
    ----------
    calculator : str
        The name under which it is served.
    remote_type : str
        Qualified name of the exception's type in the worker.
    remote_traceback : str
        The traceback in the worker.
    """

    calculator: str = ""
    remote_type: str = ""
    remote_traceback: str = ""

    def __str__(self) -> str:
        # KeyError, mixed into subclasses, would quote its message.
        return str(self.args[0]) if self.args else ""


class LeftOutWarning(UserWarning):
    """A part of a structure has no form on the wire, and the calculator does not see it."""
