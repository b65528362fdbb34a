"""What every channel does, and what it is given."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from services.alerts.domain.alert import Alert
from services.alerts.domain.channel import Channel
from services.alerts.domain.notification import Notification, Outcome


@dataclass(frozen=True)
class Message:
    """One attempt to tell people of an alert.

    Attributes:
        notification: its id is the same at every attempt, so that a receiver can take it once.
        alert: what it is about.
        channel: where it goes.
        secret: signs it. Empty where nothing is signed; never printed.
        now: the time of the attempt.
    """

    notification: Notification
    alert: Alert
    channel: Channel
    secret: str
    now: datetime

    def __repr__(self) -> str:
        return f"Message({self.notification.id})"


class Sender(Protocol):
    """Sends messages of one kind of channel."""

    def send(self, message: Message) -> Outcome:
        """Send, and say what came of it: taken, failed (to be tried again) or refused (never again)."""
