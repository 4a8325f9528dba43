"""Progress where standard error is no terminal: which lines are printed, and when."""

from io import StringIO

import pytest
from rich.console import Console

from lcm_distill.pipeline.task import Progress
from lcm_distill.report.progress import plain_lines, show_progress
from tests.command_line import without_styles


def lines_of(*reports: tuple[float, Progress]) -> list[str]:
    """Lines of reports that come at these seconds."""
    clock = iter([seconds for seconds, _ in reports])
    return list(plain_lines((report for _, report in reports), lambda: next(clock)))


def encode(done: int, **counts) -> Progress:
    return Progress("encode", done, 40, "rows", counts)


def test_a_line_at_the_beginning_every_ten_seconds_and_at_the_end():
    reports = [(0.0, encode(0)), (4.0, encode(4)), (10.0, encode(10, quarantined=1)), (19.0, encode(30)),
               (20.0, encode(40, loss=0.25))]  # fmt: skip
    assert lines_of(*reports) == [
        "encode: 0/40 rows",
        "encode: 10/40 rows, 1.0/s, quarantined 1, 30 s left",
        "encode: 40/40 rows, 2.0/s, loss 0.25",
    ]


def test_the_last_line_is_printed_once():
    assert lines_of((0.0, encode(0)), (5.0, encode(40)), (6.0, encode(40)), (30.0, encode(40))) == [
        "encode: 0/40 rows",
        "encode: 40/40 rows, 8.0/s",
    ]


def test_work_that_is_complete_from_the_start_has_one_line():
    done = Progress("encode", 40, 40, "rows", resumed=40)
    assert lines_of((0.0, done), (0.1, done)) == ["encode: 40/40 rows"]


def test_each_label_has_its_own_first_and_last_line():
    reports = [(0.0, encode(40)), (1.0, Progress("train", 0, 2, "steps")), (3.0, Progress("train", 2, 2, "steps")),
               (3.0, encode(0)), (4.0, encode(40))]  # fmt: skip
    assert lines_of(*reports) == [
        "encode: 40/40 rows",
        "train: 0/2 steps",
        "train: 2/2 steps, 1.0/s",
        "encode: 0/40 rows",
        "encode: 40/40 rows, 40.0/s",
    ]


def test_more_work_under_the_same_label_ends_with_a_line_of_its_own():
    assert lines_of((0.0, encode(40)), (1.0, encode(0)), (2.0, encode(40))) == [
        "encode: 40/40 rows",
        "encode: 40/40 rows, 20.0/s",
    ]


def test_times_left_are_in_minutes_and_hours():
    (_, line) = lines_of((0.0, encode(0)), (600.0, encode(5)))
    assert line == "encode: 5/40 rows, 30.0/h, 1 h 10 min left"


@pytest.mark.parametrize("stderr", [False, True])
def test_lines_go_where_the_console_writes(capsys, stderr):
    done = Progress("encode", 40, 40, "rows", resumed=40)
    show_progress(iter([done, done]), Console(stderr=stderr, force_terminal=False))
    printed = capsys.readouterr()
    assert (printed.err if stderr else printed.out) == "encode: 40/40 rows\n"


def test_a_terminal_shows_a_bar_for_each_label():
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    show_progress(iter([encode(0), encode(40), Progress("train", 1, 2, "steps")]), console)
    text = file.getvalue()
    assert "encode" in text and "40/40 rows" in text and "1/2 steps" in text


STEP = {"loss": 0.12345, "gradient_norm": 0.54321, "learning_rate": 0.0001, "images_per_second": 1234.5,
        "flop_utilisation": 0.41234, "memory_gib": 71.234}  # fmt: skip


def bars(width: int, *reports: Progress) -> list[str]:
    """The bars that a terminal of so many columns shows in the end, without styles."""
    file = StringIO()
    console = Console(file=file, force_terminal=True, width=width, _environ={})
    show_progress(iter(reports), console)
    frame = without_styles(file.getvalue().split("\x1b[2K")[-1]).replace("\r", "")
    return [line.rstrip() for line in frame.splitlines() if line]


@pytest.mark.parametrize(
    ("width", "figures"),
    [
        (70, "12,345/40,000 steps"),
        (80, "12,345/40,000 steps, loss 0.1235"),
        (
            200,
            "12,345/40,000 steps, loss 0.1235, gradient norm 0.5432, learning rate 0.0001, images per second 1234, "
            "flop utilisation 0.4123, memory gib 71.23",
        ),
    ],
)
def test_figures_drop_out_before_bar_and_time_left_do(width, figures):
    (line,) = bars(width, Progress("distill", 12_345, 40_000, "steps", STEP, resumed=12_345))
    assert len(line) <= width
    assert line.strip().startswith("distill ━━━━") and line.count("━") + line.count("╸") + line.count("╺") == 20
    assert line.endswith(f" {figures} -:--:--")


def test_a_longer_label_leaves_less_room_to_all_bars():
    label = "features t2i-benchmark"
    first, second = bars(80, Progress("distill", 1, 40_000, "steps", STEP, 1), Progress(label, 1, 2, "images", STEP, 1))
    assert "loss" not in first and max(len(first), len(second)) <= 80 and second.endswith(":--")
