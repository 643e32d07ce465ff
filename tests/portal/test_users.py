"""The administrator's page of log-ins."""

import re
from collections.abc import Callable

import pytest
from flask import Flask

from smart_auth.models import SecondFactor
from smart_auth.service import AuthService
from tests.portal.conftest import Person
from tests.smart_auth.oauth import hidden, log_in

NEW = "another horse"


@pytest.fixture
def adam(person: Callable[[str], Person]) -> Person:
    return person("adam")


def test_shows_who_may_log_in(adam: Person, auth: AuthService) -> None:
    auth.store.set_user("otto", active=False)
    auth.credentials.set_second_factor(SecondFactor("frida", "S" * 32, (), 0))
    html = adam.open("/admin/users")
    rows = {row[0]: row[1] for row in re.findall(r'<th scope="row">(\w+).*?</th>(.*?)</tr>', html, re.S)}
    assert set(rows) == {"adam", "frida", "ruth", "otto"}
    assert "Ended" in rows["otto"]
    assert "front-desk" in rows["frida"]
    assert "with a second factor" in rows["frida"]
    assert "password_hash" not in html
    assert "$argon2" not in html


def test_ends_a_log_in_at_once_and_lets_it_in_again(
    adam: Person, person: Callable[[str], Person], app: Flask
) -> None:
    frida = person("frida")
    frida.open("/desk")
    assert frida.status == 200
    adam.open("/admin/users")
    assert "is ended" in adam.press("/users/frida/end")
    frida.open("/desk")
    assert frida.status == 401
    assert log_in(app.test_client(), "frida").status_code == 401
    assert "good again" in adam.press("/users/frida/begin")
    assert log_in(app.test_client(), "frida").status_code == 303


def test_a_link_lets_its_user_choose_a_password(adam: Person, app: Flask) -> None:
    adam.open("/admin/users")
    html = adam.press("/users/ruth/link")
    assert adam.status == 201
    link = re.search(r"<code>http://127\.0\.0\.1:8080(/auth/password/new/[\w-]+)</code>", html)
    assert link
    ruth = app.test_client()
    form = {"login_token": hidden(ruth.get(link[1]).text, "login_token"), "password": NEW, "again": NEW}
    assert ruth.post(link[1], data=form).status_code == 200
    assert log_in(ruth, "ruth", NEW).status_code == 303


def test_removes_a_second_factor_of_who_lost_it(adam: Person, auth: AuthService) -> None:
    auth.credentials.set_second_factor(SecondFactor("frida", "S" * 32, (), 0))
    adam.open("/admin/users")
    assert "password alone" in adam.press("/users/frida/one-factor")
    assert auth.credentials.second_factor("frida") is None


def test_nobody_ends_their_own(adam: Person, auth: AuthService) -> None:
    adam.open("/admin/users")
    assert not adam.has("/users/adam/end")
    adam.send("/admin/users/adam/end", csrf_token=adam.csrf)
    assert adam.status == 422
    user = auth.store.user("adam")
    assert user and user.active


@pytest.mark.parametrize("move", ["end", "begin", "link", "one-factor"])
def test_is_for_administrators_and_known_log_ins(
    adam: Person, person: Callable[[str], Person], auth: AuthService, move: str
) -> None:
    frida = person("frida")
    frida.open("/admin/users")
    assert frida.status == 403
    frida.open("/desk")
    frida.send(f"/admin/users/ruth/{move}", csrf_token=frida.csrf)
    assert frida.status == 403
    adam.open("/admin/users")
    adam.send(f"/admin/users/nobody/{move}", csrf_token=adam.csrf)
    assert adam.status == 404
    adam.send(f"/admin/users/ruth/{move}")
    assert adam.status == 403, "without the form's token"
