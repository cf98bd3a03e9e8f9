"""PgvectorIndex: an index in a PostgreSQL table with the pgvector extension (extra ``pgvector``)."""

import json
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.index.index import Index, Rows
from metarep.index.remote import refuse_other_vectors

WIDEST = 1000  # pgvector's limit for the candidates of a graph search


class PgvectorIndex(Index):
    """An index in a PostgreSQL table, for vectors that belong beside other data or do not fit into one process.

    Every change is written to the table immediately. A row is ``(id bigint primary key, vector vector(dim))``, so other
    tables can refer to it. The comment of the table says which encoder made the vectors, and vectors of another one are
    refused. A search with ``allowed`` compares only the allowed rows and is exact, because pgvector would filter the
    results of its graph search, which hold few of a small number of allowed rows.

    Saving the index saves the address of the table without the password. Give the password in ``PGPASSWORD`` or
    ``~/.pgpass``.

    Args:
        dim, space: see :class:`Index`.
        url: address of server and database, such as ``postgresql://me@db.example.org/photos``.
        table: name of the table, which is created if it does not exist.
        graph: keep an HNSW graph, which is faster beyond about 100,000 rows and no longer exact.
        search_width: number of candidates of a graph search, at most 1,000.

    Raises:
        SpaceError: the table holds vectors of another encoder.
        MetarepError: psycopg is not installed, the server cannot be used, the table is not one of metarep or has
            another dimension, or a setting is out of range.

    >>> PgvectorIndex(2)
    Traceback (most recent call last):
    metarep.errors.MetarepError: the pgvector index needs the url of a server: postgresql://USER@HOST/DATABASE
    """

    name: ClassVar[str] = "pgvector"
    lives_elsewhere: ClassVar[bool] = True

    def __init__(
        self,
        dim: int,
        space: str = "",
        *,
        url: str = "",
        table: str = "metarep",
        graph: bool = False,
        search_width: int = 100,
    ) -> None:
        super().__init__(dim, space)
        if not url:
            raise MetarepError("the pgvector index needs the url of a server: postgresql://USER@HOST/DATABASE")
        if not table.isidentifier() or not table.isascii() or len(table) > 50:
            raise MetarepError(
                f"table {table!r} is not a valid name; take at most 50 letters, digits and underscores, a letter first"
            )
        if not 1 <= search_width <= WIDEST:
            raise MetarepError(f"search_width must be between 1 and {WIDEST}, not {search_width}")
        self.url, self.table, self.graph, self.search_width = url, table, graph, search_width
        self.driver = _driver()
        try:
            self.connection = self.driver.connect(url, autocommit=True)
        except self.driver.Error as error:
            raise MetarepError(
                f"PostgreSQL at {_shown(url)} cannot be used: {_first(error)}; check the url and the server"
            ) from error
        try:
            self._prepare()
        except (MetarepError, self.driver.Error) as error:
            self.connection.close()
            if isinstance(error, MetarepError):
                raise
            raise MetarepError(
                f"PostgreSQL at {_shown(url)} cannot be used: {_first(error)}; check the url and the server"
            ) from error

    def close(self) -> None:
        """Close the connection to the server."""
        self.connection.close()

    def __len__(self) -> int:
        """The number of vectors."""
        return self._rows(f"SELECT count(*) FROM {self.table}")[0][0]

    def ids(self) -> Int[Tensor, " n"]:
        """All ids, sorted."""
        return _column(self._rows(f"SELECT id FROM {self.table} ORDER BY id"), 0)

    def _add(self, ids: Int[Tensor, " n"], rows: Rows) -> None:
        try:
            with (
                self.connection.transaction(),
                self.connection.cursor() as cursor,
                cursor.copy(f"COPY {self.table} (id, vector) FROM STDIN") as copy,
            ):
                for name, text in zip(ids.tolist(), _texts(rows), strict=True):
                    copy.write_row((name, text))
        except self.driver.errors.UniqueViolation as error:
            raise MetarepError(f"an id is in the index already; choose another: {_first(error)}") from error
        except self.driver.Error as error:
            raise MetarepError(f"PostgreSQL did not take the vectors: {_first(error)}") from error

    def _remove(self, ids: Int[Tensor, " n"]) -> None:
        self._rows(f"DELETE FROM {self.table} WHERE id = ANY(%s) RETURNING 1", ids.tolist())

    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        source, filtered, values = self.table, "", []
        if allowed is not None:
            source, values = "kept", [allowed.tolist()]
            filtered = f"WITH kept AS MATERIALIZED (SELECT id, vector FROM {self.table} WHERE id = ANY(%s)) "
        near = f"SELECT id, vector <#> query.vector AS far FROM {source} ORDER BY vector <#> query.vector LIMIT {k}"
        matches = self._rows(
            f"{filtered}SELECT query.row, near.id, -near.far "
            "FROM unnest(%s::vector[]) WITH ORDINALITY AS query(vector, row) "
            f"CROSS JOIN LATERAL ({near}) AS near ORDER BY query.row, near.far",
            *values,
            _texts(queries),
            width=max(self.search_width, min(k, WIDEST)),
            graph=self.graph and allowed is None and k <= WIDEST,
        )
        scores = torch.full((len(queries), k), -torch.inf)
        ids = torch.full((len(queries), k), -1)
        if matches:
            row = np.array([match[0] - 1 for match in matches])
            rank = np.arange(len(row)) - np.searchsorted(row, row)
            scores[row, rank] = torch.tensor([match[2] for match in matches])
            ids[row, rank] = _column(matches, 1)
        return scores, ids

    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        present = self._rows(f"SELECT id FROM {self.table} WHERE id = ANY(%s)", ids.tolist())
        return torch.isin(ids, _column(present, 0))

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        rows = self._rows(f"SELECT id, vector::text FROM {self.table} WHERE id = ANY(%s)", ids.tolist())
        by_id = {name: json.loads(text) for name, text in rows}
        return torch.tensor([by_id[each] for each in ids.tolist()], dtype=torch.float32)

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:
        """Do nothing: everything is in the table."""

    def chosen_settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("table", "graph", "search_width")}
        return {"url": _shown(self.url), **settings}

    def _prepare(self) -> None:
        """Create the table and its graph if they do not exist; otherwise check that the table holds such vectors."""
        with self.connection.transaction():
            run = self.connection.execute
            run("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"metarep {self.table}"])  # not two processes at a time
            run("CREATE EXTENSION IF NOT EXISTS vector")
            known = run("SELECT obj_description(to_regclass(%s))", [self.table]).fetchone()
            exists = run("SELECT to_regclass(%s) IS NOT NULL", [self.table]).fetchone()
            if exists and exists[0]:
                about = json.loads(known[0]) if known and known[0] and known[0].startswith("{") else {}
                refuse_other_vectors("table", self.table, about, self.dim, self.space)
            else:
                run(f"CREATE TABLE {self.table} (id bigint PRIMARY KEY, vector vector({self.dim}) NOT NULL)")
                about = json.dumps({"metarep": 1, "dim": self.dim, "space": self.space})
                run(f"COMMENT ON TABLE {self.table} IS {self.driver.sql.quote(about)}")
            if self.graph:
                run(
                    f"CREATE INDEX IF NOT EXISTS {self.table}_graph ON {self.table} USING hnsw (vector vector_ip_ops) "
                    "WITH (m = 16, ef_construction = 128)"
                )

    def _rows(self, query: str, *values: Any, width: int = 0, graph: bool = True) -> list[tuple]:  # noqa: ANN401
        """The rows that a query returns.

        Args:
            query: SQL.
            values: its parameters.
            width: candidates of a graph search; 0 for the server's setting.
            graph: whether the graph may be searched, if there is a width.

        Raises:
            MetarepError: the server does not answer, or refuses the query.
        """
        try:
            with self.connection.transaction():
                if width and graph:
                    self.connection.execute(f"SET LOCAL hnsw.ef_search = {width}")
                elif width:
                    self.connection.execute("SET LOCAL enable_indexscan = off")
                cursor = self.connection.execute(query, values)
                return cursor.fetchall()
        except self.driver.Error as error:
            raise MetarepError(
                f"PostgreSQL at {_shown(self.url)} did not answer: {_first(error)}; check the url and the server"
            ) from error


def _texts(rows: Rows) -> list[str]:
    """Vectors in pgvector's text form."""
    return ["[" + ",".join(map(repr, row)) + "]" for row in rows.tolist()]


def _column(rows: list[tuple], number: int) -> Int[Tensor, " n"]:
    """A column of a result, as a tensor."""
    return torch.tensor([row[number] for row in rows], dtype=torch.int64)


def _shown(url: str) -> str:
    """The address of a server without the password."""
    head, at, tail = url.rpartition("@")
    scheme, _, user = head.rpartition("//")
    return f"{scheme}//{user.partition(':')[0]}@{tail}" if at and scheme else url


def _first(error: Exception) -> str:
    """The first line of an error message."""
    return str(error).strip().partition("\n")[0]


def _driver() -> Any:  # noqa: ANN401 - an extra
    try:
        import psycopg
    except ImportError as error:
        raise MetarepError("the pgvector index needs psycopg: pip install 'metarep[pgvector]'") from error
    return psycopg
