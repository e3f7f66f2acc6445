"""An MLflow server that the environment names is not used in silence."""

import pytest

from sweeps.tracking.mlflow_connection import unused_address


def test_a_server_of_the_environment_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@lab:5000")
    said = unused_address(None, used="sqlite:////store/mlflow.db")
    assert said == (
        "MLFLOW_TRACKING_URI is http://lab:5000 and is not used: runs go to sqlite:////store/mlflow.db; "
        "give --tracking-uri http://lab:5000 to send them there"
    )
    assert unused_address("http://other:5000", used="http://other:5000") is None


def test_without_one_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert unused_address(None, used="sqlite:///mlflow.db") is None
