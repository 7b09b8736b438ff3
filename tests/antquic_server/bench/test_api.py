"""What benchmarks of one's own may rely on."""

from antquic_server.bench import api


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    """Each is documented where it is defined."""
    for name in api.__all__:
        assert getattr(api, name).__doc__, name


def test_names_do_not_vanish() -> None:
    """Removing one breaks somebody's benchmark: this list is a promise, add to it only."""
    assert set(api.__all__) >= {
        *("Benchmark", "Column", "Progress", "Report", "Table", "listed", "whole", "whole_list"),
        *("ServerUnderTest", "running_node", "running_stock_server"),
        *("ClientConnection", "ClientSettings", "LoadClient", "random_node_key"),
        *("PqcPool", "load_provider"),
    }
