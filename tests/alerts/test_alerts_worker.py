import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from alerts_service import AlertsService
from webhook_receiver import Answer, Receiver

from meterscope.alerts.v1 import notification_service_pb2 as pb
from services.alerts.__main__ import build_worker
from services.alerts.settings import Settings

# A process of its own, so that it can be killed; its jobs are taken over after a second.
WORKER = """
import os
from datetime import timedelta
from services.alerts.__main__ import build_worker
from services.alerts.settings import Settings
from services.kit.settings import read
build_worker(read(Settings, os.environ), lease=timedelta(seconds=1)).run_until_signal()
"""


@pytest.fixture
def worker_process(environ: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", WORKER], env={**os.environ, **environ}, stdout=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def test_a_worker_killed_after_sending_leads_to_the_same_webhook_again(
    server: AlertsService, settings: Settings, receiver: Receiver, worker_process: subprocess.Popen[bytes]
) -> None:
    receiver.will_answer("/killed", Answer(204, before=worker_process.kill))
    hook = server.add_webhook(receiver.url("/killed"))
    alert = server.raise_signal()
    assert worker_process.wait(20) != 0
    [unrecorded] = server.notifications_of(alert, hook.id)
    assert (unrecorded.state, unrecorded.attempts) == (pb.NOTIFICATION_STATE_PENDING, 1)

    successor = build_worker(settings, lease=timedelta(seconds=1))
    successor.start()
    ended = server.ended(alert, hook.id)
    successor.stop()
    assert (ended.state, ended.attempts) == (pb.NOTIFICATION_STATE_DELIVERED, 2)
    first, second = receiver.received("/killed")
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == ended.id
