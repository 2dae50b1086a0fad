"""Who may see and who may act: passwords, hosts, and requests that another site forges."""

from __future__ import annotations

import base64

import pytest

from opsq.exceptions import UsageError
from opsq.monitor import access
from opsq.monitor.access import Access
from opsq.monitor.server import Place, check_access, prefix_of


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


RULES = Access(("anna:secret", "bert:pa:ss:wörd"))


@pytest.mark.parametrize(("given", "user"), [("anna:secret", "anna"), ("bert:pa:ss:wörd", "bert")])
def test_the_right_password_opens(given: str, user: str) -> None:
    assert RULES.user(basic(given)) == user


@pytest.mark.parametrize(
    "header", [None, "", "Basic", "Basic !!!", "Bearer x", basic("anna:Secret"), basic("anna:"), basic(""), basic(":")]
)
def test_anything_else_does_not(header: str | None) -> None:
    assert RULES.user(header) is None


@pytest.mark.parametrize("text", ["anna", "anna:", ":secret", "anna:secret,bert"])
def test_an_account_is_user_and_password(text: str) -> None:
    with pytest.raises(ValueError):
        access.accounts_of([text])


def test_several_accounts_stand_with_commas_as_flower_has_them() -> None:
    assert access.accounts_of(["anna:secret,bert:word", "carl:x"]) == ("anna:secret", "bert:word", "carl:x")


@pytest.mark.parametrize("host", ["localhost", "localhost:5555", "127.0.0.1:5555", "[::1]:5555", "127.9.9.9"])
def test_without_a_password_this_machine_is_answered(host: str) -> None:
    assert Access().knows_host(host)


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1:5555", "", None, "[::2]"])
def test_without_a_password_other_names_are_not(host: str | None) -> None:
    assert not Access().knows_host(host)
    assert RULES.knows_host(host)


def test_buttons_need_a_password() -> None:
    assert not Access().may_act
    assert RULES.may_act
    assert not Access(("a:b",), read_only=True).may_act


SESSION = access.new_session()
SAME = {"host": "ops.example", "origin": "https://ops.example", "cookie": f"{access.COOKIE}={SESSION}"}


def test_a_form_of_ours_is_let_through() -> None:
    assert RULES.forged(SAME, RULES.token(SESSION)) is None
    assert RULES.forged({**SAME, "sec-fetch-site": "same-origin"}, RULES.token(SESSION)) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"cookie": ""},
        {"cookie": f"{access.COOKIE}={access.new_session()}"},
        {"cookie": f"{access.COOKIE}=x;;;=\x00"},
    ],
)
def test_a_forged_request_is_not(changed: dict[str, str]) -> None:
    assert RULES.forged({**SAME, **changed}, RULES.token(SESSION))


@pytest.mark.parametrize("token", ["", "0" * 64, "ü"])
def test_a_wrong_token_is_refused(token: str) -> None:
    assert RULES.forged(SAME, token)


def test_tokens_of_another_process_are_refused() -> None:
    assert RULES.forged(SAME, Access(("anna:secret",)).token(SESSION))


def test_secrets_do_not_stand_in_what_is_printed() -> None:
    assert "secret" not in repr(RULES)


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "10.1.2.3", "ops.example", ""])
def test_other_addresses_than_loopback_demand_a_password(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_access(Place(address), Access())
    assert f"--address {address} --basic-auth USER:PASSWORD" in caught.value.hint
    check_access(Place(address), RULES)


@pytest.mark.parametrize(("text", "path"), [("", ""), ("/", ""), ("ops", "/ops"), ("/ops/", "/ops"), ("a/b", "/a/b")])
def test_prefixes_are_paths(text: str, path: str) -> None:
    assert prefix_of(text) == path


@pytest.mark.parametrize("text", ["a b", "../x", "a?b", 'a"b', "<a>", "a//b"])
def test_what_is_no_path_is_no_prefix(text: str) -> None:
    with pytest.raises(UsageError):
        prefix_of(text)
