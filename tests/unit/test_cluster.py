"""What starting or joining Ray does to the process, and whom it lets in."""

from __future__ import annotations

import io
import logging
import os

import pytest

from maskrcnn import cluster
from maskrcnn.errors import ClusterError


def test_quieting_ray_data_does_not_quieten_our_own_warnings() -> None:
    ours, ray_data = logging.getLogger("maskrcnn.here"), logging.getLogger("ray.data")
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    logging.getLogger().addHandler(handler)
    before = ray_data.handlers[:]
    ray_data.addHandler(handler)  # as Ray Data does when it is imported after logging was configured
    try:
        cluster.keep_ray_data_off_the_terminal()
        ray_data.error("plumbing")
        ours.warning("the bucket is on fire")
    finally:
        logging.getLogger().removeHandler(handler)
        ray_data.handlers[:] = before
    assert text.getvalue() == "the bucket is on fire\n"


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without any of Ray's variables, put back afterwards."""
    for name in [*cluster.LOCAL_RAY_ENVIRONMENT, "RAY_ADDRESS"]:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", True)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    return monkeypatch


@pytest.fixture
def started(clean: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """How Ray was started, had it been."""
    calls: list[dict[str, object]] = []
    clean.setattr("ray.init", lambda **options: calls.append(options))
    clean.setattr("maskrcnn.cluster._end_with_local_ray", lambda: None)
    return calls


@pytest.mark.parametrize("opened", ["1", "true", "True"])
@pytest.mark.parametrize("mode", [None, "disabled", ""])
def test_a_local_ray_that_others_could_reach_is_refused_without_a_token(
    started: list[object], clean: pytest.MonkeyPatch, opened: str, mode: str | None
) -> None:
    clean.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", opened)
    if mode is not None:
        clean.setenv("RAY_AUTH_MODE", mode)
    with pytest.raises(ClusterError) as caught:
        cluster.connect()
    assert str(caught.value) == (
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER must not open this job's Ray to other machines unless RAY_AUTH_MODE is "
        f"token, got {opened}; unset it, or set RAY_ADDRESS to join a cluster"
    )
    assert started == []


def test_with_a_token_a_local_ray_may_listen_elsewhere(started: list[object], clean: pytest.MonkeyPatch) -> None:
    import ray._private.ray_constants as constants

    clean.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    clean.setenv("RAY_AUTH_MODE", "token")
    cluster.connect()
    assert len(started) == 1
    assert constants.ENABLE_RAY_CLUSTER is True


def test_options_cannot_move_a_local_ray_to_another_address(started: list[object]) -> None:
    with pytest.raises(ClusterError, match="_node_ip_address must be of the loopback, got 0.0.0.0"):
        cluster.start_local_ray(_node_ip_address="0.0.0.0")
    assert started == []


@pytest.mark.parametrize("address", [None, "", "local"])
def test_without_a_cluster_to_join_ray_starts_here_on_loopback(
    started: list[dict[str, object]], clean: pytest.MonkeyPatch, address: str | None
) -> None:
    import ray._private.ray_constants as constants

    if address is not None:
        clean.setenv("RAY_ADDRESS", address)
    assert not cluster.is_on_cluster()
    cluster.connect()
    assert started[0]["address"] == "local"
    assert started[0]["include_dashboard"] is False
    assert constants.ENABLE_RAY_CLUSTER is False


@pytest.mark.parametrize("has_token", [True, False])
@pytest.mark.parametrize("place", ["10.0.0.7", "127.0.0.1", "::1"])
def test_joining_a_cluster_that_is_open_to_others_is_told_with_what_to_do(
    started: list[object],
    clean: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    has_token: bool,
) -> None:
    clean.setenv("RAY_ADDRESS", f"{place}:6379")
    clean.setattr("ray.nodes", lambda: [{"Alive": True, "NodeManagerAddress": place}])
    if has_token:
        clean.setenv("RAY_AUTH_MODE", "token")
    cluster.connect()
    assert len(started) == 1
    told = [record.getMessage() for record in caplog.records]
    if has_token or place != "10.0.0.7":
        assert told == []
    else:
        (line,) = told
        assert line.startswith("the Ray cluster at 10.0.0.7 runs code for anyone who reaches it")
        assert "RAY_AUTH_MODE=token" in line
        assert "\n" not in line


def test_a_cluster_that_asks_for_a_token_we_lack_is_told_in_one_line(clean: pytest.MonkeyPatch) -> None:
    import ray.exceptions

    def refuse(**_: object) -> None:
        raise ray.exceptions.AuthenticationError("no authentication token was found\nhow to get one")

    clean.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    clean.setattr("ray.init", refuse)
    with pytest.raises(ClusterError) as caught:
        cluster.connect()
    assert "\n" not in str(caught.value)
    assert "no authentication token was found" in str(caught.value)


def test_nodes_that_are_gone_or_on_loopback_are_no_way_in() -> None:
    places = {"a.head": True, "10.0.0.1": True, "10.0.0.2": False, "127.0.0.5": True, "localhost": True}
    nodes = [{"NodeManagerAddress": place, "Alive": is_up} for place, is_up in places.items()]
    assert cluster.reachable_addresses(nodes) == ["10.0.0.1", "a.head"]


def test_joining_a_cluster_leaves_its_keepalives_alone(started: list[object], clean: pytest.MonkeyPatch) -> None:
    """Its servers cut off who pings more often than they were told: a training's call, quiet for long, would fail."""
    clean.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    clean.setattr("ray.nodes", list)
    cluster.connect()
    assert started == [{"logging_level": logging.WARNING}]
    assert not cluster.KEEPALIVE_ENVIRONMENT.keys() & os.environ.keys()
