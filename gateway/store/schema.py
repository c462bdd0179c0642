"""The tables, once for SQLite and PostgreSQL. ``migrations/`` makes them; a test holds that both say the same.

Times are UTC microseconds since 1970 (``_us``) in one integer type on both, durations are milliseconds (``_ms``). Ids are made by the
gateway, 24 hex digits that sort by time. JSON is text that the gateway wrote. Search (FTS5, a GIN index) and the days' partitions of
``requests`` on PostgreSQL are the migrations' and the janitor's own: SQLAlchemy cannot say them for both.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

HISTOGRAM_BUCKETS = 40
"""Of TTFT and of duration: bucket i ends at 2 ** (i / 2) ms, so they reach from 1 ms to 12 minutes; the last takes what is longer."""
FIRST_TOKEN = [f"t{number:02}" for number in range(HISTOGRAM_BUCKETS)]
DURATION = [f"x{number:02}" for number in range(HISTOGRAM_BUCKETS)]

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = String(32)
_ROWID = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER PRIMARY KEY

sessions = Table(
    "sessions",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("owner", String(128), nullable=False),  # a principal; empty where nobody has to say who they are
    Column("kind", String(16), nullable=False),  # chat, or conversation: several models
    Column("title", Text, nullable=False),
    Column(
        "title_words", Text, nullable=False
    ),  # in lower case, each between spaces: what a search for titles looks at
    Column("model", String(256)),
    Column("host", String(64)),  # the host it is pinned to
    Column("system", Text),
    Column("options", Text, nullable=False),  # JSON object
    Column("settings", Text),  # JSON object: a conversation's participants, mode and limits
    Column("pinned", Boolean, nullable=False),
    Column("archived", Boolean, nullable=False),
    Column("leaf", Integer),  # seq of the last message of the branch that is shown
    Column("next_seq", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),  # characters of all its messages
    Column("running", _ID),  # the generation (or conversation) that writes to it now
    Column("replica", String(40)),  # that runs it
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("erase_us", BigInteger),  # it is deleted, and erased then; until then it can be brought back
    Index("ix_sessions_listed", "owner", "archived", "pinned", "updated_us", "id"),
    Index(None, "erase_us", sqlite_where=text("erase_us IS NOT NULL"), postgresql_where=text("erase_us IS NOT NULL")),
    Index(None, "running", sqlite_where=text("running IS NOT NULL"), postgresql_where=text("running IS NOT NULL")),
)

messages = Table(
    "messages",
    metadata,
    Column(
        "id", _ROWID, primary_key=True, autoincrement=True
    ),  # what the search index points at: it must survive a VACUUM
    Column("session_id", _ID, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("seq", Integer, nullable=False),  # from 0, in the order of writing
    Column("parent", Integer),  # seq of the message before it in its branch
    Column("role", String(16), nullable=False),
    Column("name", String(128)),  # of the participant who speaks, or of the tool that answers
    Column("content", Text, nullable=False),
    Column("thinking", Text),
    Column("images", Text),  # JSON list of base64
    Column("tool_calls", Text),  # JSON list
    Column("model", String(256)),
    Column("host", String(64)),
    Column("state", String(12), nullable=False),
    Column("error", Text),  # in words, where state is error
    Column("generation", _ID),  # id of its row in requests
    Column("input_tokens", Integer),
    Column("output_tokens", Integer),
    Column("queue_ms", Double),
    Column("ttft_ms", Double),
    Column("total_ms", Double),
    Column("load_ms", Double),
    Column("prefill_ms", Double),
    Column("decode_ms", Double),
    Column("created_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("thinking_ms", Double),  # from the first thought to the first word
    UniqueConstraint("session_id", "seq"),
    CheckConstraint("state IN ('streaming', 'done', 'stopped', 'error')", name="state"),
    sqlite_autoincrement=True,
)

requests = Table(
    "requests",
    metadata,
    Column("ts_us", BigInteger, primary_key=True),  # received
    Column("id", _ID, primary_key=True),
    Column("replica", String(40), nullable=False),
    Column("session", String(128)),
    Column("principal", String(128), nullable=False),
    Column("client", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("requested_model", String(256), nullable=False),
    Column("host", String(64)),
    Column("dialect", String(16), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("operation", String(32), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("detached", Boolean, nullable=False),  # it ran on without its caller
    Column("outcome", String(16), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("phase", String(12), nullable=False),
    Column("cancelled_by", String(20)),
    Column("status", SmallInteger, nullable=False),
    Column("cold", Boolean, nullable=False),
    Column("queue_ms", Double, nullable=False),
    Column("ttft_ms", Double),
    Column("total_ms", Double, nullable=False),
    Column("max_gap_ms", Double, nullable=False),
    Column("load_ms", Double, nullable=False),
    Column("prefill_ms", Double, nullable=False),
    Column("decode_ms", Double, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("output_tokens", Integer, nullable=False),
    Column("reported", Boolean, nullable=False),  # tokens as the host told them; else counted by the gateway
    Column("chunks", Integer, nullable=False),
    Column("bytes_in", BigInteger, nullable=False),
    Column("bytes_out", BigInteger, nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("route_reason", String(20)),
    Column("predicted_ms", Double),
    Column("runner_up", String(64)),
    Column(
        "detail", Text
    ),  # JSON: attempts, costs and hosts left out, where there is more to tell than one plain attempt, or somebody may ask: detached
    Column("priority", String(12), nullable=False, server_default="normal"),  # older gateways do not say it
    # No other index: one more made inserts 9 times slower and retention 50 times.
    Index(
        "ix_requests_not_ok", "ts_us", sqlite_where=text("outcome <> 'ok'"), postgresql_where=text("outcome <> 'ok'")
    ),
    sqlite_with_rowid=False,
    postgresql_partition_by="RANGE (ts_us)",
)


def _rollup(name: str) -> Table:
    """Sums over one bucket of time; histograms count answers with a first token (t) and all (x)."""
    counts = [Column(bucket, Integer, nullable=False, server_default="0") for bucket in (*FIRST_TOKEN, *DURATION)]
    return Table(
        name,
        metadata,
        Column("bucket", Integer, primary_key=True, autoincrement=False),  # minutes, or hours, since 1970
        Column("model", String(256), primary_key=True),
        Column("host", String(64), primary_key=True),  # empty: no host was reached
        Column("principal", String(128), primary_key=True),
        Column("outcome", String(16), primary_key=True),
        Column("n", Integer, nullable=False),
        Column("cold_n", Integer, nullable=False),
        Column("ttft_n", Integer, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("decoded_tokens", BigInteger, nullable=False),  # those whose decode_ms the host told
        Column("decode_ms", Double, nullable=False),
        Column("queue_ms", Double, nullable=False),
        Column("ttft_ms", Double, nullable=False),
        Column("total_ms", Double, nullable=False),
        *counts,
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 70},
    )


rollup_1m = _rollup("rollup_1m")
rollup_1h = _rollup("rollup_1h")

ingest_batches = Table(
    "ingest_batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
)
"""Batches of requests that are stored: one that is written again after an unknown end counts once."""

replicas = Table(
    "replicas",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("started_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)

replica_leases = Table(
    "replica_leases",
    metadata,
    Column("replica", String(40), primary_key=True),
    Column("host", String(64), primary_key=True),
    Column("leases", Integer, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
)
"""UNLOGGED on PostgreSQL: what it tells is a second old at most."""

cancellations = Table(
    "cancellations",
    metadata,
    Column("id", _ROWID, primary_key=True, autoincrement=True),
    Column("target", String(128), nullable=False),  # a generation's id, or a session's
    Column("erased", Boolean, nullable=False),  # a session that was deleted
    Column("asked_by", String(40), nullable=False),  # the replica
    Column("asked_us", BigInteger, nullable=False),
    Column("whose", String(128)),  # the principal whose are meant; null: everybody's
    sqlite_autoincrement=True,
)
"""What one gateway asked the others to stop. NOTIFY tells of it; the row is for those who could not hear."""

host_states = Table(
    "host_states",
    metadata,
    Column("host", String(64), primary_key=True),
    Column("draining", Boolean, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
)

measured = Table(
    "measured",
    metadata,
    Column("host", String(64), primary_key=True),  # empty: wherever the model is
    Column("digest", String(128), primary_key=True),  # empty: the host as a whole
    Column("what", String(20), primary_key=True),
    Column("url", Text, nullable=False),  # where the host was then
    Column("value", Double, nullable=False),  # in the unit of what
    Column("weight", Double, nullable=False),  # samples, as of measured_us
    Column("measured_us", BigInteger, nullable=False),
)
"""What hosts and models were measured to be: routing begins with it."""
keys = Table(
    "keys",
    metadata,
    Column("name", String(64), primary_key=True),  # the principal: whose the key is
    Column("role", String(16), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),  # all that is kept of the key itself
    Column("models", Text, nullable=False),  # JSON list of patterns
    Column("hosts", Text, nullable=False),
    Column("expires_us", BigInteger, nullable=False),  # 0: never
    Column("created_us", BigInteger, nullable=False),
    Column("limits", Text, nullable=False, server_default="{}"),  # JSON object: what differs from no limits
    Column("revoked_us", BigInteger, nullable=False, server_default="0"),  # 0: it is good; else it is kept for its name
)

key_usage = Table(
    "key_usage",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),  # since 1970, UTC
    Column("principal", String(128), primary_key=True),
    Column("replica", String(40), primary_key=True),  # that counted it: each writes what it has counted itself
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("minute_requests", Integer, nullable=False),  # in the minute before seen_us
    Column("minute_tokens", BigInteger, nullable=False),
    Column("running", Integer, nullable=False),  # generations that waited or ran then
    Column("seen_us", BigInteger, nullable=False),
)
"""What keys have used of their limits and budgets."""

audit = Table(
    "audit",
    metadata,
    Column("id", _ROWID, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("principal", String(128), nullable=False),  # empty: somebody without a key
    Column("role", String(16), nullable=False),
    Column("client", String(64), nullable=False),  # the address; empty: the command line
    Column("operation", String(64), nullable=False),
    Column("target", String(256), nullable=False),
    Column("status", Integer, nullable=False),
    Index("ix_audit_at_us", "at_us"),
    sqlite_autoincrement=True,
)
"""Who did what that changes models, hosts or keys."""

meta = Table(
    "meta",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
