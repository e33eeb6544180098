"""`liner-server`: serve, and what an operator needs around it."""

import typer

from liner_server.commands import analytics, checking, cloud, evaluation, serving, storage

app = typer.Typer(
    name="liner-server",
    help="Liner's server. Settings come from LINER_* variables; see .env.example.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (serving, checking, cloud, storage, analytics, evaluation):
    app.add_typer(commands.app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
