"""Indexes that live on a server, beyond the contract: what stays there, whose it is, and what a person reads."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from metarep.cli import main
from metarep.errors import MetarepError
from metarep.index import Index, SpaceError, build_index, qdrant


def vectors(n: int, dim: int = 4) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_a_table_outlives_its_connection_and_knows_its_encoder(postgres: str, tmp_path: Path) -> None:
    where = {"url": postgres, "table": "outlives"}
    first = build_index("pgvector", 4, "an encoder", **where)
    first.add([3, 1], vectors(2))
    first.save(tmp_path / "x")
    second = build_index("pgvector", 4, "an encoder", **where)  # while the first is open
    second.remove([1])
    second.add([9], vectors(1))
    assert first.ids().tolist() == [3, 9]
    with pytest.raises(MetarepError, match="id 9 is in the index already"):
        first.add([9], vectors(1))
    third = Index.load(tmp_path / "x", url=postgres)
    assert third.ids().tolist() == [3, 9]
    with pytest.raises(SpaceError, match="the table outlives holds vectors of the encoder an encoder, not another"):
        build_index("pgvector", 4, "another", **where)
    with pytest.raises(MetarepError, match="holds vectors of 4 dimensions, not 5"):
        build_index("pgvector", 5, "an encoder", **where)
    first.connection.execute("CREATE TABLE foreign_table (id int)")
    with pytest.raises(MetarepError, match="the table foreign_table was not made by metarep"):
        build_index("pgvector", 4, url=postgres, table="foreign_table")
    with pytest.raises(MetarepError, match="not a valid name; take at most 50 letters"):
        build_index("pgvector", 4, url=postgres, table="x; DROP TABLE outlives")
    with pytest.raises(MetarepError, match="search_width must be between 1 and 1000, not 0"):
        build_index("pgvector", 4, url=postgres, search_width=0)
    for index in (first, second, third):
        index.close()
    with pytest.raises(MetarepError, match="did not answer"):
        len(first)


@pytest.mark.slow
def test_the_graph_is_what_the_server_searches(postgres: str) -> None:
    index = build_index("pgvector", 4, url=postgres, table="graphed", graph=True)
    index.add(torch.arange(500), vectors(500))
    index.connection.execute("ANALYZE graphed")
    plan = index._rows("EXPLAIN SELECT id FROM graphed ORDER BY vector <#> '[1,0,0,0]' LIMIT 5", width=40)
    assert any("graphed_graph" in row[0] for row in plan)
    index.close()


def test_a_missing_server_is_named_without_its_password() -> None:
    pytest.importorskip("psycopg", reason="needs metarep[pgvector]")
    with pytest.raises(MetarepError, match=r"PostgreSQL at postgresql://me@127\.0\.0\.1:9/x cannot be used") as error:
        build_index("pgvector", 4, url="postgresql://me:secret@127.0.0.1:9/x")
    assert "secret" not in str(error.value)
    with pytest.raises(MetarepError, match="needs the url of a server: postgresql://"):
        build_index("pgvector", 4)


@pytest.mark.slow
def test_a_qdrant_collection_knows_its_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client", reason="needs metarep[qdrant]")
    monkeypatch.setattr(qdrant, "BATCH", 10)
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    where = {"url": str(tmp_path / "here")}
    first = build_index("qdrant", 4, "an encoder", **where)
    first.add(torch.arange(25), vectors(25))  # more than a lot
    assert len(first.ids()) == 25
    first.save(tmp_path / "x")
    first.close()
    again = Index.load(tmp_path / "x")
    assert len(again) == 25
    again.close()
    with pytest.raises(SpaceError, match="holds vectors of the encoder an encoder, not another"):
        build_index("qdrant", 4, "another", **where)
    with pytest.raises(MetarepError, match="needs the url of a server: http://HOST:6333"):
        build_index("qdrant", 4)
    memory = build_index("qdrant", 4, url=":memory:")
    with pytest.raises(MetarepError, match="memory: cannot be saved"):
        memory.save(tmp_path / "y")
    assert not (tmp_path / "y").exists()
    memory.close()
    with pytest.raises(MetarepError, match=r"Qdrant at http://127\.0\.0\.1:9 did not answer"):
        build_index("qdrant", 4, url="http://127.0.0.1:9")


@pytest.mark.slow
def test_a_folder_of_images_in_a_table(postgres: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(5):
        Image.new("L", (28, 28), 50 * number).save(pictures / f"{number}.png")
    encoder = ["--encoder", "omniglot-protonet"]
    words = ["--index", "pgvector", "--url", postgres, "--table", "pictures"]
    build = ["index", "build", str(tmp_path / "an.index"), str(pictures), *encoder, *words]
    assert main(build) == 0
    assert main(build) == 0
    assert "0 new, 5 known already" in capsys.readouterr().out
    assert main(["search", str(tmp_path / "an.index"), str(pictures / "3.png"), "-k", "1"]) == 0
    assert "1.000" in capsys.readouterr().out
    build[2] = str(tmp_path / "other.index")
    assert main(build) == 2
    assert "the pgvector index holds vectors already" in capsys.readouterr().err
