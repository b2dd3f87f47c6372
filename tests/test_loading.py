"""What installed packages add to a table."""

from importlib.metadata import EntryPoint

import pytest

from dovetail import loading
from dovetail.errors import ConfigError
from dovetail.loading import with_installed


def test_installed_packages_add_to_a_table_and_take_no_name_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [EntryPoint("root", "math:sqrt", "dovetail.test")]
    monkeypatch.setattr(loading, "entry_points", lambda group: entries if group == "dovetail.test" else [])
    table = {"absolute": abs}
    joined = with_installed(table, "dovetail.test")
    assert joined["root"](9.0) == 3.0
    assert list(table) == ["absolute"]
    entries.append(EntryPoint("absolute", "math:fabs", "dovetail.test"))
    with pytest.raises(ConfigError, match=r"dovetail\.test: 'absolute' \(math:fabs\)"):
        with_installed(table, "dovetail.test")
