"""What the verb `sweep` needs before it begins."""

import os
import sys

import pytest

import experiments_manager as em
from experiments_manager.sweeps.errors import SweepError


def test_without_hyperopt_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "hyperopt", None)
    with pytest.raises(SweepError, match=r"needs hyperopt.*pip install 'hyperopt"):
        em.sweep("mysweep.py")


def test_where_processes_cannot_be_forked_it_says_what_works(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(SweepError, match="which this system cannot do"):
        em.sweep("mysweep.py")
