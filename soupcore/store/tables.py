"""The tables of a workspace, on `Base`.

A table that only one module uses is declared there: in `soupcore.store.leases` and
`soupcore.jobs.job`. To change an existing table, change its declaration and append a function to
`soupcore.store.database._MIGRATIONS` that makes the same change to the database. A new table needs
only its declaration.
"""

from typing import Any

from sqlalchemy import JSON, BigInteger, LargeBinary
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables of a workspace."""


class MetaRow(Base):
    """A fact about the database itself, such as its schema version."""

    __tablename__ = "meta"

    key: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]


class EvaluationRow(Base):
    """One evaluation: a summary in this row, the values per example in the file `arrays`."""

    __tablename__ = "evaluations"

    mixture_key: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(primary_key=True)
    split_digest: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]
    # None stands for NaN and infinity, which SQLite cannot store.
    loss: Mapped[float | None]
    score: Mapped[float | None]
    score_low: Mapped[float | None]
    score_high: Mapped[float | None]
    scores: Mapped[dict[str, float | None] | None] = mapped_column(JSON)  # by metric
    seconds: Mapped[float]
    has_outputs: Mapped[bool]
    # Relative to the store's folder. `#i` selects evaluation i where the file holds several.
    arrays: Mapped[str]
    created: Mapped[float]


class MetricIntervalRow(Base):
    """The interval of an evaluation's score by a metric other than the task's first."""

    __tablename__ = "metric_intervals"

    mixture_key: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(primary_key=True)
    split_digest: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    low: Mapped[float | None]  # None where there is no interval
    high: Mapped[float | None]
    # Scores on bootstrap resamples, float32, little-endian; None for a mean.
    replicates: Mapped[bytes | None] = mapped_column(LargeBinary)


class PartRow(Base):
    """The partial evaluation of a point that was rejected early."""

    __tablename__ = "parts"

    mixture_key: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(primary_key=True)
    split_digest: Mapped[str] = mapped_column(primary_key=True)
    arrays: Mapped[str]  # relative to the store's folder: `rows` and their `scores`
    created: Mapped[float]


class SoupRow(Base):
    """One soup: how it was made."""

    __tablename__ = "soups"

    id: Mapped[str] = mapped_column(primary_key=True)
    sweep: Mapped[str] = mapped_column(index=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float]


class AnnotationRow(Base):
    """The name, note, tags and star of a soup or an ingredient; see `soupcore.store.soups`."""

    __tablename__ = "annotations"

    subject: Mapped[str] = mapped_column(primary_key=True)  # a soup's id, an ingredient's digest
    name: Mapped[str]
    note: Mapped[str]
    tags: Mapped[str]  # one a line
    starred: Mapped[bool]
    deleted: Mapped[float | None]  # time of the deletion; None unless it is deleted


class SoupFileRow(Base):
    """One file of a soup's weights; a soup may be written in several forms, of several files."""

    __tablename__ = "soup_files"

    soup: Mapped[str] = mapped_column(primary_key=True)
    form: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    nbytes: Mapped[int] = mapped_column(BigInteger)
    # Size and times of the file when its SHA-256 was last computed; None if unknown.
    stamp: Mapped[str | None]


class ResultRow(Base):
    """The result of a long computation (see `soupcore.calls`), keyed by all that it depends on."""

    __tablename__ = "results"

    key: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(index=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    # Whether it is complete; until then `body` holds the intermediate result.
    settled: Mapped[bool]
    created: Mapped[float]


class LineRow(Base):
    """The barriers evaluated so far on the line between two points."""

    __tablename__ = "lines"

    measured: Mapped[str] = mapped_column(primary_key=True)  # task, split, and α, as a digest
    start: Mapped[str] = mapped_column(primary_key=True)  # the key of the point at α = 0
    end: Mapped[str] = mapped_column(primary_key=True)
    settled: Mapped[bool]
    values: Mapped[bytes] = mapped_column(LargeBinary)  # float64, little-endian


class InnerProductRow(Base):
    """The inner products of two vectors in weight space, tensor by tensor.

    A vector is the difference of a checkpoint from the reference, identified by the checkpoint's
    digest. The reference's own digest identifies its weights themselves.
    """

    __tablename__ = "inner_products"

    reference: Mapped[str] = mapped_column(primary_key=True)
    one: Mapped[str] = mapped_column(primary_key=True)  # the lower digest of the two
    other: Mapped[str] = mapped_column(primary_key=True)
    values: Mapped[bytes] = mapped_column(LargeBinary)  # float64, little-endian
