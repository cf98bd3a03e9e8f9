"""Groups of a folder of images: images in one subfolder of their class show the same thing, such as one specimen."""

from collections.abc import Sequence
from pathlib import Path

from metarep.data.reading.folder_tree import FolderTree
from metarep.data.reading.folder_walk import shown
from metarep.errors import DataError


def subfolder_groups(tree: FolderTree) -> dict[Path, str]:
    """Returns the group of each image that lies in a subfolder of its class: the name of that subfolder.

    What lies deeper is of the same group. An image that lies in the folder of its class itself has no group.

    Args:
        tree: the classes of a folder, from :func:`metarep.data.reading.folder_tree.scan`.

    Returns:
        The groups, by the paths of :attr:`FolderTree.pairs`.

    Raises:
        DataError: no class has a subfolder.

    >>> import tempfile
    >>> from metarep.data.reading.folder_tree import scan
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("moth/first/1.png", "moth/first/near/2.png", "moth/3.png", "fly/4.png"):
    ...         (Path(root) / name).parent.mkdir(parents=True, exist_ok=True)
    ...         (Path(root) / name).touch()
    ...     groups = subfolder_groups(scan(root))
    >>> [(path.name, group) for path, group in groups.items()]
    [('1.png', 'first'), ('2.png', 'first')]
    """
    homes = [(entry, entry.homes) for entry in tree.classes]
    found = {tree.root / file: group for entry, own in homes for file in entry.files if (group := within(file, own))}
    if not found:
        raise DataError(
            f"no class of {shown(tree.root)} has a subfolder, so nothing says which images show the same thing",
            advice="put the images of one thing into a subfolder of its class",
        )
    return found


def within(file: Path, homes: Sequence[Path]) -> str:
    """Returns the subfolder of a class that a file lies in, or an empty text.

    >>> within(Path("moth/first/near/2.png"), [Path("moth")]), within(Path("moth/3.png"), [Path("moth")])
    ('first', '')
    """
    home = max((each for each in homes if file.is_relative_to(each)), key=lambda each: len(each.parts))
    first, *deeper = file.relative_to(home).parts
    return first if deeper else ""
