"""Adding and showing channels."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa

from meterscope.alerts.v1.channel_service_pb2 import Channel as ChannelMessage
from meterscope.alerts.v1.channel_service_pb2 import CreateChannelRequest
from services.alerts import store
from services.alerts.channels.connection import AddressGuard
from services.alerts.convert import channel_to_proto
from services.alerts.domain.channel import Channel, ChannelKind, check_channel, new_secret, split_webhook_url
from services.alerts.domain.text import check_text
from services.alerts.errors import AddressRefused, ChannelExists, ChannelNotFound, PrivateWebhook
from services.alerts.usecases import page
from services.kit import paging
from services.kit.db import Database
from services.kit.idempotency import once
from services.kit.ids import new_id

_log = logging.getLogger(__name__)


class Channels:
    """The ways in which people are told."""

    def __init__(self, database: Database, *, guard: AddressGuard, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._guard = guard
        self._clock = clock

    def create(self, kind: ChannelKind, request: CreateChannelRequest) -> ChannelMessage:
        """Add a channel and return it with its secret, for this once.

        Raises:
            InvalidArgument: names the field that is wrong.
            PrivateWebhook: the URL leads to an address that is not public.
            ChannelExists: one of the same kind and URL is there.
            RequestIdReused: the `request_id` came with another channel before.
        """
        wanted = request.channel
        check_channel(kind, wanted.display_name, wanted.url, wanted.secret, allow_private=self._guard.allow_private)
        if kind is ChannelKind.WEBHOOK:
            self._refuse_private(wanted.url)
        with self._database.transaction() as conn:
            return once(
                conn,
                method="ChannelService.CreateChannel",
                request_id=request.request_id,
                request=request,
                response_type=ChannelMessage,
                act=lambda: self._add(conn, kind, wanted),
            )

    def get(self, channel_id: str) -> Channel:
        """Return a channel.

        Raises:
            ChannelNotFound: there is none.
        """
        check_text("channel_id", channel_id, least=1, most=page.MAX_ID)
        with self._database.transaction() as conn:
            channel = store.find_channel(conn, channel_id)
        if channel is None:
            raise ChannelNotFound(f"there is no channel {channel_id!r}", metadata={"channel_id": channel_id})
        return channel

    def list(self, *, page_size: int, page_token: str) -> tuple[Sequence[Channel], str]:
        """Return a page of channels in the order of their creation, and the next page's token.

        Raises:
            InvalidArgument: names the field that is wrong.
        """
        size = paging.page_size(page_size)
        after = page.position(page_token, {})
        with self._database.transaction() as conn:
            found = store.list_channels(conn, after=after, limit=size + 1)
        return page.cut(found, size, {})

    def _add(self, conn: sa.Connection, kind: ChannelKind, wanted: ChannelMessage) -> ChannelMessage:
        channel = Channel(new_id("chn"), kind, wanted.display_name, wanted.url, self._clock())
        secret = "" if kind is ChannelKind.LOG else wanted.secret or new_secret()
        if not store.insert_channel(conn, channel, secret):
            where = f" to {wanted.url}" if wanted.url else ""
            raise ChannelExists(f"there is a {kind.value} channel{where} already; one is enough")
        return channel_to_proto(channel, secret)

    def _refuse_private(self, url: str) -> None:
        """Tell at once what every delivery would find. A name without an address may get one before the first."""
        parts = split_webhook_url(url, allow_private=self._guard.allow_private)
        try:
            self._guard.addresses(parts.hostname or "", parts.port or 0)
        except AddressRefused as error:
            raise PrivateWebhook.at(
                "channel.url", f"{error}; METERSCOPE_ALLOW_PRIVATE_WEBHOOKS=true allows that"
            ) from None
        except OSError as error:
            _log.info("the webhook's host has no address yet", extra={"host": parts.hostname, "error": str(error)})
