"""How Alembic runs here: on the connection that it is handed, in the transaction that this has open."""

from alembic import context

from gateway.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
