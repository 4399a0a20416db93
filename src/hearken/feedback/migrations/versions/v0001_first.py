"""The first version of the feedback database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

JSON = sa.JSON(none_as_null=True)
TIME = sa.DateTime(timezone=True)
SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "guidelines",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.PrimaryKeyConstraint("version", name=op.f("pk_guidelines")),
    )
    op.create_table(
        "labelers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", JSON, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("attributes", JSON, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("erased", sa.SmallInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_labelers")),
    )
    op.create_table(
        "prompts",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("domain", sa.String(), nullable=False),
        sa.Column("content", JSON, nullable=False),
        sa.Column("split", sa.String(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("erased", sa.SmallInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_prompts")),
        sa.UniqueConstraint("id", name=op.f("uq_prompts_id")),
    )
    op.create_index(op.f("ix_prompts_split"), "prompts", ["split"], unique=False)
    op.create_table(
        "tombstones",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("target_id", sa.String(), nullable=False),
        sa.Column("reason", JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_tombstones")),
    )
    op.create_index(op.f("ix_tombstones_target_id"), "tombstones", ["target_id"], unique=False)
    op.create_table(
        "queue_items",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("response_ids", JSON, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("filled", sa.Integer(), nullable=False),
        sa.Column("done", sa.SmallInteger(), nullable=False),
        sa.Column("priority", sa.Double(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("selection", sa.String(), nullable=False),
        sa.Column("propensity", sa.Double(), nullable=True),
        sa.Column("is_gold", sa.SmallInteger(), nullable=False),
        sa.Column("expected", JSON, nullable=True),
        sa.Column("repeat_of", sa.String(), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_queue_items_prompt_id")),
        sa.ForeignKeyConstraint(["repeat_of"], ["queue_items.id"], name=op.f("fk_queue_items_repeat_of")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_queue_items")),
        sa.UniqueConstraint("id", name=op.f("uq_queue_items_id")),
    )
    op.create_index(
        "ix_queue_items_open",
        "queue_items",
        [sa.text("priority DESC"), "id"],
        unique=False,
        sqlite_where=sa.text("done = 0"),
        postgresql_where=sa.text("done = 0"),
    )
    op.create_index(op.f("ix_queue_items_prompt_id"), "queue_items", ["prompt_id"], unique=False)
    op.create_table(
        "responses",
        sa.Column("seq", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("text", JSON, nullable=False),
        sa.Column("payload", sa.String(), nullable=True),
        sa.Column("messages", JSON, nullable=True),
        sa.Column("token_ids", JSON, nullable=True),
        sa.Column("finish_reason", sa.String(), nullable=True),
        sa.Column("policy", sa.String(), nullable=True),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("sampling", JSON, nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("sample", sa.Integer(), nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("erased", sa.SmallInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_responses_prompt_id")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_responses")),
        sa.UniqueConstraint("id", name=op.f("uq_responses_id")),
    )
    op.create_index(op.f("ix_responses_policy"), "responses", ["policy"], unique=False)
    op.create_index(op.f("ix_responses_prompt_id"), "responses", ["prompt_id"], unique=False)
    op.create_table(
        "judgments",
        sa.Column("seq", SEQUENCE, autoincrement=False, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("prompt_id", sa.String(), nullable=False),
        sa.Column("item_id", sa.String(), nullable=True),
        sa.Column("labeler_id", sa.String(), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("order", JSON, nullable=True),
        sa.Column("order_seed", sa.BigInteger(), nullable=True),
        sa.Column("guideline", sa.Integer(), nullable=True),
        sa.Column("round", sa.Integer(), nullable=True),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("supersedes", sa.String(), nullable=True),
        sa.Column("extra", sa.SmallInteger(), nullable=False),
        sa.Column("live", sa.SmallInteger(), nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("erased", sa.SmallInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["queue_items.id"], name=op.f("fk_judgments_item_id")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labelers.id"], name=op.f("fk_judgments_labeler_id")),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name=op.f("fk_judgments_prompt_id")),
        sa.ForeignKeyConstraint(["supersedes"], ["judgments.id"], name=op.f("fk_judgments_supersedes")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_judgments")),
        sa.UniqueConstraint("id", name=op.f("uq_judgments_id")),
        sa.UniqueConstraint("supersedes", name=op.f("uq_judgments_supersedes")),
    )
    op.create_index(op.f("ix_judgments_labeler_id"), "judgments", ["labeler_id"], unique=False)
    op.create_index(
        "ix_judgments_live",
        "judgments",
        ["item_id", "labeler_id"],
        unique=True,
        sqlite_where=sa.text("live = 1"),
        postgresql_where=sa.text("live = 1"),
    )
    op.create_index(op.f("ix_judgments_prompt_id"), "judgments", ["prompt_id"], unique=False)
    op.create_table(
        "leases",
        sa.Column("item_id", sa.String(), nullable=False),
        sa.Column("labeler_id", sa.String(), nullable=False),
        sa.Column("expires", TIME, nullable=False),
        sa.Column("heartbeat", TIME, nullable=False),
        sa.ForeignKeyConstraint(["item_id"], ["queue_items.id"], name=op.f("fk_leases_item_id")),
        sa.ForeignKeyConstraint(["labeler_id"], ["labelers.id"], name=op.f("fk_leases_labeler_id")),
        sa.PrimaryKeyConstraint("item_id", "labeler_id", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_labeler_id"), "leases", ["labeler_id"], unique=False)
