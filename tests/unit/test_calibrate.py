import csv
import hashlib
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from liner.v1 import track_pb2
from liner_server.__main__ import app
from liner_server.core.calibration import Calibration
from liner_server.core.costs import Prices
from liner_server.evaluation import calibrate
from liner_server.evaluation.calibrate import ResultsError
from liner_server.models.prompt import PROMPT_VERSION
from liner_server.models.provider import ChatProvider, ModelSettings
from liner_server.models.transport import Endpoint
from typer.testing import CliRunner

MODEL = "qwen2:some/model:7b"
SOURCE = f"{MODEL}:p1"

Row = dict[str, Any]


def overconfident(count: int, *, field: str = "genre", seed: int = 1) -> Iterator[Row]:
    """Yield results of a model whose log-odds are three times what they should be."""
    rng = random.Random(seed)
    for number in range(count):
        odds = rng.gauss(0.8, 1.2)
        yield {
            "track_id": f"{field}-{number}",
            "field": field,
            "model": MODEL,
            "prompt_version": "p1",
            "score": f"{1 / (1 + math.exp(-3 * odds)):.4f}",
            "right": int(rng.random() < 1 / (1 + math.exp(-odds))),
        }


def write(path: Path, rows: Iterator[Row] | list[Row]) -> Path:
    """Write rows as the CSV that an operator brings."""
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


def curve(rows: Iterator[Row] | list[Row], folder: Path) -> dict[str, Any]:
    """Return the only curve fitted to rows."""
    calibrate.run(write(folder / "rows.csv", rows), folder / "table.json", least=20)
    [found] = json.loads((folder / "table.json").read_text())["curves"]
    return dict(found)


def test_a_fitted_score_means_what_it_says(tmp_path: Path) -> None:
    """On answers it never saw, the curve must beat the score that the model gave itself."""
    rows = calibrate.read(write(tmp_path / "rows.csv", overconfident(2000)).read_bytes())

    found = calibrate.fit(list(rows))

    assert found.raw.ece > 0.1
    assert found.calibrated.ece < 0.05
    assert found.calibrated.brier < found.raw.brier
    assert found.curve["score"] == pytest.approx(1 / 3, abs=0.1)
    assert found.judged + found.curve["n"] == 2000


async def test_the_server_finds_the_curves_it_is_given(tmp_path: Path) -> None:
    """The name a curve is written under must be the one a provider looks it up by."""
    provider = ChatProvider(
        Endpoint(provider="qwen2", base_url="http://127.0.0.1:9/v1"),
        ModelSettings(name="qwen2", text_model="some/model:7b"),
        calibration=Calibration.load(),
        prices=Prices(),
        spent=lambda _: None,
    )
    rows = [row | {"prompt_version": PROMPT_VERSION} for row in overconfident(400)]

    try:
        [source] = {provider.calibration_source(heard=False), curve(rows, tmp_path)["source"]}
    finally:
        await provider.aclose()

    loaded = Calibration.load(tmp_path / "table.json")
    found = loaded.calibrated("genre", source, 0.9)
    assert found.basis == track_pb2.CONFIDENCE_BASIS_CALIBRATED


def test_each_field_model_and_prompt_has_a_curve_of_its_own(tmp_path: Path) -> None:
    """Another prompt is another judge: what was counted for one says nothing of the other."""
    rows = [
        *overconfident(300),
        *overconfident(300, field="language", seed=2),
        *({**row, "prompt_version": "p2"} for row in overconfident(300, seed=3)),
        *({**row, "model": "openai:x"} for row in overconfident(300, seed=4)),
    ]

    calibrate.run(write(tmp_path / "rows.csv", rows), tmp_path / "table.json", least=200)

    curves = json.loads((tmp_path / "table.json").read_text())["curves"]
    assert [(one["field"], one["source"]) for one in curves] == [
        ("genre", "openai:x:p1"),
        ("genre", SOURCE),
        ("genre", f"{MODEL}:p2"),
        ("language", SOURCE),
    ]


def test_too_few_results_are_left_out_and_told(tmp_path: Path) -> None:
    """A curve through a handful of answers would pass for one that was counted."""
    rows = [*overconfident(200), *overconfident(199, field="language")]
    out = tmp_path / "table.json"

    report = calibrate.run(write(tmp_path / "rows.csv", rows), out, least=200)

    assert [one["field"] for one in json.loads(out.read_text())["curves"]] == ["genre"]
    assert f"left out: language {SOURCE}, 199 results of 200 needed" in report


def test_nothing_is_written_without_a_curve(tmp_path: Path) -> None:
    """An empty table would replace a good one."""
    out = tmp_path / "table.json"
    out.write_text("the last one")

    with pytest.raises(ResultsError, match="no curve"):
        calibrate.run(write(tmp_path / "rows.csv", overconfident(50)), out, least=200)

    assert out.read_text() == "the last one"


def test_answers_about_one_track_are_in_the_same_half(tmp_path: Path) -> None:
    """A track that was learnt from would flatter the figures."""
    rows = [row | {"track_id": f"t{n % 40}"} for n, row in enumerate(overconfident(400))]

    found = list(calibrate.read(write(tmp_path / "rows.csv", rows).read_bytes()))

    halves = [{row.held_out for row in found[n::40]} for n in range(40)]
    assert all(len(half) == 1 for half in halves)
    assert {half.pop() for half in halves} == {True, False}


def test_without_track_ids_equal_answers_are_in_both_halves(tmp_path: Path) -> None:
    """Models like round scores; were equal rows kept together, the halves would differ."""
    rows = [{**row, "score": 0.9, "right": 1} for row in overconfident(1000)]
    for row in rows:
        del row["track_id"]

    found = list(calibrate.read(write(tmp_path / "rows.csv", rows).read_bytes()))

    assert sum(row.held_out for row in found) == pytest.approx(500, abs=60)


def test_few_tracks_in_one_half_are_no_measurement(tmp_path: Path) -> None:
    """Figures from one track would be that track's."""
    rows = [row | {"track_id": "the same"} for row in overconfident(300)]

    with pytest.raises(ResultsError, match="too few tracks"):
        calibrate.run(write(tmp_path / "rows.csv", rows), tmp_path / "table.json", least=200)


def test_a_score_that_says_nothing_becomes_the_average(tmp_path: Path) -> None:
    """A curve that falls would be fitted to chance; a flat one is still true."""
    rows = [row | {"right": 1 - row["right"]} for row in overconfident(1000)]

    found = curve(rows, tmp_path)

    assert found["score"] == 0
    loaded = Calibration.load(tmp_path / "table.json")
    share = found["right"] / found["n"]
    assert loaded.calibrated("genre", SOURCE, 0.99).probability == pytest.approx(share, abs=0.01)


def candid(count: int, *, score: float | None = None, telling: bool = True) -> Iterator[Row]:
    """Yield results of a model whose words, if telling, know more than its score does."""
    rng = random.Random(7)
    for row in overconfident(count, seed=5):
        stated = rng.random()
        own = float(row["score"])
        odds = math.log(max(own, 1e-4) / max(1 - own, 1e-4)) / 3 + 5 * (stated - 0.5)
        if telling:
            row["right"] = int(rng.random() < 1 / (1 + math.exp(-odds)))
        yield row | {"stated": f"{stated:.3f}"} | ({} if score is None else {"score": score})


def test_stated_confidence_has_a_part_where_it_tells_more(tmp_path: Path) -> None:
    """Where an endpoint gives no log-probabilities, the words are all there is to go by."""
    rows = list(candid(2000, score=0.5))
    silent = [{k: v for k, v in row.items() if k != "stated"} for row in rows]
    said = calibrate.read(write(tmp_path / "a.csv", rows).read_bytes())
    unsaid = calibrate.read(write(tmp_path / "b.csv", silent).read_bytes())

    found, without = calibrate.fit(list(said)), calibrate.fit(list(unsaid))

    assert found.curve["weights"]["stated"] > 0
    assert found.calibrated.brier < without.calibrated.brier - 0.03
    assert found.calibrated.ece < 0.05
    assert without.curve["weights"] == without.curve["means"] == {}
    loaded = Calibration.parse({"curves": [found.curve]})
    low, high = (
        loaded.calibrated("genre", SOURCE, 0.5, {"stated": stated, "logprobs": 0.0}).probability
        for stated in (0.3, 1.0)
    )
    assert low < high <= found.curve["highest"]


@pytest.mark.parametrize("change", [lambda stated: stated, lambda stated: 1 - stated])
def test_stated_confidence_without_worth_has_no_part(
    tmp_path: Path, change: Callable[[float], float]
) -> None:
    """What an injected title makes a model say must not count because chance once let it."""
    rows = [
        row | {"stated": f"{change(float(row['stated'])):.3f}"}
        for row in candid(2000, telling=change(0) == 1)
    ]

    found = curve(rows, tmp_path)

    assert found["weights"] == {}
    assert found["score"] == pytest.approx(1 / 3, abs=0.1)


def test_rows_without_stated_confidence_count_by_their_score(tmp_path: Path) -> None:
    """Reviews of an earlier release do not hold it: their rows are still good."""
    rows = [row | ({"stated": ""} if n % 2 else {}) for n, row in enumerate(candid(2000))]

    found = curve(rows, tmp_path)

    assert found["weights"]["stated"] > 0
    assert found["n"] > 900


@pytest.mark.parametrize(("right", "low", "high"), [(1, 0.9, 0.999), (0, 0.001, 0.1)])
def test_answers_that_were_all_alike_are_not_certain(
    tmp_path: Path, right: int, low: float, high: float
) -> None:
    """A hundred of a hundred is no proof that the next one is right, or wrong."""
    curve([row | {"right": right} for row in overconfident(400)], tmp_path)

    found = Calibration.load(tmp_path / "table.json").calibrated("genre", SOURCE, 0.9)

    assert low < found.probability < high


def test_the_table_says_where_it_comes_from(tmp_path: Path) -> None:
    """Whoever doubts a number can take the same file and fit it again."""
    results = write(tmp_path / "rows.csv", overconfident(400))

    calibrate.run(results, tmp_path / "table.json", least=200)

    said = json.loads((tmp_path / "table.json").read_text())["provenance"]
    assert said["data"] == "rows.csv"
    assert said["sha256"] == hashlib.sha256(results.read_bytes()).hexdigest()
    assert said["command"] == (
        "liner-server calibrate --results rows.csv --out table.json --least 200"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "missing columns: field, model"),
        (b"field,model,score,right\n", "missing columns: prompt_version"),
        (b"\xff", "not UTF-8"),
        (b"field,model,prompt_version,score,right\ngenre,m,p,1.5,1\n", "line 2: score is 1.5"),
        (b"field,model,prompt_version,score,right\ngenre,m,p,nan,1\n", "line 2: score is nan"),
        (b"field,model,prompt_version,score,right\ngenre,m,p,high,1\n", "line 2: .*'high'"),
        (b"field,model,prompt_version,score,right\ngenre,m,p,0.5,yes\n", "line 2: right is 'yes'"),
        (b"field,model,prompt_version,score,right,stated\ngenre,m,p,0.5,1,2\n", "stated is 2"),
        (b"field,model,prompt_version,score,right,stated\ngenre,m,p,0.5,1,x\n", "line 2: .*'x'"),
        (b"field,model,prompt_version,score,right\ngenre,m,,0.5,1\n", "line 2: prompt_version"),
        (b"field,model,prompt_version,score,right\ngenre,m,p\n", "line 2: score, right is empty"),
    ],
)
def test_a_wrong_row_is_named(text: bytes, problem: str) -> None:
    """A row that is skipped silently changes what was counted."""
    with pytest.raises(ResultsError, match=problem):
        list(calibrate.read(text))


def test_the_command_prints_the_held_out_figures(tmp_path: Path) -> None:
    """An operator decides by them whether the table is worth its place."""
    results = write(tmp_path / "rows.csv", overconfident(1000))

    result = CliRunner().invoke(
        app, ["calibrate", "--results", str(results), "--out", str(tmp_path / "table.json")]
    )

    assert result.exit_code == 0
    head, line, end = result.output.splitlines()
    assert head.split("  ")[-1] == "coverage at 95 %"
    assert line.startswith(f"genre {SOURCE}")
    assert end == f"curves written to {tmp_path / 'table.json'}: 1"


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    """No traceback for a file that is not there."""
    result = CliRunner().invoke(
        app, ["calibrate", "--results", str(tmp_path / "none.csv"), "--out", "table.json"]
    )

    assert result.exit_code == 2
    assert "liner-server calibrate: " in result.output
    assert "none.csv" in result.output
