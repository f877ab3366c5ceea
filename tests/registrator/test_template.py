"""Templates of tags: what Go's text/template gives for Registrator's own examples, and errors."""

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from meshkit.registrator.template import Template, TemplateError, fetch
from meshkit.registrator.template.fetch import http_get

DATA: dict[str, Any] = {
    "Id": "e20f9c1a76565d62ae24a3bb877b17b862b6eab94f4e95a0e07ccf25087aaf4f",
    "Name": "/web",
    "RestartCount": 2,
    "State": {"Running": True, "Paused": False},
    "Config": {
        "Hostname": "e20f9c1a7656",
        "Env": ["ENVIRONMENT=test", "SERVICE_8105_NAME=foo", "SERVICE_9404_NAME=bar"],
        "Labels": {"arn": "aws:ecs/368f", "zone": "b"},
        "Cmd": None,
    },
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("plain, {text}", "plain, {text}"),
        ("{{.Config.Hostname}}", "e20f9c1a7656"),
        ("{{ .ID }}", DATA["Id"]),
        ("{{.Name}}:{{.RestartCount}}:{{.State.Running}}", "/web:2:true"),
        ("{{.Config.Labels.zone}}{{.Config.Labels.none}}", "b"),
        ("{{.Config.Labels}}", "map[arn:aws:ecs/368f zone:b]"),
        ('{{index .Config.Labels "arn"}}', "aws:ecs/368f"),
        ('{{index .Config.Labels "none"}}', ""),
        ("{{index .Config.Env 1}}", "SERVICE_8105_NAME=foo"),
        ("{{strSlice .ID 0 12}}", "e20f9c1a7656"),
        ("{{strSlice .Name 1}}", "web"),
        ("{{strSlice .Name 0 99}}", "/web"),
        ("{{sIndex 0 .Config.Env}}", "ENVIRONMENT=test"),
        ("{{sIndex -1 .Config.Env}}", "SERVICE_9404_NAME=bar"),
        ("{{sIndex 99 .Config.Env}}", "SERVICE_9404_NAME=bar"),
        ("{{sIndex -99 .Config.Env}}", "ENVIRONMENT=test"),
        ("{{sIndex 0 .Config.Cmd}}", ""),
        ('{{mIndex "arn" .Config.Labels}}', "aws:ecs/368f"),
        ('{{toUpper "foo"}}{{toLower "BAR"}}', "FOObar"),
        ('{{replace -1 "=" "" "=foo="}}', "foo"),
        ('{{replace 1 "=" "" "=foo="}}', "foo="),
        ('{{join "," .Config.Env}}', ",".join(DATA["Config"]["Env"])),
        ('{{split "," "/proc/bus,/proc/fs"}}', "[/proc/bus /proc/fs]"),
        ('{{splitIndex -1 "/" "a/b/c"}}{{split "/" "a/b/c" | sIndex 1}}', "cb"),
        ('{{matchFirstElement "^SERVICE_" .Config.Env}}', "SERVICE_8105_NAME=foo"),
        ('{{matchFirstElement "^NONE" .Config.Env}}', ""),
        (
            '{{matchAllElements "^SERVICE_" .Config.Env}}',
            "[SERVICE_8105_NAME=foo SERVICE_9404_NAME=bar]",
        ),
        ('{{jsonParse `{"a": {"b": "c"}}` "a::b"}}', "c"),
        ('{{jsonParse `{"a": [1, {"b": 2}]}` "a::[1]::b"}}', "2"),
        ('{{jsonParse "none" "a"}}', ""),
        ('{{.Config.Labels.zone | printf "%s-%s" "z" | print}}', "z-b"),
        ('{{printf "%s-%d %v %q%%" "z" 1 true "t"}}', 'z-1 true "t"%'),
        ('{{matchFirstElement "8105" .Config.Env | splitIndex 1 "=" | toUpper}}', "FOO"),
        ("{{(index .Config.Env 0)}}{{(.Config).Hostname}}", "ENVIRONMENT=teste20f9c1a7656"),
        ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
        ("{{if .State.Paused}}a{{else if .State.Running}}b{{else}}c{{end}}", "b"),
        ('{{if and .State.Running (eq .Name "/web" "/x")}}yes{{end}}', "yes"),
        ("{{if not .State.Running}}no{{end}}", ""),
        ('{{or .Config.Cmd "none"}}', "none"),
        ("{{if gt (len .Config.Env) 2}}many{{end}}", "many"),
        ("{{range .Config.Env}}{{.}};{{end}}", "".join(f"{e};" for e in DATA["Config"]["Env"])),
        ("{{range $i, $e := .Config.Env}}{{if $i}},{{end}}{{$i}}{{end}}", "0,1,2"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "arn=aws:ecs/368f zone=b "),
        ("{{range .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{with .Config.Labels}}{{.zone}}{{$.Name}}{{end}}", "b/web"),
        ("{{with .Config.Cmd}}x{{else}}none{{end}}", "none"),
        ("{{$x := .Name}}{{if true}}{{$x = `b`}}{{end}}{{$x}}", "b"),
        ("a {{- .Name -}} b", "a/webb"),
        ("a{{/* }} said */}}b {{- /* x */ -}} c", "abc"),
        ('{{"}}"}}{{`a"b`}}', '}}a"b'),
    ],
)
def test_templates(source: str, expected: str) -> None:
    assert Template(source).render(DATA) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{", "-tags: an action is not closed: '{{'"),
        ("a{{.Name", "-tags: an action is not closed: '{{.Name'"),
        ("{{}}", "-tags: {{}}: something is missing at the end"),
        ("{{env `HOME`}}", "-tags: {{env `HOME`}}: unknown function 'env'; known are and, eq, "),
        ("{{.Name | trim}}", "-tags: {{.Name | trim}}: unknown function 'trim'"),
        ("{{.Name 1}}", "-tags: {{.Name 1}}: only a function takes arguments"),
        ("{{(.Name}}", "-tags: {{(.Name}}: a parenthesis is not closed"),
        ("{{.Name)}}", "-tags: {{.Name)}}: ')' is out of place"),
        ("{{.Name ^}}", "-tags: '^' is not understood in '.Name ^'"),
        ("{{if .Name}}x", "-tags: {{if .Name}} has no {{end}}"),
        ("x{{end}}", "-tags: {{end}} without a block that it belongs to"),
        ("{{else}}", "-tags: {{else}} without a block that it belongs to"),
        ('{{template "x"}}', "-tags: {{template}} is not supported"),
        ("{{$a, $b := .Config}}", "-tags: {{$a, $b := .Config}}: only range sets two variables"),
        (r'{{"\q"}}', r'-tags: "\q" is not a string'),
    ],
)
def test_malformed_templates_are_one_line(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as raised:
        Template(source)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{.Name.First}}", "-tags: there is no field .First in '/web'"),
        ("{{.Config.Nope.Deeper}}", "-tags: there is no field .Deeper in ''"),
        ("{{index .Config.Env 9}}", "-tags: index does not fit its arguments"),
        ("{{toUpper 1}}", "-tags: toUpper does not fit its arguments '1'"),
        ("{{matchFirstElement `(` .Config.Env}}", "-tags: matchFirstElement does not fit"),
        ("{{sIndex 0 .Name}}", "-tags: sIndex does not fit its arguments '0', '/web'"),
        ("{{join}}", "-tags: join does not fit its arguments"),
        ("{{$x}}", "-tags: undefined variable '$x'"),
        ("{{range .Name}}{{end}}", "-tags: range over '/web', which is no list and no map"),
        ('{{printf "%d" "x"}}', "-tags: printf does not fit"),
        ('{{printf "%d"}}', "-tags: printf does not fit"),
        ('{{printf "%d" 1 2}}', "-tags: printf does not fit"),
        ('{{printf "%x" 1}}', "-tags: printf does not fit"),
        ('{{httpGet "file:///etc/hosts"}}', "-tags: httpGet does not fit"),
    ],
)
def test_what_does_not_fit_a_container_is_one_line(source: str, message: str) -> None:
    template = Template(source)
    with pytest.raises(TemplateError) as raised:
        template.render(DATA)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.fixture
def zone_server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/zone" else 404)
            self.end_headers()
            self.wfile.write(b'{"zone": {"name": "eu-1"}}')

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()


def test_http_get_asks_once_for_all_containers(
    zone_server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = zone_server
    template = Template(f'{{{{jsonParse (httpGet "{url}/zone") "zone::name"}}}}')
    assert template.fetches
    assert [template.render(DATA) for _ in range(3)] == ["eu-1"] * 3
    assert asked == ["/zone"]
    # What has become too old is asked for anew, and forgotten whoever asks for what.
    monkeypatch.setattr(fetch, "KEPT", 0.0)
    assert http_get(f"{url}/other") == ""
    assert asked == ["/zone", "/other"]
    assert list(fetch._answers) == [f"{url}/other"]


def test_http_get_that_fails_is_logged_and_empty(
    zone_server: tuple[str, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    url, _ = zone_server
    assert http_get(f"{url}/none") == ""
    assert "404" in caplog.text
    assert http_get(f"{url}/a b") == ""
    assert "can't contain control characters" in caplog.text
