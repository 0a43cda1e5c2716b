"""Which keys a connection to a broker takes."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from aserpc import tcp
from aserpc.errors import KeysError
from aserpc.security.folder import KeyFolder
from aserpc.security.keys import PublicKey, SecretKey, check_curve, parse_public
from aserpc.settings import Settings, load_settings
from aserpc.transport import Curve

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """One's own key, and the broker's."""

    own: SecretKey
    broker: PublicKey

    def curve(self) -> Curve:
        """Return what a socket needs."""
        return Curve(self.broker.value, self.own.public.value, self.own.value)


def find_credentials(
    address: str, role: str, settings: Settings | None = None
) -> Credentials | None:
    """Return the keys for a connection; None for one on this machine, or where there are no keys.

    Parameters
    ----------
    address
        The broker's.
    role
        Of whoever connects.
    settings
        They say where the keys are; loaded by default.

    Raises
    ------
    KeysError
        If there are some keys, but not all that it takes.
    """
    if not address.startswith(tcp.SCHEME):
        return None
    settings = settings or load_settings()
    folder = KeyFolder(settings.keys_dir)
    own, brokers = folder.for_role(role), folder.brokers()
    if own is None and not brokers and not settings.broker_key:
        logger.warning(
            "connecting to %s without keys: whoever is on the way can read and change what is sent",
            address,
        )
        return None
    check_curve()
    if own is None:
        msg = (
            f"{address} takes a key of the role {role!r}, and {folder.path} has none; make one: "
            f"aserpc keys new --role {role}"
        )
        raise KeysError(msg)
    return Credentials(own, _choose(address, brokers, settings))


def _choose(address: str, brokers: list[PublicKey], settings: Settings) -> PublicKey:
    wanted = settings.broker_key
    if wanted:
        named = next((key for key in brokers if key.name == wanted), None)
        if named is not None:
            return named
        try:
            return parse_public(wanted, role="broker")
        except KeysError as error:
            there = ", ".join(key.name for key in brokers) or "none"
            msg = f"broker_key is no name of a broker that is allowed ({there}), and {error}"
            raise KeysError(msg) from None
    host, _ = tcp.check_tcp(address, binds=False)
    if len(brokers) > 1:
        brokers = [key for key in brokers if key.name in (host, host.partition(".")[0])] or brokers
    if len(brokers) == 1:
        return brokers[0]
    if brokers:
        there = " or ".join(key.name for key in brokers)
        msg = f"which broker is at {address}? Set ASERPC_BROKER_KEY to {there}"
        raise KeysError(msg)
    msg = (
        f"the key of the broker at {address} is not known here. `aserpc keys list` on its machine "
        "shows it; then, here: aserpc keys allow KEY"
    )
    raise KeysError(msg)
