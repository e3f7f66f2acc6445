"""The table of importers: each entry has one way to read, and what it names exists."""

import argparse
import inspect

import pytest

from dpcore.config.registry import loaded
from dpcore.data.formats import IMPORTERS, Importer
from dpcore.importers.people import LabelSource, PeopleFile


def test_an_importer_has_a_reader_or_a_builder() -> None:
    for given in ({}, {"reader": "a:b", "builder": "c:d"}):
        with pytest.raises(ValueError, match="importer mine: give it a reader or a builder"):
            Importer(name="mine", help="", **given)


@pytest.mark.parametrize("name", IMPORTERS.own)
def test_a_format_declares_the_options_that_its_reader_takes(name: str) -> None:
    importer = IMPORTERS.get(name)
    read = loaded(importer.reader, what=name)
    signature = inspect.signature(read, eval_str=True)
    assert signature.return_annotation is PeopleFile
    source, *options = signature.parameters.values()
    assert source.annotation is LabelSource
    assert tuple(option.name for option in options) == importer.options
    parser = argparse.ArgumentParser()
    importer.add_options(parser)
    declared = {action.dest for action in parser._actions} - {"help"}
    assert declared == set(importer.options)
