import json
import subprocess
import sys
import time

import yaml
from doctored import GOOD, look


def typed(folder, *arguments):
    code = "import sys; from radprobe.cli import main; sys.argv[0] = 'radprobe'\ntry: main()\n"
    code += "finally: print({'torch', 'pandas', 'sklearn'} & set(sys.modules), file=sys.stderr)"
    ran = [sys.executable, "-c", code, "doctor", *arguments]
    return subprocess.run(ran, cwd=folder, capture_output=True, text=True)


def test_a_good_study_ends_well_in_seconds_and_imports_nothing_heavy(folder):
    (folder / "params.yaml").write_text(yaml.safe_dump(GOOD))
    before, begun = set(folder.rglob("*")), time.monotonic()
    done = typed(folder)
    assert time.monotonic() - begun < 20
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("Nothing here would stop a run.")
    assert done.stderr.strip() == "set()"
    assert set(folder.rglob("*")) == before


def test_a_problem_ends_with_1_and_has_a_remedy(folder):
    (folder / "params.yaml").write_text(yaml.safe_dump(GOOD | {"datasets": {"amos": {}}}))
    done = typed(folder)
    assert done.returncode == 1
    assert "1 problem(s)" in done.stdout
    assert "radprobe datasets amos" in done.stdout
    told = json.loads(typed(folder, "--json").stdout)
    assert told["problems"] == 1


def test_without_a_study_the_machine_is_looked_at_but_a_study_that_was_named_must_be_there(folder):
    done = typed(folder)
    assert done.returncode == 0
    assert "only the machine is looked at" in done.stdout
    done = typed(folder, "--params", "params.yaml")
    assert done.returncode == 1
    assert "params.yaml: is not there" in done.stdout


def test_a_params_file_with_a_mistake_is_a_problem_and_the_machine_is_looked_at_all_the_same(folder, capsys):
    well, checks = look(capsys, threads=0)
    assert not well
    assert "threads" in checks["params"]["found"]
    assert checks["CPU"]["state"] == "ok"
