"""What a VRT names: files of this machine, but no address."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from pipeline.errors import ImageryError
from pipeline.imagery.remote import networked


def check_vrt(path: Path) -> None:
    """Refuse a VRT, a file of this machine, that leads to the network; also by way of another VRT.

    What is fetched stands in the job, not in a file that came from somewhere.

    Raises
    ------
    ImageryError
        If it names an address.
    """
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        for name in _named(file):
            if networked(name) or "://" in name:
                raise ImageryError(
                    f"{path} is a VRT that leads to the network ({name[:100]}); addresses stand in the job itself: list them "
                    "under imagery.path"
                )
            if name.lower().endswith(".vrt"):
                waiting.append(file.parent / name)


def _named(path: Path) -> list[str]:
    """Return what a VRT names as its sources; nothing if it is no XML, which GDAL says better."""
    names = []
    try:
        # The XML of a file of the user's own; expat itself refuses entities that grow.
        for _, element in ElementTree.iterparse(path):  # noqa: S314
            if element.tag.lower().endswith(("filename", "dataset")) and element.text:
                names.append(element.text.strip())
            element.clear()
    except ElementTree.ParseError:
        return []
    return names
