"""`python -m gateway`: serves REST, health, documentation and the dashboard until SIGTERM."""

import os
import sys

from gateway.server import Server
from gateway.settings import Settings
from services.kit import logs, telemetry
from services.kit import settings as kit_settings
from services.kit.server import BindError, OpenAddress
from services.kit.settings import SettingsError


def main() -> int:
    """Run the gateway; return the exit status: 78 (EX_CONFIG) for settings that are wrong, 1 for an address in use."""
    try:
        settings = kit_settings.read(Settings, os.environ)
    except SettingsError as error:
        return _refuse(error, os.EX_CONFIG)
    running = telemetry.setup("gateway", settings.kit, role="gateway")
    try:
        Server(settings).run_until_signal()
    except OpenAddress as error:
        return _refuse(error, os.EX_CONFIG)
    except BindError as error:
        return _refuse(error, 1)
    except Exception as error:
        # Here, while it can be sent: the interpreter's hook comes after the shutdown.
        logs.uncaught(error, "interpreter", "uncaught exception")
        raise
    finally:
        running.shutdown()
    return 0


def _refuse(error: Exception, status: int) -> int:
    sys.stderr.write(f"gateway: {error}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
