"""The alerts service's errors, one sentence each."""

from services.kit.errors import AlreadyExists, InvalidArgument, NotFound


class AlertNotFound(NotFound):
    """No alert has this id."""

    reason = "ALERT_NOT_FOUND"


class ChannelNotFound(NotFound):
    """No channel has this id."""

    reason = "CHANNEL_NOT_FOUND"


class ChannelExists(AlreadyExists):
    """A channel of this kind and URL is already there."""

    reason = "CHANNEL_EXISTS"


class PrivateWebhook(InvalidArgument):
    """The webhook's URL leads into this network, and no setting allows that."""

    reason = "PRIVATE_WEBHOOK"


class AddressRefused(Exception):
    """A host leads to an address that webhooks may not go to. The message names both."""
