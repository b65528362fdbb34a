"""`python -m gateway`: serves REST, health, documentation and the dashboard until SIGTERM."""

import os
import sys
from typing import Final

from gateway.server import Server
from gateway.settings import Settings
from services.kit import settings as kit_settings
from services.kit import telemetry
from services.kit.server import BindError
from services.kit.settings import SettingsError

_CONFIG: Final = 78  # EX_CONFIG of sysexits.h


def main() -> int:
    """Run the gateway; return the exit status."""
    try:
        settings = kit_settings.read(Settings, os.environ)
    except SettingsError as error:
        return _refuse(error)
    running = telemetry.setup("gateway", settings.kit, role="gateway")
    try:
        Server(settings).run_until_signal()
    except BindError as error:
        return _refuse(error)
    finally:
        running.shutdown()
    return 0


def _refuse(error: Exception) -> int:
    print(f"gateway: {error}", file=sys.stderr)  # noqa: T201 - telemetry may not be set up, a terminal may be there
    return _CONFIG


if __name__ == "__main__":
    sys.exit(main())
