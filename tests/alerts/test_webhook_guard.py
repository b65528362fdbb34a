import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from webhook_receiver import Answer, Receiver

from services.alerts.channels.base import Message
from services.alerts.channels.connection import AddressGuard
from services.alerts.channels.webhook import WebhookChannel
from services.alerts.domain.address import is_public
from services.alerts.domain.alert import Alert, AlertState, LinkBases, Severity, Signal
from services.alerts.domain.channel import Channel, ChannelKind, new_secret
from services.alerts.domain.notification import Notification, NotificationState, Outcome, Verdict

NOW = datetime.now(UTC)
SECRET = new_secret()


class Resolver:
    """Answers with the addresses it was given, one list a question; the last one stays."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def __call__(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def message_to(url: str) -> Message:
    signal = Signal(
        type="payment_failed",
        severity=Severity.ERROR,
        title="payment failed",
        message="",
        data={},
        action_required=True,
        customer_id="cus_1",
        fingerprint="payment_failed:1",
        labels={},
        starts_at=NOW,
        service="payments",
        trace_id="",
    )
    return Message(
        notification=Notification(
            id="ntf_1",
            alert_id="alr_1",
            channel_id="chn_1",
            channel_kind=ChannelKind.WEBHOOK,
            state=NotificationState.PENDING,
            attempts=1,
            last_result="",
            create_time=NOW,
            deliver_time=None,
        ),
        alert=Alert("alr_1", signal, AlertState.FIRING, 1, None),
        channel=Channel("chn_1", ChannelKind.WEBHOOK, "Hook", url, NOW),
        secret=SECRET,
        now=datetime.now(UTC),
    )


def send(url: str, guard: AddressGuard, *, seconds: float = 2) -> Outcome:
    return WebhookChannel(guard, LinkBases(), timeout=timedelta(seconds=seconds)).send(message_to(url))


def test_a_host_is_resolved_once_and_keeps_its_name(receiver: Receiver) -> None:
    resolver = Resolver(["127.0.0.1"], ["192.0.2.1"])
    outcome = send(
        f"http://hooks.example.com:{receiver.port}/named", AddressGuard(allow_private=True, resolve=resolver)
    )
    assert outcome == Outcome(Verdict.TAKEN, "HTTP 204")
    assert resolver.asked == ["hooks.example.com"]
    [request] = receiver.received("/named")
    assert request.headers["host"] == f"hooks.example.com:{receiver.port}"


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["::ffff:127.0.0.1"]])
def test_a_host_that_became_private_is_refused_at_delivery(receiver: Receiver, addresses: list[str]) -> None:
    url = f"https://hooks.example.com:{receiver.port}/rebound"
    outcome = send(url, AddressGuard(allow_private=False, resolve=Resolver(addresses)))
    assert outcome.verdict is Verdict.REFUSED
    assert outcome.result.startswith("refused: hooks.example.com leads to ")
    assert outcome.result.endswith("which is not a public address")
    assert not receiver.received("/rebound")


def test_the_next_address_is_tried_when_one_does_not_answer(receiver: Receiver) -> None:
    with socket.socket() as taken:
        # Bound and not listening: the port on this address refuses.
        taken.bind(("127.0.0.2", receiver.port))
        resolver = Resolver(["127.0.0.2", "127.0.0.1"])
        url = f"http://hooks.example.com:{receiver.port}/second"
        assert send(url, AddressGuard(allow_private=True, resolve=resolver)).verdict is Verdict.TAKEN


def test_a_host_without_an_address_is_tried_again() -> None:
    outcome = send("https://nowhere.invalid/", AddressGuard(allow_private=False))
    assert outcome.verdict is Verdict.FAILED
    assert "cannot resolve nowhere.invalid" in outcome.result


def test_a_receiver_that_drips_is_left_when_the_time_is_over() -> None:
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                # A byte every 50 ms: each read succeeds long before its own timeout.
                while not over.wait(0.05):
                    connection.send(b"H")

        thread = threading.Thread(target=drip)
        thread.start()
        started = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        outcome = send(url, AddressGuard(allow_private=True), seconds=0.4)
        took = time.monotonic() - started
        over.set()
        thread.join()
    assert outcome.verdict is Verdict.FAILED
    assert took < 1.5


def test_an_answer_without_end_is_cut_off(receiver: Receiver) -> None:
    receiver.will_answer("/endless", Answer(200, body=b"x" * 4_000_000))
    outcome = send(receiver.url("/endless"), AddressGuard(allow_private=True))
    assert outcome == Outcome(Verdict.TAKEN, "HTTP 200")


def test_what_a_receiver_says_is_not_shown(receiver: Receiver) -> None:
    receiver.will_answer("/talks", Answer(500, body=b"internal details"))
    assert send(receiver.url("/talks"), AddressGuard(allow_private=True)).result == "HTTP 500"


def test_what_another_server_says_is_not_shown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2 build-host\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        outcome = send(url, AddressGuard(allow_private=True))
        thread.join()
    assert outcome.verdict is Verdict.FAILED
    assert "SSH" not in outcome.result


@pytest.mark.parametrize(
    ("sent", "wait"), [("7", timedelta(seconds=7)), ("-7", None), ("soon", None), ("9" * 30, None), ("", None)]
)
def test_retry_after_is_read_where_it_can_be(receiver: Receiver, sent: str, wait: timedelta | None) -> None:
    receiver.will_answer("/wait", Answer(503, {"Retry-After": sent}))
    assert send(receiver.url("/wait"), AddressGuard(allow_private=True)).retry_after == wait


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for hooks.example.com with its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    subject = ("-subj", "/CN=hooks.example.com", "-addext", "subjectAltName=DNS:hooks.example.com")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls_receiver(certificate: Path) -> Iterator[Receiver]:
    """A receiver behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    running = Receiver(context)
    yield running
    running.close()


@pytest.mark.parametrize(
    ("host", "verdict"), [("hooks.example.com", Verdict.TAKEN), ("other.example.com", Verdict.FAILED)]
)
def test_the_certificate_must_be_the_named_host_s(
    tls_receiver: Receiver, certificate: Path, monkeypatch: pytest.MonkeyPatch, host: str, verdict: Verdict
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    guard = AddressGuard(allow_private=True, resolve=Resolver(["127.0.0.1"]))
    assert send(f"https://{host}:{tls_receiver.port}/", guard).verdict is verdict


def test_a_signature_is_of_the_moment_of_the_attempt(receiver: Receiver) -> None:
    send(receiver.url("/signed"), AddressGuard(allow_private=True))
    [request] = receiver.received("/signed")
    assert request.headers["webhook-id"] == "ntf_1"
    assert Webhook(SECRET).verify(request.body, request.headers)["data"]["id"] == "alr_1"


def test_a_message_never_prints_its_secret() -> None:
    assert SECRET not in repr(message_to("https://hooks.example.com/"))


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("10.0.0.1", False),
        ("172.31.255.255", False),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - an address to refuse
        ("100.64.0.1", False),  # shared by a carrier (RFC 6598)
        ("169.254.169.254", False),  # clouds tell credentials here
        ("192.0.2.1", False),  # documentation
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("2606:4700::1111", True),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("::ffff:93.184.215.14", True),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("64:ff9b::5db8:d70e", True),  # NAT64 of 93.184.215.14
        ("64:ff9b::7f00:1", False),  # NAT64 of 127.0.0.1
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("2001:0:53aa:64c::1", False),  # Teredo
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:  # noqa: FBT001 - a table's column
    assert is_public(address) is public
