"""Everything, as the first release has it."""

import sqlite3

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables, and what SQLAlchemy cannot say for both: search, the first partition."""
    _sessions()
    _messages()
    _requests()
    _rollup("rollup_1m")
    _rollup("rollup_1h")
    _small_ones()
    if op.get_bind().dialect.name == "sqlite":
        _sqlite_search()
    else:
        _postgresql_own()


def _sessions() -> None:
    op.create_table(
        "sessions",
        Column("id", String(32), primary_key=True),
        Column("owner", String(128), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("title", Text, nullable=False),
        Column("title_words", Text, nullable=False),
        Column("model", String(256)),
        Column("host", String(64)),
        Column("system", Text),
        Column("options", Text, nullable=False),
        Column("settings", Text),
        Column("pinned", Boolean, nullable=False),
        Column("archived", Boolean, nullable=False),
        Column("leaf", Integer),
        Column("next_seq", Integer, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("running", String(32)),
        Column("replica", String(40)),
        Column("created_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_listed", "sessions", ["owner", "archived", "pinned", "updated_us", "id"])
    op.create_index(
        "ix_sessions_running",
        "sessions",
        ["running"],
        sqlite_where=text("running IS NOT NULL"),
        postgresql_where=text("running IS NOT NULL"),
    )


def _messages() -> None:
    op.create_table(
        "messages",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("session_id", String(32), nullable=False),
        Column("seq", Integer, nullable=False),
        Column("parent", Integer),
        Column("role", String(16), nullable=False),
        Column("name", String(128)),
        Column("content", Text, nullable=False),
        Column("thinking", Text),
        Column("images", Text),
        Column("tool_calls", Text),
        Column("model", String(256)),
        Column("host", String(64)),
        Column("state", String(12), nullable=False),
        Column("error", Text),
        Column("generation", String(32)),
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
        PrimaryKeyConstraint("id", name="pk_messages"),
        ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_messages_session_id_sessions", ondelete="CASCADE"
        ),
        UniqueConstraint("session_id", "seq", name="uq_messages_session_id_seq"),
        CheckConstraint("state IN ('streaming', 'done', 'stopped', 'error')", name="ck_messages_state"),
        sqlite_autoincrement=True,
    )


def _requests() -> None:
    op.create_table(
        "requests",
        Column("ts_us", BigInteger, primary_key=True),
        Column("id", String(32), primary_key=True),
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
        Column("detached", Boolean, nullable=False),
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
        Column("reported", Boolean, nullable=False),
        Column("chunks", Integer, nullable=False),
        Column("bytes_in", BigInteger, nullable=False),
        Column("bytes_out", BigInteger, nullable=False),
        Column("attempts", SmallInteger, nullable=False),
        Column("route_reason", String(20)),
        Column("predicted_ms", Double),
        Column("runner_up", String(64)),
        Column("detail", Text),
        PrimaryKeyConstraint("ts_us", "id", name="pk_requests"),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (ts_us)",
    )
    op.create_index(
        "ix_requests_not_ok",
        "requests",
        ["ts_us"],
        sqlite_where=text("outcome <> 'ok'"),
        postgresql_where=text("outcome <> 'ok'"),
    )


def _rollup(name: str) -> None:
    buckets = [f"{kind}{number:02}" for kind in "tx" for number in range(40)]
    op.create_table(
        name,
        Column("bucket", Integer, nullable=False, autoincrement=False),
        Column("model", String(256), nullable=False),
        Column("host", String(64), nullable=False),
        Column("principal", String(128), nullable=False),
        Column("outcome", String(16), nullable=False),
        Column("n", Integer, nullable=False),
        Column("cold_n", Integer, nullable=False),
        Column("ttft_n", Integer, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("input_tokens", BigInteger, nullable=False),
        Column("output_tokens", BigInteger, nullable=False),
        Column("decoded_tokens", BigInteger, nullable=False),
        Column("decode_ms", Double, nullable=False),
        Column("queue_ms", Double, nullable=False),
        Column("ttft_ms", Double, nullable=False),
        Column("total_ms", Double, nullable=False),
        *[Column(bucket, Integer, nullable=False, server_default="0") for bucket in buckets],
        PrimaryKeyConstraint("bucket", "model", "host", "principal", "outcome", name=f"pk_{name}"),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": 70},
    )


def _small_ones() -> None:
    op.create_table(
        "ingest_batches",
        Column("id", String(64), primary_key=True),
        Column("at_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_ingest_batches"),
    )
    op.create_table(
        "replicas",
        Column("id", String(40), primary_key=True),
        Column("started_us", BigInteger, nullable=False),
        Column("seen_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_replicas"),
    )
    op.create_table(
        "replica_leases",
        Column("replica", String(40), primary_key=True),
        Column("host", String(64), primary_key=True),
        Column("leases", Integer, nullable=False),
        Column("seen_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("replica", "host", name="pk_replica_leases"),
    )
    op.create_table(
        "cancellations",
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("target", String(128), nullable=False),
        Column("erased", Boolean, nullable=False),
        Column("asked_by", String(40), nullable=False),
        Column("asked_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("id", name="pk_cancellations"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "host_states",
        Column("host", String(64), primary_key=True),
        Column("draining", Boolean, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
        PrimaryKeyConstraint("host", name="pk_host_states"),
    )
    op.create_table(
        "meta",
        Column("key", String(64), primary_key=True),
        Column("value", Text, nullable=False),
        PrimaryKeyConstraint("key", name="pk_meta"),
    )


def _sqlite_search() -> None:
    """An index beside the tables, kept by triggers. A message is found once it has ended: a stream is written many times."""
    op.execute(
        "CREATE VIRTUAL TABLE messages_fts USING fts5("
        "content, content='messages', content_rowid='id', tokenize='unicode61 remove_diacritics 0')"
    )
    if sqlite3.sqlite_version_info >= (3, 42):  # words that are deleted are taken out at once, not some day
        op.execute("INSERT INTO messages_fts(messages_fts, rank) VALUES ('secure-delete', 1)")
    forget = "INSERT INTO messages_fts(messages_fts, rowid, content) VALUES ('delete', old.id, old.content);"
    learn = "INSERT INTO messages_fts(rowid, content) VALUES (new.id, new.content);"
    op.execute(f"CREATE TRIGGER messages_said AFTER INSERT ON messages WHEN new.state <> 'streaming' BEGIN {learn} END")
    op.execute(
        f"CREATE TRIGGER messages_unsaid AFTER DELETE ON messages WHEN old.state <> 'streaming' BEGIN {forget} END"
    )
    op.execute(
        "CREATE TRIGGER messages_ended AFTER UPDATE ON messages"
        f" WHEN old.state = 'streaming' AND new.state <> 'streaming' BEGIN {learn} END"
    )
    op.execute(
        "CREATE TRIGGER messages_changed AFTER UPDATE ON messages"
        " WHEN old.state <> 'streaming' AND new.state <> 'streaming' AND old.content <> new.content"
        f" BEGIN {forget} {learn} END"
    )


def _postgresql_own() -> None:
    """The first partition takes what has no day of its own; the search index is on what the search compares."""
    op.execute("CREATE TABLE requests_other PARTITION OF requests DEFAULT")
    op.execute("ALTER TABLE replica_leases SET UNLOGGED")
    _postgresql_search()


def _postgresql_search() -> None:
    """Words alone, in lower case. A database of the C locale knows letters of English only, so ICU is asked, or PostgreSQL's own
    tables. A tsvector holds a megabyte: what stands beyond 200,000 characters is not found.
    """
    known = op.get_bind().execute(
        text("SELECT collname FROM pg_collation WHERE collname IN ('und-x-icu', 'pg_c_utf8') ORDER BY collname DESC")
    )
    collation = known.scalar() or "default"
    op.execute(
        "CREATE FUNCTION corral_words(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$"
        f" SELECT left(regexp_replace(lower($1 COLLATE \"{collation}\"), '[^[:alnum:]]+', ' ', 'g'), 200000) $$"
    )
    op.execute(
        "CREATE INDEX ix_messages_search ON messages USING gin (to_tsvector('simple', corral_words(content)))"
        " WHERE state <> 'streaming'"
    )
