"""A channel: a way to tell people."""

import base64
import binascii
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.alerts.domain.text import check_text
from services.kit.errors import InvalidArgument

LOG_CHANNEL_ID: Final = "chn_log"
MAX_DISPLAY_NAME: Final = 256
MAX_URL: Final = 2_048
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix, not a secret
# Sizes of a signing key as Standard Webhooks has them.
SECRET_BYTES: Final = 32
_LEAST_SECRET_BYTES: Final = 24
_MOST_SECRET_BYTES: Final = 64
_MOST_SECRET_TEXT: Final = 128


class ChannelKind(Enum):
    """How a channel tells."""

    LOG = "log"
    WEBHOOK = "webhook"


@dataclass(frozen=True)
class Channel:
    """A way to tell people.

    Attributes:
        id: `chn_…`.
        kind: how it tells.
        display_name: the name for people.
        url: where a webhook is sent; empty for the log.
        create_time: when it was added.
    """

    id: str
    kind: ChannelKind
    display_name: str
    url: str
    create_time: datetime


def check_channel(kind: ChannelKind, display_name: str, url: str, secret: str, *, allow_private: bool) -> None:
    """Check what a user sends to add a channel.

    Args:
        kind: how it tells.
        display_name: 1 to 256 bytes.
        url: https and without user and password; http too if `allow_private`. None for the log.
        secret: `whsec_` and base64 of 24 to 64 bytes, or empty.
        allow_private: whether webhooks may go to this network.

    Raises:
        InvalidArgument: names the field that is wrong. It never holds the secret.
    """
    check_text("channel.display_name", display_name, least=1, most=MAX_DISPLAY_NAME)
    if kind is ChannelKind.LOG:
        for name, value in (("url", url), ("secret", secret)):
            if value:
                raise InvalidArgument.at(f"channel.{name}", "belongs to webhooks; leave it out for the log")
        return
    split_webhook_url(url, allow_private=allow_private)
    if secret:
        _check_secret(secret)


def split_webhook_url(url: str, *, allow_private: bool) -> SplitResult:
    """Return the parts of a webhook's URL.

    Raises:
        InvalidArgument: not an absolute https URL (http too if `allow_private`), or one with user or password.
    """
    check_text("channel.url", url, least=1, most=MAX_URL)
    schemes = ("https", "http") if allow_private else ("https",)
    if not url.isascii() or not url.isprintable() or " " in url:
        raise _bad_url("write other than plain ASCII characters percent-encoded, and host names in Punycode")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _bad_url(f"is not a URL: {error}") from None
    if parts.scheme not in schemes:
        hint = "" if allow_private else "; METERSCOPE_ALLOW_PRIVATE_WEBHOOKS=true allows http"
        raise _bad_url(f"starts with {parts.scheme[:16] + ':'!r}; send an https:// URL{hint}")
    if host and not _is_encodable(host):
        raise _bad_url("names a host with a part that is empty or longer than 63 characters")
    if not host or port == 0:
        raise _bad_url("names no host to send to; send a URL such as https://hooks.example.com/alerts")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("holds a user or password; leave it out, requests are signed with the channel's secret")
    if parts.fragment:
        raise _bad_url("holds a fragment, which is never sent; leave out what is behind the #")
    return parts


def new_secret() -> str:
    """Make a signing secret: `whsec_` and base64 of 32 random bytes."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def _is_encodable(host: str) -> bool:
    """Say whether the resolver takes the name (RFC 1035, 2.3.4): it encodes every name, and fails on others."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def _check_secret(secret: str) -> None:
    try:
        known = secret.startswith(SECRET_PREFIX) and len(secret) <= _MOST_SECRET_TEXT
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True) if known else b""
    except (binascii.Error, ValueError):
        key = b""
    if not _LEAST_SECRET_BYTES <= len(key) <= _MOST_SECRET_BYTES:
        raise InvalidArgument.at(
            "channel.secret",
            f"is not {SECRET_PREFIX} and base64 of {_LEAST_SECRET_BYTES} to {_MOST_SECRET_BYTES} bytes; "
            "leave it out to have one made",
            reason="BAD_SECRET",
        )


def _bad_url(description: str) -> InvalidArgument:
    return InvalidArgument.at("channel.url", description, reason="BAD_URL")
