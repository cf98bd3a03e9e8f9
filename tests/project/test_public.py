"""The public face: what can be imported from metarep, and what an editor or a type checker sees of it."""

import ast
import json
import re
import shutil
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch

import metarep

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "typed" / "user_script.py"
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def declared() -> dict[str, str]:
    """Each name that ``metarep/__init__.py`` imports for type checkers, with its module."""
    tree = ast.parse(Path(metarep.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {name.asname or "": str(node.module) for node in block.body for name in node.names}


def test_type_checkers_see_the_names_that_are_imported_lazily():
    lazy = metarep._HOME | metarep._OLD
    there = {name: home.removesuffix(f".{name}") if name == "losses" else home for name, home in lazy.items()}
    assert declared() == there


def test_all_names_every_public_name_once_and_each_is_there():
    names = [name for names in metarep._PUBLIC.values() for name in names]
    assert len(set(names)) == len(names)
    assert metarep.__all__ == names
    assert {*names, "__version__"} == set(dir(metarep))
    for name in names:
        value = getattr(metarep, name)
        home = import_module(metarep._HOME[name])
        assert value is (home if name == "losses" else getattr(home, name))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'metarep' has no attribute 'lode'"):
        metarep.lode  # noqa: B018


def test_importing_metarep_imports_neither_torch_nor_numpy():
    program = "import sys, metarep; print(sorted({'torch', 'numpy', 'typing_extensions'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("call", "old", "new"),
    [
        (lambda: metarep.load("omniglot-protonet"), "load", "load_learner"),
        (lambda: metarep.load_data("glyphs"), "load_data", "load_dataset"),
    ],
)
def test_an_old_name_works_and_says_the_new_one(call, old, new):
    with pytest.warns(DeprecationWarning, match="is now called") as warned:
        value = call()
    assert type(value) is type(getattr(metarep, new)({"load": "omniglot-protonet", "load_data": "glyphs"}[old]))
    (warning,) = warned
    assert f"metarep.{old} is now called metarep.{new}" in str(warning.message)
    assert warning.filename == __file__, "the warning points at the caller"


def test_old_names_of_methods_and_arguments_work_and_say_the_new_ones(tmp_path, request):
    """The old names go with the next version."""
    gallery = metarep.Gallery.empty().add(torch.eye(2), ["moth", "fly"], ["1.jpg", "2.jpg"])
    model = metarep.Model(None, {"name": "prototypes"}, gallery)
    encoder = metarep.build_encoder("conv4", metarep.Preprocess((16, 16), 1, (0.0,), (1.0,)), width=4)
    folder = metarep.ModelFolder.create(tmp_path / "model", metarep.Model(encoder))
    index = metarep.ImageIndex.create(tmp_path / "an.index", metarep.Representation(encoder, "small"))
    with warnings.catch_warnings(record=True, action="always") as warned:
        assert gallery.place("fly") == 1
        assert model.settled(model.trust, None) is model
        assert folder.settle() is folder.model
        assert index.add(places=[]).new == 0
        assert index.remove(places=[]) == 0
    said = [str(warning.message).partition(";")[0] for warning in warned]
    assert said == [
        "Gallery.place is now called Gallery.index_of",
        "Model.settled is now called Model.restore_calibration",
        "ModelFolder.settle is now called ModelFolder.calibrate",
        "the argument places of add is now called paths",
        "the argument places of remove is now called paths",
    ]
    if not request.config.getoption("--jaxtyping-packages", None):  # whose wrapper would be the caller
        assert {warning.filename for warning in warned} == {__file__}, "each warning points at the caller"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_documentation_imports_from_metarep_alone(page):
    for code in FENCE.findall(page.read_text("utf-8")):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metarep"):
                assert node.module == "metarep"
                assert {name.name for name in node.names} <= set(metarep.__all__)


@pytest.mark.slow
def test_a_strict_type_checker_accepts_a_user_script_and_knows_every_public_name(tmp_path):
    """In a copy of the package as a wheel lays it out: Python files and py.typed, and no settings of this project."""
    pyright = shutil.which("pyright", path=Path(sys.executable).parent)
    if pyright is None or subprocess.run([pyright, "--version"], capture_output=True).returncode:
        pytest.skip("needs pyright and its node: pip install 'metarep[dev]'")
    package = Path(metarep.__file__).parent
    shutil.copytree(
        package,
        tmp_path / "site" / "metarep",
        ignore=lambda _, names: [n for n in names if "." in n and not n.endswith((".py", ".typed"))],
    )
    shutil.copy(SCRIPT, tmp_path)
    names = ", ".join(metarep.__all__)
    (tmp_path / "names.py").write_text(f"from metarep import {names}\n\nprint({names})\n", "utf-8")
    (tmp_path / "shapes.py").write_text(
        "from metarep import load_dataset\n\nreveal_type(load_dataset('glyphs').bank.images)\n"
        "reveal_type(load_dataset('glyphs').labels.names)\n",
        "utf-8",
    )
    settings = {"include": ["*.py"], "extraPaths": ["site"], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    done = subprocess.run(
        [pyright, "--pythonpath", sys.executable, "--outputjson", "--project", tmp_path], capture_output=True, text=True
    )
    report = json.loads(done.stdout)
    found = report["generalDiagnostics"]
    assert [f"{each['file']}: {each['message']}" for each in found if each["severity"] == "error"] == []
    revealed = [each["message"] for each in found if each["severity"] == "information"]
    assert [message.split(" is ")[1] for message in revealed] == ['"Tensor"', '"tuple[str, ...]"']
