"""What holds for every label, tag, duration, name and template."""

from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from meshkit.model import INSTANCE_ID, METADATA_KEY, SERVICE_NAME
from meshkit.registrator.durations import seconds
from meshkit.registrator.naming import dns_label, dns_name
from meshkit.registrator.options import Options
from meshkit.registrator.tags import split_tags
from meshkit.registrator.template import Template, TemplateError
from tests.registrator.inspected import made, read, recorded

# However busy the machine is.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(max_size=12)
KEYS = st.one_of(
    TEXT,
    st.sampled_from(
        [
            *("NAME", "ID", "TAGS", "IGNORE", "NETWORK", "REGION", "CHECK_HTTP", "CHECK_HTTPS"),
            *("CHECK_TCP", "CHECK_TTL", "CHECK_INTERVAL", "CHECK_SCRIPT", "CHECK_INITIAL_STATUS"),
        ]
    ),
)
SCOPES = st.sampled_from(["", "80_", "53_", "53_UDP_", "53_TCP_", "9_", "99999_", "٣_"])
LABELS = st.dictionaries(
    st.builds(lambda scope, key: f"SERVICE_{scope}{key}", SCOPES, KEYS), TEXT, max_size=12
)
PORTS: dict[str, int | None] = {"80/tcp": 8080, "53/udp": 53, "53/tcp": 53, "9/tcp": None}


@unhurried
@given(LABELS, LABELS, st.sampled_from([{}, {"internal": True}, {"explicit": True}]))
def test_whatever_the_labels_the_records_are_sound(
    env: dict[str, str], labels: dict[str, str], options: dict[str, Any]
) -> None:
    found = read(made(PORTS, labels, env=env), warned=[], **options)
    assert len({each.id for each in found}) == len(found)
    assert list(found) == sorted(found, key=lambda each: each.id)
    for each in found:
        assert each.id
        assert each.name
        assert each.host
        assert 0 < each.port < 65536
        assert all(each.tags)
        assert all(METADATA_KEY.fullmatch(key) for key in each.attributes)
        assert not any(key.startswith("check_") for key in each.attributes)
        assert SERVICE_NAME.fullmatch(dns_name(each.name))


@unhurried
@given(LABELS)
def test_a_container_read_twice_gives_the_same(labels: dict[str, str]) -> None:
    assert read(made(PORTS, labels), warned=[]) == read(made(PORTS, labels), warned=[])


TAG = st.text(
    st.characters(exclude_characters="\\", exclude_categories=["Cs", "Z", "C"]), min_size=1
)


@unhurried
@given(st.lists(TAG))
def test_tags_that_are_escaped_come_back(tags: list[str]) -> None:
    written = ",".join(tag.replace(",", "\\,") for tag in tags)
    assert split_tags(written) == tags


@unhurried
@given(st.integers(0, 99), st.integers(0, 59), st.integers(1, 999))
def test_durations(hours: int, minutes: int, milliseconds: int) -> None:
    expected = hours * 3600 + minutes * 60 + milliseconds / 1000
    assert abs(seconds(f"{hours}h{minutes}m{milliseconds}ms") - expected) < 1e-6


@unhurried
@given(st.text(st.sampled_from("0123456789.hmsnuµ- e"), max_size=8))
def test_durations_are_read_or_refused(text: str) -> None:
    try:
        value = seconds(text)
    except ValueError:
        return
    assert value > 0
    assert text[-1] in "hms"


@unhurried
@given(st.text())
def test_any_name_becomes_one_dns_label_and_stays_it(name: str) -> None:
    label = dns_name(name)
    assert SERVICE_NAME.fullmatch(label)
    assert dns_name(label) == label


@unhurried
@given(st.text(), st.text())
def test_different_ids_stay_different_labels(one: str, other: str) -> None:
    assert INSTANCE_ID.fullmatch(dns_label(one))
    assert (dns_label(one) == dns_label(other)) == (one == other)


def test_names_that_registries_refuse() -> None:
    assert dns_name("user-api") == "user-api"
    assert dns_name("User_API") == "user-api"
    assert dns_name("_web.v2_") == "web-v2"
    assert dns_name("7zip") == "svc-7zip"
    assert dns_name("___") == "svc"
    assert dns_name("a" * 80).startswith("aaaa")
    assert dns_label("host-1:web.1:80") != dns_label("host-1:web-1:80")


PIECES = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{{-",
            "-}}",
            "if ",
            "range ",
            "with ",
            "end",
            "else",
            ".Name",
            ".Config.Env",
        ),
        *(
            ".",
            "$",
            "$x",
            ":=",
            "|",
            "(",
            ")",
            '"a"',
            "`b`",
            "1",
            "-1",
            " ",
            ",",
            "sIndex ",
            "len ",
        ),
        *("join ", "index ", "nope", "/*", "*/", "printf ", "eq ", "x", "\\", '"'),
    ]
)


@settings(unhurried, max_examples=400)
@given(st.lists(PIECES, max_size=14).map("".join))
def test_a_template_is_filled_in_or_refused_in_one_line(source: str) -> None:
    data: dict[str, Any] = recorded("labels")
    said = ""
    try:
        rendered = Template(source).render(data)
    except TemplateError as error:
        said = str(error)
    else:
        assert "{{" in source or rendered == source
    assert "\n" not in said


@unhurried
@given(st.text(st.characters(exclude_characters="{"), max_size=30))
def test_a_text_without_actions_is_itself(text: str) -> None:
    assert Template(text).render({}) == text
    assert Options(tags=text).tags == text
