"""The command metarep serve: what it refuses before it serves, and a new empty model."""

from pathlib import Path
from typing import Any

import pytest
from serving import ENCODER

REFUSED = {
    "nothing": ("there is no model", "--encoder auto"),
    "letters --encoder omniglot-protonet": ("is there already", "leave --encoder out"),
    "letters --host 0.0.0.0": ("other machines can reach 0.0.0.0", "at least 16 characters", "--token "),
    "letters --host 0.0.0.0 --token short": ("other machines can reach 0.0.0.0", "at least 16 characters"),
    "letters --called moths.example": ("other machines can reach moths.example",),
    "letters --token=": ("the token is empty",),
    "letters --token sécrét-tökén-abcdefgh": ("characters that are not ASCII",),
    "letters --cert no.pem --key no.key": ("no.pem and no.key are not a certificate and its key: No such file",),
    "letters --port 99999": ("--port must be 0 to 65535, not 99999",),
    "letters --workers 0": ("--workers must be 1 to 256, not 0",),
    "letters --most-files 0": ("--most-files must be a number above 0",),
    "letters --most-files 1001": ("--most-files must be at most 1000, not 1001",),
    "letters --cert a.pem": ("--cert and --key belong together",),
    "letters --host 192.0.2.1 --token 0123456789abcdef": ("cannot listen at 192.0.2.1:8000", "--port 0"),
}


@pytest.mark.parametrize("line", REFUSED)
def test_the_command_refuses_and_says_what_to_do(
    folder: Any, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metarep.cli import main

    monkeypatch.chdir(folder.path.parent)
    monkeypatch.delenv("METAREP_TOKEN", raising=False)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: pytest.fail("the server was started"))
    assert main(["serve", *line.split()]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for words in REFUSED[line]:
        assert words in said


def test_the_command_makes_an_empty_model_and_serves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from metarep.cli import main
    from metarep.model.folder import ModelFolder

    runs: list[Any] = []
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: runs.append((self.config.app, sockets)))
    flags = ["--encoder", ENCODER, "--port", "0", "--most-images", "7"]
    assert main(["serve", str(tmp_path / "new"), *flags]) == 0
    assert ModelFolder.open(tmp_path / "new").model.gallery.names == ()
    ((app, _),) = runs
    assert app.state.service.limits.images == 7
    said = capsys.readouterr().out
    assert "0 classes, 0 images" in said
    assert "page: http://127.0.0.1:" in said
