"""`lcm inspect` reads the tables of one run and nothing else, and shows them as they are."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcm_distill.config import load_preset
from lcm_distill.pipeline.run_folder import RunFolder
from lcm_distill.stages.queries import MADE_BY, VIEWS
from tests.command_line import lcm
from tests.conftest import SMALL

HOSTILE = "[/b] \x1b]0;title\x07 \x9b31m :smile: \u202eevil\u2028 \r [red]x"


@pytest.fixture
def run(tmp_path, small_config) -> RunFolder:
    """A run with a table of captions and one of metrics alone."""
    run = RunFolder(tmp_path / "seed=1" / "exp[1]")
    run.open(small_config)
    (run.cache / "catalog").mkdir(parents=True)
    pq.write_table(pa.table({"row": [0, 1], "caption": [HOSTILE, "a ring"]}), run.cache / "catalog/captions.parquet")
    pq.write_table(pa.table({"metric": ["fid"], "value": [1.5]}), run.metrics)
    return run


def tree(run: RunFolder) -> dict:
    return {path: path.read_bytes() for path in run.root.parent.parent.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1 AS a) TO '{root}/metrics.parquet'",
        "COPY metrics TO '{root}/copy.csv'",
        "ATTACH '{root}/new.duckdb'",
        "EXPORT DATABASE '{root}/all'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "FROM read_csv('/etc/passwd')",
        "FROM read_text('/etc/passwd')",
        "FROM '{root}/metrics.parquet'",
        "FROM glob('{root}/*')",
        "FROM read_parquet('http://127.0.0.1:9/x.parquet')",
        "CREATE PERSISTENT SECRET (TYPE s3, KEY_ID 'a', SECRET 'b')",
        "SET enable_external_access=true",
        "SET allowed_directories=['/']",
        "FROM tables",
        "SELECT getenv('HOME')",
    ],
)
def test_everything_but_a_query_is_refused_in_one_line(run, sql):
    before = tree(run)
    result = lcm("inspect", sql.format(root=run.root), "--run", run.root)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("lcm: DuckDB: ")
    assert tree(run) == before


def test_queries_see_the_views(run):
    answers = {
        "SELECT value FROM metrics": [{"value": 1.5}],
        "SELECT metric, caption FROM METRICS JOIN captions ON row = 1": [{"metric": "fid", "caption": "a ring"}],
        "SHOW TABLES": [{"name": "captions"}, {"name": "metrics"}],
    }
    for sql, rows in answers.items():
        assert json.loads(lcm("inspect", sql, "--run", run.root, "--json").stdout) == rows


def test_columns_that_only_some_files_have(run):
    folder = run.distill / "events"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"step": [0], "loss": [1.0]}), folder / "from-0000000.parquet")
    pq.write_table(pa.table({"step": [1], "loss": [0.5], "memory_gib": [2.0]}), folder / "from-0000001.parquet")
    rows = json.loads(lcm("inspect", "FROM events ORDER BY step", "--run", run.root, "--json").stdout)
    assert rows == [{"step": 0, "loss": 1.0, "memory_gib": None}, {"step": 1, "loss": 0.5, "memory_gib": 2.0}]


def test_what_others_wrote_is_shown_and_not_obeyed(run):
    shown = lcm("inspect", f'SELECT caption AS "{HOSTILE.replace(chr(13), "")}" FROM captions', "--run", run.root)
    assert shown.exit_code == 0, shown.output
    assert not set("\x1b\x07\x9b\r\u202e\u2028") & set(shown.output)
    assert shown.stdout.count("[/b] \\x1b]0;title\\x07 \\x9b31m :smile: \\u202eevil\\u2028") == 2
    exact = lcm("inspect", "SELECT caption FROM captions LIMIT 1", "--run", run.root, "--json").stdout
    assert json.loads(exact) == [{"caption": HOSTILE}] and "\x1b" not in exact


def test_other_tables_and_errors_obey_nothing(tmp_path):
    here = tmp_path / "[/b]\x1b[31m"
    for words in (["status", "--run", here], ["export", "--run", here], ["compare", here],
                  ["config", "show", "--preset", "[/b]\x1b[31m"], ["sample", "a", "--run", here]):  # fmt: skip
        refused = lcm(*words)
        assert refused.exit_code == 2 and "[/b]\\x1b[31m" in refused.stderr and "\x1b" not in refused.stderr
    RunFolder(here).open(load_preset("shapes", SMALL))
    shown = lcm("status", "--run", here)
    assert shown.exit_code == 0 and "[/b]\\x1b[31m" in shown.stdout and "\x1b" not in shown.output


@pytest.mark.parametrize(
    ("damaged", "sql", "remedy"),
    [
        ("metrics.parquet", "FROM metrics", "delete it, and `lcm evaluate --run "),
        ("cache/catalog/captions.parquet", "FROM captions", "lcm verify --repair"),
    ],
)
def test_damage_is_named_and_hurts_no_other_table(run, damaged, sql, remedy):
    path = run.root / damaged
    content = path.read_bytes()
    for broken in (b"", b"PAR1", content[:-20], content[: len(content) // 2], b"\0" * len(content)):
        path.write_bytes(broken)
        refused = lcm("inspect", sql, "--run", run.root)
        assert refused.exit_code == 3 and f"{path} is damaged: " in refused.stderr and remedy in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    other = "SELECT 1 FROM captions" if "metrics" in damaged else "SELECT 1 FROM metrics"
    assert lcm("inspect", other, "--run", run.root).exit_code == 0


def test_a_flipped_bit_of_the_values_of_a_table_is_seen(run, finished_run):
    for name, sql in (("metrics.parquet", "FROM metrics"), ("distill/events/from-0000000.parquet", "FROM events")):
        path = run.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        shutil.copyfile(finished_run.root / name, path)
        content = bytearray(path.read_bytes())
        values = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # the rest is the footer
        for place in range(40, values, values // 4):
            flipped = bytes(content[:place]) + bytes([content[place] ^ 4]) + bytes(content[place + 1 :])
            path.write_bytes(flipped)
            result = lcm("inspect", sql, "--run", run.root)
            whole = lcm("inspect", sql, "--run", finished_run.root)
            assert result.exit_code == 3 or result.stdout == whole.stdout, (name, place, result.output)


def test_csv_has_whole_values(run):
    long = "a, b " * 100
    query = f"SELECT caption, '{long}' AS long, [1, 2] AS list, NULL AS none, true AS yes FROM captions WHERE row = 1"
    printed = lcm("inspect", query, "--run", run.root, "--csv").stdout
    assert printed == f'caption,long,list,none,yes\na ring,"{long}","[1, 2]",,true\n'


def test_csv_shows_what_a_terminal_would_obey_as_escapes(run):
    printed = lcm("inspect", "SELECT caption FROM captions WHERE row = 0", "--run", run.root, "--csv").stdout
    assert "\x1b" not in printed and "[red]x" in printed


def test_csv_names_its_columns_without_a_row_and_keeps_those_of_one_name(run):
    def printed(query):
        return lcm("inspect", query, "--run", run.root, "--csv").stdout

    assert printed("SELECT row, caption FROM captions WHERE row < 0") == "row,caption\n"
    assert printed("SELECT 1 AS a, 2 AS a, 3 AS a_2") == "a,a_2,a_2_2\n1,2,3\n"


def test_json_has_numbers_for_sums_and_nothing_that_is_no_json(run):
    query = """SELECT sum(row) AS total, 1.5::DECIMAL(4, 2) AS fixed, 'nan'::DOUBLE AS none, [0.25::DOUBLE, 'inf']
        AS list, DATE '2026-01-02' AS day, {'a': 2.0::DECIMAL(9, 1)} AS record FROM (VALUES (1), (2)) AS given(row)"""

    def refuse(constant):
        raise AssertionError(constant)

    (row,) = json.loads(lcm("inspect", query, "--run", run.root, "--json").stdout, parse_constant=refuse)
    assert row == {
        "total": 3, "fixed": 1.5, "none": None, "list": [0.25, None], "day": "2026-01-02", "record": {"a": 2},
    }  # fmt: skip


def test_csv_and_json_exclude_each_other(run):
    result = lcm("inspect", "FROM captions", "--run", run.root, "--csv", "--json")
    assert result.exit_code == 2 and "exclude each other" in result.stderr


@pytest.mark.parametrize(
    ("view", "said"),
    [
        ("guidance", "`lcm evaluate --guidance 1,2,3 --run {}` makes it"),
        ("schedule", "`lcm schedule --run {}` makes it"),
        ("nothing", "Views are samples, captions, "),
    ],
)
def test_a_view_that_is_not_there_names_the_command_that_makes_it(run, view, said):
    error = lcm("inspect", f"SELECT * FROM {view}", "--run", run.root).stderr
    assert f"{view} does not exist! {said.format(run.root)}" in error and "pg_" not in error


def test_every_view_has_a_command_that_makes_it():
    assert VIEWS.keys() == MADE_BY.keys()
