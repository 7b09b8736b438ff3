"""The meanings of the settings: one for each, fit for a cell of a table."""

from antquic_server.config.meanings import MEANINGS
from antquic_server.config.model import rules_of, section_types


def test_every_setting_has_its_meaning_in_the_order_of_the_model() -> None:
    """None is missing, none is left of a setting that is gone."""
    assert list(MEANINGS) == [f"{section}.{key}" for section in section_types() for key in rules_of(section)]


def test_a_meaning_is_a_sentence_of_one_line() -> None:
    """A line break or a bar would end the cell or the row."""
    for key, meaning in MEANINGS.items():
        assert meaning.endswith((".", "*")), key
        assert meaning.strip() == meaning, key
        assert not {"|", "\n"} & set(meaning), key
