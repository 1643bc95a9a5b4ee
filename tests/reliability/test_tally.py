"""The tally of the matrices tells the five outcomes apart."""

import time

import pytest

from mmseg_ext.errors import UserError
from tests.reliability import tally
from tests.reliability.tally import OUTCOMES, Tally


def raises(error: Exception) -> None:
    raise error


def test_each_outcome_is_counted_and_only_two_of_them_pass(request, monkeypatch) -> None:
    monkeypatch.setattr(tally, 'LIMIT', 1)
    counted = Tally('', request)
    request.node.user_properties.clear()  # these cases are none of a matrix
    counted.run('a', lambda: None)
    counted.run('b', lambda: raises(UserError('give another image')))
    counted.run('c', lambda: raises(KeyError('img')))
    counted.run('d', lambda: raises(AssertionError()))
    counted.run('e', lambda: time.sleep(5))
    assert counted.counts == dict.fromkeys(OUTCOMES, 1)
    assert [failure[0] for failure in counted.failures] == ['c', 'd', 'e']
    with pytest.raises(AssertionError, match='KeyError'):
        counted.check()
    counted.run('f', lambda: None, expected=tally.SENTENCE)
    assert counted.failures[-1].startswith('f: right result')
    with pytest.raises(AssertionError, match='no case ran'):
        Tally('', request).check()
    request.node.user_properties.clear()
