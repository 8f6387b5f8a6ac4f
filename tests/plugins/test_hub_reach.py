"""Without a connection the hub's client is left to its cache, and with one it is not."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from refcore_plugins.models import hub_reach


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_reach, "_FORCED", False)
    monkeypatch.setattr(hub_reach, "_asked", [])
    monkeypatch.setattr(hub_reach, "getproxies", dict)


@pytest.fixture
def port():
    """Of a server that listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_hub_that_answers_is_asked_and_one_that_does_not_is_left_alone(monkeypatch, port):
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    hub_reach.offline_unless_reachable()
    assert constants.HF_HUB_OFFLINE is False
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    hub_reach.offline_unless_reachable()
    assert constants.HF_HUB_OFFLINE is False  # the answer of a moment ago holds
    hub_reach._asked.clear()
    hub_reach.offline_unless_reachable()
    assert constants.HF_HUB_OFFLINE is True
    hub_reach.try_again()
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("kind", ["http", "all"])
def test_the_environments_word_and_a_proxy_stand(monkeypatch, kind):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub_reach, "getproxies", lambda: {kind: "http://proxy:3128"})
    hub_reach.offline_unless_reachable()
    assert constants.HF_HUB_OFFLINE is False
    monkeypatch.setattr(hub_reach, "_FORCED", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_reach._asked.clear()
    hub_reach.offline_unless_reachable()
    assert constants.HF_HUB_OFFLINE is True
