"""PostgreSQL and Valkey out of Python packages: the same programs as in production, in a folder, on loopback.

`meterscope up` runs `python -m services.kit.embedded postgres --data-dir D --port N`, which prepares the folder and
then *becomes* the server, so that the process that was started is the server itself. Tests use `start_postgres` and
`start_valkey`.
"""

from services.kit.embedded.errors import EmbeddedError
from services.kit.embedded.server import EmbeddedPostgres, EmbeddedValkey, start_postgres, start_valkey

__all__ = ["EmbeddedError", "EmbeddedPostgres", "EmbeddedValkey", "start_postgres", "start_valkey"]
