"""Whatever is in a configuration file, it is a configuration, or the mistakes are named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netobs.base.errors import ConfigError
from netobs.config import from_tables, parse
from netobs.config.schema import TABLES, Config, all_keys

# Real names make the fuzz reach the values, and between them whatever TOML can express.
VALUES = st.recursive(
    st.one_of(
        st.text(max_size=40),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.booleans(),
        st.datetimes(),
        st.times(),
        st.sampled_from(
            ["5s", "0s", "16MiB", "[::1]:9990", "192.0.2.1", "::", "tcp", "both", "/(/", "/[[a]/", "[z-a]"]
        ),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from([entry.name for entry in all_keys()]) | st.text(max_size=12)
TABLE = st.dictionaries(KEYS, VALUES, max_size=6)
FILES = st.dictionaries(
    st.sampled_from(list(TABLES)) | st.text(max_size=9), TABLE | st.lists(TABLE | VALUES, max_size=3) | VALUES
)


@given(FILES)
def test_whatever_the_file_says_only_config_errors_come_of_one_line_each(tables: dict[str, object]) -> None:
    result: Config | list[str]
    try:
        result = from_tables(tables, "F")
    except ConfigError as error:
        result = error.problems
    assert isinstance(result, Config) or (result and all(problem.isprintable() for problem in result))


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "F")
    assert all(problem.isprintable() for problem in caught.value.problems)
