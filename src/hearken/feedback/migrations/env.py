"""Alembic's entry point: runs the migrations on the connection that `migrations.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from hearken.feedback.migrations import context_options
from hearken.feedback.schema import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, **context_options())
context.run_migrations()
