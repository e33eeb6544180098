"""Trying Liner out, measuring it, and fitting it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from liner_server.commands.stop import stop

app = typer.Typer()


@app.command()
def synth(
    out: Annotated[
        Path | None, typer.Option(help="Folder for the demo's eight tracks; made if missing.")
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(help="CSV to write: made-up metadata without audio, for `liner validate`."),
    ] = None,
    tracks: Annotated[int, typer.Option(help="Rows of the catalogue.", min=1)] = 250,
    faults: Annotated[
        bool, typer.Option("--faults", help="Put a fault into each track of the catalogue.")
    ] = False,
) -> None:
    """Make things to try Liner on: short tracks of known tempo and key, or a catalogue.

    --out writes the demo's eight short tracks, made by Liner's own generator, with truth.json.
    --catalogue writes a list that `liner validate` reads; with --faults each `item_id` says what
    is wrong with the track and which rule finds it.
    """
    if out is None and catalogue is None:
        stop("liner-server synth: give --out FOLDER or --catalogue FILE.csv")
    if out is not None:
        from liner_server.evaluation.demo_tracks import make_demo_tracks

        out.mkdir(parents=True, exist_ok=True)
        for track in make_demo_tracks(out):
            typer.echo(track["path"])
    if catalogue is not None:
        from liner_server.evaluation.catalogue_file import write_catalogue

        try:
            rows = write_catalogue(catalogue, tracks=tracks, faults=faults)
        except OSError as error:
            stop(f"liner-server synth: {catalogue}: {error.strerror}")
        typer.echo(f"{rows} tracks in {catalogue}")


@app.command("eval")
def evaluate_labels(
    labels: Annotated[Path, typer.Option(help="CSV with the columns path,bpm,key,...")],
    out: Annotated[Path, typer.Option(help="CSV to write.")],
    workers: Annotated[int, typer.Option(help="Files heard at once.", min=1)] = 2,
) -> None:
    """Answer for every labelled file what Liner would answer.

    `path` is taken from the folder of LABELS; no label is looked at. Writes path, bpm,
    bpm_confidence, bpm_alternatives (joined with ";"), key, key_confidence, duration, genre,
    genre_confidence; a field that Liner abstains from is empty.
    """
    from liner_server.evaluation.labelled import evaluate

    try:
        rows = evaluate(labels, out, workers=workers)
    except OSError as error:
        stop(f"liner-server eval: {error}")
    typer.echo(f"{len(rows)} files, answers in {out}")


@app.command()
def calibrate(
    results: Annotated[
        Path, typer.Option(help="CSV with the columns field,model,prompt_version,score,right.")
    ],
    out: Annotated[Path, typer.Option(help="Table to write, for LINER_CALIBRATION_FILE.")],
    least: Annotated[int, typer.Option(help="Results that a curve needs.", min=20)] = 200,
) -> None:
    """Fit which probability a model's score means, from answers that somebody judged.

    One row of RESULTS is one answer: `field` as in Track, `model` as PROVIDER:MODEL (such as
    qwen2:Qwen/Qwen2-Audio-7B-Instruct), `prompt_version`, `score` as the model gave it, 0 to 1,
    and `right`, 1 or 0. A column `track_id`, where there is one, keeps all answers about a track
    together. A column `stated`, the confidence that the model put in words, has a part in a curve
    where it told more than the score. Half of the results are fitted on; the figures printed are of
    the other half.
    Exit codes: 0 written, 2 not written.
    """
    from liner_server.evaluation.calibrate import ResultsError, run

    try:
        report = run(results, out, least=least)
    except (OSError, ResultsError) as error:
        stop(f"liner-server calibrate: {error}")
    typer.echo(report)


@app.command("play-model")
def play_model(
    model: Annotated[list[str], typer.Option(help="Name it lists; may be repeated.")],
    port: Annotated[int, typer.Option(help="On 127.0.0.1; 0: a free one.", min=0, max=65535)] = 0,
    delay: Annotated[float, typer.Option(help="Seconds before each answer.", min=0)] = 0.0,
    unsure: Annotated[list[str] | None, typer.Option(help="Field it never can tell.")] = None,
) -> None:
    """Play a language model for a demonstration, until SIGTERM. It is none: never use its answers.

    Speaks as an OpenAI-compatible endpoint and answers Liner's prompts from the words in them,
    always the same, so that routing, fallback and cost can be tried where there is no model.
    Prints `play-model ready URL`; set QWEN2_ENDPOINT or LINER_OPENAI_ENDPOINT to the URL.
    """
    from liner_server.evaluation.played_model import Part, serve

    part = Part(models=model, delay=delay, unsure=unsure or ())
    try:
        asyncio.run(serve(part, port=port))
    except OSError as error:
        stop(f"liner-server play-model: {error}", code=1)
