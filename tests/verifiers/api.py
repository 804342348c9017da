"""Does a running service keep what its documents say?

    api.py openapi URL           is its OpenAPI document valid?
    api.py asyncapi URL SCHEMAS  is its AsyncAPI document valid, by the schemas of npm's @asyncapi/specs?
    api.py probe URL PICTURE     schemathesis asks everything that the OpenAPI document has
    api.py client URL PICTURE    a client that openapi-python-client generates submits, waits and downloads

Exits with 0 if so, or says what is wrong. Our own code takes no part in the verdict.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

HERE = pathlib.Path(__file__).parent
# As long as the probe goes on generating requests, in seconds.
PROBE_SECONDS = "100"


def fetch(url, path):
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url + path, timeout=60) as answer:
        return json.load(answer)


def openapi(url):
    from openapi_spec_validator import OpenAPIV31SpecValidator

    document = fetch(url, "/openapi.json")
    errors = [f"{list(error.path)}: {error.message}" for error in OpenAPIV31SpecValidator(document).iter_errors()]
    if errors:
        sys.exit("\n".join(errors))


def asyncapi(url, schemas):
    from jsonschema import Draft7Validator

    document = fetch(url, "/asyncapi.json")
    schema = json.loads(pathlib.Path(schemas, document["asyncapi"] + ".json").read_text())
    errors = [f"{list(error.path)}: {error.message}" for error in Draft7Validator(schema).iter_errors(document)]
    if errors:
        sys.exit("\n".join(errors))


def closed(document):
    """The document, with no room for what it does not name: so that every member that is served is documented."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    # The service runs with `--dev`, which asks for no key.
    for operation in (it for path in document["paths"].values() for it in path.values()):
        operation["security"] = []
    document["security"] = []
    return document


def probe(url, picture):
    picture = os.path.abspath(picture)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "openapi.json")
        path.write_text(json.dumps(closed(fetch(url, "/openapi.json"))))
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "run", str(path)]
        options = ["--url", url, "--max-time", PROBE_SECONDS, "--max-failures", "30", "--request-timeout", "30", "--workers", "2"]
        own = {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE), "NO_PROXY": "*"}
        environment = {**os.environ, **own, "DARKROOM_TEST_PICTURE": picture, "DARKROOM_TEST_URL": url}
        if subprocess.run([*command, *options], env=environment, cwd=folder).returncode != 0:
            sys.exit("the service does not keep what its document says")


def client(url, picture):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "openapi.json")
        path.write_text(json.dumps(fetch(url, "/openapi.json")))
        generator = pathlib.Path(sys.executable).with_name("openapi-python-client")
        options = ["--path", str(path), "--output-path", str(pathlib.Path(folder, "client")), "--meta", "none"]
        subprocess.run([generator, "generate", *options], check=True)
        sys.path.insert(0, folder)
        use_client(url, picture)


def use_client(url, picture):
    from client import Client
    from client.api.jobs import get_artifact, get_job, submit_job
    from client.models import Job, JobForm
    from client.types import File

    service = Client(base_url=url, timeout=60.0)
    image = File(payload=open(picture, "rb"), file_name="picture.jpg", mime_type="image/jpeg")
    accepted = submit_job.sync_detailed(client=service, body=JobForm(image=image, tags="generated"))
    assert accepted.status_code == 202 and isinstance(accepted.parsed, Job), accepted
    job = accepted.parsed
    while job.finished_at is None:
        job = get_job.sync(job.id, client=service, prefer="wait=30")
    assert job.status == "completed" and job.tags == ["generated"], job
    assert {artifact.name for artifact in job.artifacts} == {"optimized", "preview", "thumbnail"}, job.artifacts
    thumbnail = get_artifact.sync_detailed(job.id, "thumbnail", client=service)
    assert thumbnail.status_code == 200 and thumbnail.content[:2] == b"\xff\xd8", thumbnail
    print("submitted, waited, downloaded")


if __name__ == "__main__":
    {"openapi": openapi, "asyncapi": asyncapi, "probe": probe, "client": client}[sys.argv[1]](*sys.argv[2:])
