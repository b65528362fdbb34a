"""The instruments that every process has, or every process of a kind; each declared once."""

from typing import Final

from services.kit.instruments import Counter, Gauge, Histogram, Label

# 0.5 is the objective of the gateway.
CALL_BOUNDARIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
JOB_STATUSES: Final = ("success", "failed", "dead", "postponed", "lost")
COMPONENTS: Final = ("database", "redis", "usage", "billing", "payments", "alerts")

_SERVICE: Final = Label("service")
_QUEUE: Final = Label("queue")
_JOB: Final = Label("job_name")
_RPC: Final = (Label("rpc.system.name", ("grpc",)), Label("rpc.method"), Label("rpc.response.status_code"))

RPC_SERVER: Final = Histogram(
    "rpc.server.call.duration",
    "Duration of calls that this server answered",
    unit="s",
    labels=_RPC,
    boundaries=CALL_BOUNDARIES,
    alerts=(1,),
)
RPC_CLIENT: Final = Histogram(
    "rpc.client.call.duration",
    "Duration of calls that this process made",
    unit="s",
    labels=_RPC,
    boundaries=CALL_BOUNDARIES,
)
DB_OPERATION: Final = Histogram(
    "db.client.operation.duration",
    "Duration of database statements",
    unit="s",
    labels=(
        Label("db.system.name", ("postgresql",)),
        Label("db.namespace"),
        Label("db.operation.name"),
        Label("error.type", optional=True),
    ),
    boundaries=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10),
    alerts=(1,),
)
DB_POOL: Final = Gauge(
    "billing.db.connection_pool",
    "Connections of a process's pool by status; waiting are those who ask for one",
    labels=(_SERVICE, Label("status", ("idle", "active", "waiting"))),
)
DB_POOL_UTILIZATION: Final = Gauge(
    "billing.db.connection_pool_utilization",
    "Busy connections over the size of a process's pool, 0 to 1",
    labels=(_SERVICE,),
)
AUTH_FAILURES: Final = Counter(
    "billing.auth.failures",
    "Calls that were refused for want of a valid service token, by method",
    labels=(Label("route"),),
)

JOBS: Final = Counter(
    "billing.jobs", "Runs of jobs by how they ended", labels=(_QUEUE, _JOB, Label("status", JOB_STATUSES))
)
JOB_DURATION: Final = Histogram(
    "billing.job.processing.duration",
    "Duration of runs of jobs",
    unit="s",
    labels=(_QUEUE, _JOB, Label("status", JOB_STATUSES)),
    boundaries=(0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300),
    alerts=(300,),
)
JOBS_QUEUED: Final = Gauge("billing.jobs.queued", "Jobs that are not done", labels=(_QUEUE,))
JOBS_STUCK: Final = Gauge(
    "billing.jobs.stuck", "Jobs that are not done five minutes after they were due", labels=(_QUEUE,)
)
JOBS_DEAD: Final = Gauge("billing.jobs.dead", "Jobs that were given up", labels=(_QUEUE,))
LAST_JOB: Final = Gauge(
    "billing.last_job_timestamp",
    "When a periodic job last succeeded, in unix seconds; 0 if it never did",
    labels=(_JOB,),
)
JOB_INTERVAL: Final = Gauge(
    "billing.job.interval", "Time between the starts of two runs of a periodic job", unit="s", labels=(_JOB,)
)
COMPONENT_UP: Final = Gauge(
    "billing.component_up",
    "1 where what this process needs answers it, 0 where it does not",
    labels=(Label("component", COMPONENTS),),
)

PROCESS_CPU_TIME: Final = Counter(
    "process.cpu.time",
    "Processor time of the process",
    unit="s",
    labels=(Label("cpu.mode", ("user", "system")),),
)
PROCESS_CPU_UTILIZATION: Final = Gauge(
    "process.cpu.utilization",
    "Processor time since the last export over what the machine had, 0 to 1",
    unit="1",
)
PROCESS_MEMORY: Final = Gauge("process.memory.usage", "Resident memory of the process", unit="By")
PROCESS_MEMORY_UTILIZATION: Final = Gauge(
    "process.memory.utilization",
    "Resident memory over what the process may have: its container's limit, or the machine's memory; 0 to 1",
    unit="1",
)
PROCESS_THREADS: Final = Gauge("process.thread.count", "Threads of the process", unit="{thread}")
PROCESS_FILES: Final = Gauge(
    "process.unix.file_descriptor.count", "Open file descriptors of the process", unit="{file_descriptor}"
)
PROCESS_UPTIME: Final = Gauge("process.uptime", "Time since the process started", unit="s")
GC_COLLECTIONS: Final = Counter(
    "cpython.gc.collections",
    "Runs of the garbage collector",
    unit="{collection}",
    labels=(Label("cpython.gc.generation", ("0", "1", "2")),),
)
# As the collector's host_metrics receiver names them, which counts the machine where there is an agent on it.
SYSTEM_CPU_UTILIZATION: Final = Gauge(
    "system.cpu.utilization",
    "Share of the time of the machine's processors since the last export by what they did, 0 to 1",
    unit="1",
    labels=(Label("state", ("user", "system", "idle", "wait", "other")),),
)
SYSTEM_MEMORY_UTILIZATION: Final = Gauge(
    "system.memory.utilization",
    "Share of the machine's memory: used cannot be had any more, available can; 0 to 1",
    unit="1",
    labels=(Label("state", ("used", "available")),),
)
DISK_UTILIZATION: Final = Gauge(
    "system.filesystem.utilization",
    "Used share of the disk that the data folder is on (METERSCOPE_DATA_DIR, or else the working folder), 0 to 1",
    unit="1",
    labels=(Label("device"), Label("mountpoint")),
)
DISK_FREE: Final = Gauge(
    "billing.disk.free",
    "Bytes of that disk that may be written yet",
    unit="By",
    labels=(Label("device"), Label("mountpoint")),
)
