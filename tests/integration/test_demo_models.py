"""`make demo-models`: what it promises to show really happens, on this machine, in processes."""

from pathlib import Path

import pytest
from liner_client.demo_models import run_models_demo


async def test_the_demo_of_models_ends_with_everything_as_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its exit code is what a visitor trusts: 0 only when the fallback really took over."""
    code = await run_models_demo(keep=tmp_path)

    shown = capsys.readouterr().out
    assert code == 0, shown
    assert shown.index("qwen2; language openai") < shown.index("qwen2 is taken down")
    assert shown.count("a stand-in, no model") == 2
    assert "48 tracks:" in shown
    assert "all 12 as expected" in shown
