import base64
from collections.abc import Callable
from dataclasses import replace

import grpc
import pytest
from alerts_service import AlertsService, Refusal, refusal

from meterscope.alerts.v1 import channel_service_pb2 as pb
from services.alerts.__main__ import MIGRATIONS, SERVICE
from services.alerts.settings import Settings
from services.kit.migrate import migrate

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


def webhook(url: str, *, display_name: str = "Hook", secret: str = "", request_id: str = "") -> pb.CreateChannelRequest:
    channel = pb.Channel(kind=pb.CHANNEL_KIND_WEBHOOK, display_name=display_name, url=url, secret=secret)
    return pb.CreateChannelRequest(channel=channel, request_id=request_id)


@pytest.fixture(scope="module")
def careful(serve: Callable[[Settings], AlertsService], settings: Settings) -> AlertsService:
    """A server with the default: webhooks go to public addresses only."""
    return serve(replace(settings, allow_private_webhooks=False))


def refused_channel(server: AlertsService, request: pb.CreateChannelRequest) -> Refusal:
    return refusal(lambda: server.channels.CreateChannel(request))


def test_the_log_channel_is_always_there_and_first(server: AlertsService) -> None:
    listed = server.channels.ListChannels(pb.ListChannelsRequest()).channels
    assert (listed[0].id, listed[0].kind) == ("chn_log", pb.CHANNEL_KIND_LOG)


def test_a_second_log_channel_is_refused(server: AlertsService) -> None:
    channel = pb.Channel(kind=pb.CHANNEL_KIND_LOG, display_name="Log")
    refused = refused_channel(server, pb.CreateChannelRequest(channel=channel))
    assert refused.code is grpc.StatusCode.ALREADY_EXISTS


def test_a_secret_is_made_and_shown_once(server: AlertsService) -> None:
    made = server.channels.CreateChannel(webhook("https://hooks.example.com/made"))
    assert made.id.startswith("chn_")
    assert made.secret.startswith("whsec_")
    assert len(base64.b64decode(made.secret.removeprefix("whsec_"))) == 32
    shown = server.channels.GetChannel(pb.GetChannelRequest(channel_id=made.id))
    assert shown.secret == ""
    assert (shown.url, shown.display_name) == ("https://hooks.example.com/made", "Hook")
    listed = server.channels.ListChannels(pb.ListChannelsRequest()).channels
    assert made.id in [channel.id for channel in listed]
    assert not any(channel.secret for channel in listed)


def test_a_given_secret_is_kept(server: AlertsService) -> None:
    made = server.channels.CreateChannel(webhook("https://hooks.example.com/given", secret=SECRET))
    assert made.secret == SECRET


@pytest.mark.parametrize(
    "secret",
    [
        "k" * 32,
        "whsec_",
        "whsec_" + base64.b64encode(b"k" * 23).decode(),
        "whsec_" + base64.b64encode(b"k" * 65).decode(),
        "whsec_not base64!",
        "whsec_" + "ü" * 32,
    ],
)
def test_a_malformed_secret_is_refused_and_not_repeated(server: AlertsService, secret: str) -> None:
    refused = refused_channel(server, webhook("https://hooks.example.com/bad", secret=secret))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith("channel.secret")
    assert secret == "whsec_" or secret not in refused.details


def test_one_channel_a_url(server: AlertsService) -> None:
    server.channels.CreateChannel(webhook("https://hooks.example.com/one"))
    refused = refused_channel(server, webhook("https://hooks.example.com/one"))
    assert refused.code is grpc.StatusCode.ALREADY_EXISTS
    assert "https://hooks.example.com/one" in refused.details


def test_the_same_request_gets_the_same_channel_and_secret(server: AlertsService) -> None:
    request = webhook("https://hooks.example.com/repeated", request_id="create-1")
    assert server.channels.CreateChannel(request) == server.channels.CreateChannel(request)
    other = webhook("https://hooks.example.com/other", request_id="create-1")
    assert refused_channel(server, other).code is grpc.StatusCode.ALREADY_EXISTS


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "https://",
        "https:///path",
        "https://user:password@hooks.example.com/",
        "https://hooks.example.com/#part",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com:0/",
        "https://[::1/",
        "https://hooks..example.com/",
        f"https://{'l' * 64}.example.com/",
        "https://hooks.example.com/a b",
        "https://hooks.example.com/\n",
        "https://hööks.example.com/",
        "https://hooks.example.com/\0",
        "https://hooks.example.com/" + "p" * 2048,
    ],
)
def test_a_url_that_cannot_be_posted_to_is_refused(server: AlertsService, url: str) -> None:
    refused = refused_channel(server, webhook(url))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith("channel.url")


@pytest.mark.parametrize("name", ["", "n" * 257, "nul\0"])
def test_a_wrong_name_is_refused(server: AlertsService, name: str) -> None:
    refused = refused_channel(server, webhook("https://hooks.example.com/named", display_name=name))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith("channel.display_name")


@pytest.mark.parametrize("kind", [pb.CHANNEL_KIND_UNSPECIFIED, 9])
def test_an_unknown_kind_is_refused(server: AlertsService, kind: pb.ChannelKind.ValueType) -> None:
    refused = refused_channel(server, pb.CreateChannelRequest(channel=pb.Channel(kind=kind, display_name="Hook")))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith("channel.kind")


def test_plain_http_is_refused_by_default(careful: AlertsService) -> None:
    refused = refused_channel(careful, webhook("http://hooks.example.com/"))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "https" in refused.details


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://localhost/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
    ],
)
def test_a_private_address_is_refused_by_default_and_the_message_says_what_to_do(
    careful: AlertsService, url: str
) -> None:
    refused = refused_channel(careful, webhook(url))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.details.startswith("channel.url")
    assert "not a public address" in refused.details
    assert "METERSCOPE_ALLOW_PRIVATE_WEBHOOKS" in refused.details


def test_a_channel_that_is_not_there_is_not_found(server: AlertsService) -> None:
    refused = refusal(lambda: server.channels.GetChannel(pb.GetChannelRequest(channel_id="chn_none")))
    assert refused.code is grpc.StatusCode.NOT_FOUND


def test_channels_are_listed_in_the_order_of_their_creation_in_pages(server: AlertsService) -> None:
    added = [server.channels.CreateChannel(webhook(f"https://hooks.example.com/page/{n}")).id for n in range(3)]
    seen, token = [], ""
    while True:
        page = server.channels.ListChannels(pb.ListChannelsRequest(page_size=2, page_token=token))
        assert len(page.channels) <= 2
        seen += [channel.id for channel in page.channels]
        if not (token := page.next_page_token):
            break
    assert seen[0] == "chn_log"
    assert seen[-3:] == added
    assert len(seen) == len(set(seen))


def test_a_secret_is_never_logged(server: AlertsService, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        server.channels.CreateChannel(webhook("https://hooks.example.com/quiet", secret=SECRET))
        refused_channel(server, webhook("https://hooks.example.com/quiet", secret=SECRET))
    assert SECRET not in caplog.text
    assert SECRET not in "".join(str(vars(record)) for record in caplog.records)


def test_migrating_again_adds_no_second_log(settings: Settings, server: AlertsService) -> None:
    migrate(settings.database_url, settings.database_schema, MIGRATIONS, SERVICE)
    listed = server.channels.ListChannels(pb.ListChannelsRequest()).channels
    assert [channel.id for channel in listed if channel.kind == pb.CHANNEL_KIND_LOG] == ["chn_log"]
