"""Which addresses only this machine reaches."""

import pytest

from experiments_manager.common.machine.addresses import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_addresses_of_this_machine_are_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "::", "example.org", "127.0.0.1.example.org", ""])
def test_all_others_are_not(host):
    assert not is_loopback(host)
