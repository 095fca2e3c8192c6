"""The image and the compose file, as far as they can be looked at without Docker."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
ENTRY = DOCKER / "entrypoint.sh"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def stages() -> list[list[tuple[str, str]]]:
    """Return the Dockerfile's stages as lists of (instruction, the rest); the first holds what stands before any stage."""
    text = re.sub(r"^\s*#.*\n", "", (DOCKER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[list[tuple[str, str]]] = [[]]
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            found += [[]] if word == "FROM" else []
            found[-1].append((word, " ".join(rest.split())))
    return found


def place(stage: list[tuple[str, str]], word: str, holds: str) -> int:
    """Return where in a stage the first instruction ``word`` that holds ``holds`` stands."""
    return next(i for i, (w, rest) in enumerate(stage) if w == word and holds in rest)


def test_every_instruction_is_one_that_dockerfiles_have() -> None:
    known = {"ARG", "FROM", "RUN", "COPY", "LABEL", "ENV", "USER", "WORKDIR", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {word for stage in stages() for word, _ in stage} <= known


def test_every_stage_begins_from_the_base_that_is_asked_for() -> None:
    assert all(stage[0][1].startswith("${BASE}") for stage in stages()[1:])


def test_the_libraries_are_installed_before_any_source_is_copied() -> None:
    _, libraries, wheel, final = stages()
    assert not [
        rest for word, rest in libraries if word == "COPY" and set(rest.split()) & {"pipeline", "models", "workflows"}
    ]
    assert place(libraries, "COPY", "requirements.lock") < place(libraries, "RUN", "--constraint requirements.lock")
    assert {rest for word, rest in wheel if word == "COPY"} >= {f"{p} {p}" for p in ("pipeline", "models", "workflows")}
    assert (
        place(final, "COPY", "--from=libraries")
        < place(final, "COPY", "--from=wheel")
        < place(final, "LABEL", "revision")
    )


def test_the_image_runs_as_a_user_without_rights_and_says_what_it_is() -> None:
    final = stages()[-1]
    words = [word for word, _ in final]
    assert int(dict(final)["USER"].split(":")[0]) > 0
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("RUN", "COPY"))
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD"} <= set(words)
    label = dict(final)["LABEL"]
    for name, value in (("version", PROJECT["version"]), ("licenses", PROJECT["license"]), ("title", PROJECT["name"])):
        assert f'org.opencontainers.image.{name}="{value}"' in label


def test_what_is_copied_is_there_and_passes_the_ignore_file() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in lines
    sent = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for word, rest in (step for stage in stages() for step in stage):
        if word == "COPY" and "--from" not in rest:
            copied |= {name for name in shlex.split(rest)[:-1] if not name.startswith("--")}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_what_is_installed_is_what_the_project_needs_and_no_tool_of_its_tests() -> None:
    def listed(*extras: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, DOCKER / "dependencies.py", *extras]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    optional = PROJECT["optional-dependencies"]
    assert listed().stdout.split("\n")[:-1] == PROJECT["dependencies"]
    assert listed("tune").stdout.split("\n")[:-1] == PROJECT["dependencies"] + optional["tune"]
    wrong = listed("tune", "tnue")
    assert wrong.returncode == 1
    assert "no extra tnue; it has" in wrong.stderr


def test_every_dependency_is_pinned_by_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {plain(line.split("==")[0]) for line in lock.splitlines() if "==" in line}
    needed = {plain(re.split(r"[<>=\[ ]", name)[0]) for name in PROJECT["dependencies"]}
    assert needed <= pinned


def plain(name: str) -> str:
    """Return a package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entry(tmp_path: Path, *words: str, gpus: int = 0, **environment: str) -> list[str]:
    """Run the entry point with stand-ins for what it starts; return the lines that they print, sorted."""
    said = '#!/bin/sh\necho "$(basename "$0")" "$@" "${CUDA_VISIBLE_DEVICES:+GPU $CUDA_VISIBLE_DEVICES}"\n'
    scripts = {"landweave": said, "dask": said, "nproc": "#!/bin/sh\necho 6\n"}
    if gpus:
        scripts["nvidia-smi"] = "#!/bin/sh\n" + "".join(f"echo 'GPU {i}: a card'\n" for i in range(gpus))
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", ENTRY, *words],
        env={"PATH": f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(line.rstrip() for line in done.stdout.splitlines())


def test_commands_are_passed_on(tmp_path: Path) -> None:
    assert entry(tmp_path) == ["landweave"]
    assert entry(tmp_path, "run", "a job.yaml", "--quiet") == ["landweave run a job.yaml --quiet"]
    assert entry(tmp_path, "dask", "scheduler", "--port", "8786") == ["dask scheduler --port 8786"]


def test_the_status_of_a_command_is_that_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "landweave").write_text("#!/bin/sh\nexit 2\n")
    (tmp_path / "landweave").chmod(0o755)
    assert subprocess.run(["/bin/sh", ENTRY, "run"], env={"PATH": f"{tmp_path}"}, check=False).returncode == 2


@pytest.mark.parametrize("gpus", [0, 1])
def test_a_worker_is_one_process(tmp_path: Path, gpus: int) -> None:
    lines = entry(tmp_path, "worker", "tcp://scheduler:8786", gpus=gpus)
    assert lines == ["dask worker --memory-limit 0 --nthreads 0 tcp://scheduler:8786"]


def test_a_worker_on_several_gpus_is_a_process_for_each(tmp_path: Path) -> None:
    lines = entry(tmp_path, "worker", "tcp://s:1", gpus=3)
    assert lines == [f"dask worker --memory-limit 0 --nthreads 2 tcp://s:1 GPU {i}" for i in range(3)]
    lines = entry(tmp_path, "worker", "tcp://s:1", gpus=2, WORKER_THREADS="5")
    assert lines == [f"dask worker --memory-limit 0 --nthreads 5 tcp://s:1 GPU {i}" for i in range(2)]


def services(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))["services"])


def test_the_services_see_the_same_folders_and_belong_to_the_caller() -> None:
    found = services("compose.yaml")
    assert set(found) == {"scheduler", "worker", "job"}
    assert all("LANDWEAVE_USER:?" in service["user"] for service in found.values())
    assert found["worker"]["volumes"] == found["job"]["volumes"]
    assert [v["target"] for v in found["job"]["volumes"]] == ["/data", "/output"]
    address = f"tcp://scheduler:{found['scheduler']['command'][-3]}"
    assert address in found["worker"]["command"]
    assert f"compute.scheduler={address}" in found["job"]["command"]
    assert all(port.startswith("127.0.0.1:") for port in found["scheduler"]["ports"])
    assert (DOCKER / found["job"]["build"]["context"] / found["job"]["build"]["dockerfile"]).is_file()


def test_gpus_are_reserved_for_what_computes() -> None:
    found = services("compose.gpu.yaml")
    assert set(found) == {"worker", "job"}
    for service in found.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
