"""PgvectorIndex: a table of a PostgreSQL with the pgvector extension (extra ``pgvector``)."""

import json
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarep.errors import MetarepError
from metarep.index.index import Index, Rows, SpaceError

WIDEST = 1000  # candidates of a graph that pgvector can be asked for


class PgvectorIndex(Index):
    """For vectors that must live beside other data, or outgrow one process; the table keeps them at once and for good.

    A row is ``(id bigint primary key, vector vector(dim))``, so other tables can refer to it; the table's comment says
    which encoder's vectors these are, and another's are refused. A search with ``allowed`` compares the allowed rows
    alone and is exact: pgvector filters what its graph has found, and with few allowed hardly finds any.

    What is saved is where the table is, without the password: give that in ``PGPASSWORD`` or ``~/.pgpass``.

    Args:
        dim, space: see :class:`Index`.
        url: of the server and database, such as ``postgresql://me@db.example.org/photos``.
        table: its name; it is made if need be.
        graph: keep an HNSW graph: faster beyond about 100,000 rows, and no longer exact.
        search_width: candidates when the graph is searched, at most 1,000.
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
            raise MetarepError(f"table {table!r} is no name of at most 50 letters, digits and underscores")
        if not 1 <= search_width <= WIDEST:
            raise MetarepError(f"search_width must be between 1 and {WIDEST}, not {search_width}")
        self.url, self.table, self.graph, self.search_width = url, table, graph, search_width
        self.driver = _driver()
        try:
            self.connection = self.driver.connect(url, autocommit=True)
        except self.driver.Error as error:
            raise MetarepError(f"PostgreSQL at {_shown(url)} cannot be used: {_first(error)}") from error
        try:
            self._prepare()
        except (MetarepError, self.driver.Error) as error:
            self.connection.close()
            if isinstance(error, MetarepError):
                raise
            raise MetarepError(f"PostgreSQL at {_shown(url)} cannot be used: {_first(error)}") from error

    def close(self) -> None:
        self.connection.close()

    def __len__(self) -> int:
        return self._rows(f"SELECT count(*) FROM {self.table}")[0][0]

    def ids(self) -> Int[Tensor, " n"]:
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
            raise MetarepError(f"an id is in the index already: {_first(error)}") from error
        except self.driver.Error as error:
            raise MetarepError(f"PostgreSQL did not take the vectors: {_first(error)}") from error

    def _remove(self, ids: Int[Tensor, " n"]) -> None:
        self._rows(f"DELETE FROM {self.table} WHERE id = ANY(%s) RETURNING 1", ids.tolist())

    def _search(
        self, queries: Rows, k: int, allowed: Int[Tensor, " m"] | None
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        source, values = self.table, []
        if allowed is not None:
            source = "kept"
            values = [allowed.tolist()]
        some = f"WITH kept AS MATERIALIZED (SELECT id, vector FROM {self.table} WHERE id = ANY(%s)) " if values else ""
        near = f"SELECT id, vector <#> asked.vector AS far FROM {source} ORDER BY vector <#> asked.vector LIMIT {k}"
        found = self._rows(
            f"{some}SELECT asked.row, near.id, -near.far "
            "FROM unnest(%s::vector[]) WITH ORDINALITY AS asked(vector, row) "
            f"CROSS JOIN LATERAL ({near}) AS near ORDER BY asked.row, near.far",
            *values,
            _texts(queries),
            width=max(self.search_width, min(k, WIDEST)),
            graph=self.graph and allowed is None and k <= WIDEST,
        )
        scores = torch.full((len(queries), k), -torch.inf)
        ids = torch.full((len(queries), k), -1)
        if found:
            row = np.array([each[0] - 1 for each in found])
            place = np.arange(len(row)) - np.searchsorted(row, row)
            scores[row, place] = torch.tensor([each[2] for each in found])
            ids[row, place] = _column(found, 1)
        return scores, ids

    def _holds(self, ids: Int[Tensor, " n"]) -> Tensor:
        found = self._rows(f"SELECT id FROM {self.table} WHERE id = ANY(%s)", ids.tolist())
        return torch.isin(ids, _column(found, 0))

    def _vectors(self, ids: Int[Tensor, " n"]) -> Float[Tensor, "n dim"]:
        found = self._rows(f"SELECT id, vector::text FROM {self.table} WHERE id = ANY(%s)", ids.tolist())
        by_id = {name: json.loads(text) for name, text in found}
        return torch.tensor([by_id[each] for each in ids.tolist()], dtype=torch.float32)

    def _saved(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return {}, {}

    def _restore(self, tensors: dict[str, Tensor], more: dict[str, Any]) -> None:
        """Everything is in the table."""

    def chosen_settings(self) -> dict[str, Any]:
        settings = {name: getattr(self, name) for name in ("table", "graph", "search_width")}
        return {"url": _shown(self.url), **settings}

    def _prepare(self) -> None:
        """The table, its graph, and whose vectors they are."""
        with self.connection.transaction():
            run = self.connection.execute
            run("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"metarep {self.table}"])  # two may make it at once
            run("CREATE EXTENSION IF NOT EXISTS vector")
            known = run("SELECT obj_description(to_regclass(%s))", [self.table]).fetchone()
            exists = run("SELECT to_regclass(%s) IS NOT NULL", [self.table]).fetchone()
            if exists and exists[0]:
                about = json.loads(known[0]) if known and known[0] and known[0].startswith("{") else {}
                if about.get("metarep") != 1:
                    raise MetarepError(f"the table {self.table} is not of metarep; choose another name")
                if about["dim"] != self.dim:
                    raise MetarepError(
                        f"the table {self.table} holds vectors of {about['dim']} numbers, not {self.dim}"
                    )
                if about["space"] != self.space:
                    raise SpaceError(
                        f"the table {self.table} holds vectors of the encoder {about['space']}, not {self.space}; "
                        "choose another table"
                    )
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
        """What a query gives, with the search as wide as asked, or without the graph."""
        try:
            with self.connection.transaction():
                if width and graph:
                    self.connection.execute(f"SET LOCAL hnsw.ef_search = {width}")
                elif width:
                    self.connection.execute("SET LOCAL enable_indexscan = off")
                cursor = self.connection.execute(query, values)
                return cursor.fetchall()
        except self.driver.Error as error:
            raise MetarepError(f"PostgreSQL at {_shown(self.url)} did not answer: {_first(error)}") from error


def _texts(rows: Rows) -> list[str]:
    return ["[" + ",".join(map(repr, row)) + "]" for row in rows.tolist()]


def _column(rows: list[tuple], number: int) -> Int[Tensor, " n"]:
    return torch.tensor([row[number] for row in rows], dtype=torch.int64)


def _shown(url: str) -> str:
    """The address without a password."""
    head, at, tail = url.rpartition("@")
    scheme, _, user = head.rpartition("//")
    return f"{scheme}//{user.partition(':')[0]}@{tail}" if at and scheme else url


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _driver() -> Any:  # noqa: ANN401 - an extra
    try:
        import psycopg
    except ImportError as error:
        raise MetarepError("the pgvector index needs psycopg: pip install 'metarep[pgvector]'") from error
    return psycopg
