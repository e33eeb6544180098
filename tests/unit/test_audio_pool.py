"""The pool: files are heard elsewhere, can be stopped, and cannot harm each other."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from liner_server.audio import errors
from liner_server.audio.limits import Limits
from liner_server.audio.pool import ListeningPool, PoolPolicy
from support.audio_files import encode, piece
from support.eventually import eventually
from support.hostile import bomb

in_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[ListeningPool]:
    """Two processes for the whole module: tests break them, and the pool must replace them."""
    async with ListeningPool(policy=PoolPolicy(processes=2)) as pool:
        yield pool


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is heard in no time."""
    path = tmp_path_factory.mktemp("audio") / "track.flac"
    path.write_bytes(encode(piece(2, seed=1), "flac"))
    return path


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes many seconds: half an hour of silence is a small FLAC."""
    path = tmp_path_factory.mktemp("audio") / "endless.flac"
    path.write_bytes(bomb(0.5))
    return path


def soon(seconds: float = 30) -> float:
    """A deadline in the running loop's time."""
    return asyncio.get_running_loop().time() + seconds


def workers() -> list[psutil.Process]:
    """The listening processes of this test run."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE and "liner_server.audio.worker" in child.cmdline()
    ]


async def hard_at_work() -> psutil.Process:
    """Wait until a process has spent time on a file, and return it."""
    before = {worker: worker.cpu_times().user for worker in workers()}

    def busy() -> list[psutil.Process]:
        return [worker for worker, used in before.items() if worker.cpu_times().user > used + 0.2]

    await eventually(lambda: bool(busy()))
    return busy()[0]


@in_one_loop
async def test_a_file_is_heard_in_another_process(pool: ListeningPool, track: Path) -> None:
    """What comes back is all that listening in this process would give."""
    heard = await pool.listen(track, name="track.flac", deadline=soon())

    assert heard.format.duration_seconds == pytest.approx(2)
    assert heard.format.codec == "flac"
    assert heard.fingerprint == b"" or heard.fingerprint[0] == 1


@in_one_loop
async def test_errors_come_back_with_type_and_text(pool: ListeningPool, tmp_path: Path) -> None:
    """The caller cannot tell that the error was raised elsewhere."""
    path = tmp_path / "list.mp3"
    path.write_bytes(b"ffconcat version 1.0\nfile '/etc/passwd'\n")

    with pytest.raises(errors.UnsupportedAudioError, match="ffconcat"):
        await pool.listen(path, name="list.mp3", deadline=soon())


@in_one_loop
async def test_a_file_that_is_not_there_is_told(pool: ListeningPool, tmp_path: Path) -> None:
    """An object deleted between its request and its turn must not look like a broken file."""
    with pytest.raises(errors.ListeningCrashedError, match="No such file"):
        await pool.listen(tmp_path / "gone", name="gone", deadline=soon())


@in_one_loop
async def test_at_the_deadline_the_process_is_killed(pool: ListeningPool, endless: Path) -> None:
    """The caller has its answer at once, and the CPU is free for the next file."""
    await pool.warm_up()
    before = {worker.pid for worker in workers()}
    started = time.monotonic()

    with pytest.raises(errors.ListeningTimeoutError):
        await pool.listen(endless, name="endless.flac", deadline=soon(1.5))

    assert time.monotonic() - started < 5
    assert len(before - {worker.pid for worker in workers()}) == 1


@in_one_loop
async def test_a_deadline_in_the_past_is_a_timeout(pool: ListeningPool, track: Path) -> None:
    """A request may have spent all its time before its audio is reached."""
    with pytest.raises(errors.ListeningTimeoutError):
        await pool.listen(track, name="track.flac", deadline=soon(-1))


@in_one_loop
async def test_cancelling_the_caller_frees_the_cpu(pool: ListeningPool, endless: Path) -> None:
    """A client that hung up must not keep a process busy for minutes."""
    await pool.warm_up()
    task = asyncio.create_task(pool.listen(endless, name="endless.flac", deadline=soon()))
    worker = await hard_at_work()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert worker not in workers()


@in_one_loop
async def test_a_killed_process_costs_only_its_own_file(
    pool: ListeningPool, track: Path, endless: Path
) -> None:
    """The out-of-memory killer strikes one file; the next ones are heard."""
    await pool.warm_up()
    doomed = asyncio.create_task(pool.listen(endless, name="endless.flac", deadline=soon()))
    (await hard_at_work()).kill()

    with pytest.raises(errors.ListeningCrashedError, match="signal 9"):
        await doomed
    heard = await pool.listen(track, name="track.flac", deadline=soon())

    assert heard.format.container == "flac"


@in_one_loop
async def test_a_process_that_died_idle_costs_no_file(pool: ListeningPool, track: Path) -> None:
    """It is noticed and replaced before a file is given to it."""
    await pool.warm_up()
    killed = workers()
    for worker in killed:
        worker.kill()
    await eventually(lambda: all(worker.status() == psutil.STATUS_ZOMBIE for worker in killed))

    heard = await pool.listen(track, name="track.flac", deadline=soon())

    assert heard.format.container == "flac"


@in_one_loop
async def test_a_process_that_hangs_is_killed_at_the_deadline(
    pool: ListeningPool, track: Path
) -> None:
    """A stopped process answers nothing, not even a polite signal."""
    await pool.warm_up()
    for worker in workers():
        worker.suspend()

    with pytest.raises(errors.ListeningTimeoutError):
        await pool.listen(track, name="track.flac", deadline=soon(0.5))
    for worker in workers():
        worker.resume()
    heard = await pool.listen(track, name="track.flac", deadline=soon())

    assert heard.format.container == "flac"


@in_one_loop
async def test_files_are_heard_side_by_side(pool: ListeningPool, track: Path) -> None:
    """More files than processes: each is heard once, in turn."""
    heard = await asyncio.gather(
        *(pool.listen(track, name="track.flac", deadline=soon()) for _ in range(12))
    )

    assert len({listening.format.sha256 for listening in heard}) == 1
    assert pool.waiting == 0


@in_one_loop
async def test_the_event_loop_goes_on_while_a_file_is_heard(
    pool: ListeningPool, track: Path
) -> None:
    """Nothing of listening may hold up the other calls of the server.

    Counted in CPU time of the loop's thread, so that a busy machine does not look like a fault.
    """
    await pool.warm_up()
    worst = 0.0
    task = asyncio.create_task(pool.listen(track, name="track.flac", deadline=soon()))
    while not task.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        worst = max(worst, time.thread_time() - before)

    await task
    assert worst < 0.05


@in_one_loop
async def test_a_full_queue_refuses_at_once(endless: Path, track: Path) -> None:
    """Waiting without bound would only turn overload into timeouts."""
    policy = PoolPolicy(processes=1, max_waiting=1)
    async with ListeningPool(policy=policy) as pool:
        busy = asyncio.create_task(pool.listen(endless, name="", deadline=soon()))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(pool.listen(track, name="", deadline=soon()))
        await asyncio.sleep(0)

        with pytest.raises(errors.ListeningBusyError):
            await pool.listen(track, name="", deadline=soon())

        busy.cancel()
        heard = await waiting
        assert heard.format.container == "flac"


@in_one_loop
async def test_a_file_that_uses_up_its_cpu_is_stopped(endless: Path) -> None:
    """A backstop to the deadline: a batch's deadline may be an hour away."""
    policy = PoolPolicy(processes=1, cpu_allowance=timedelta(seconds=1))
    async with ListeningPool(policy=policy) as pool:
        with pytest.raises(errors.ListeningTimeoutError, match="CPU"):
            await pool.listen(endless, name="", deadline=soon())


@in_one_loop
async def test_limits_reach_the_processes(track: Path) -> None:
    """They are the server's settings, not the process's defaults."""
    limits = Limits(max_duration=timedelta(seconds=1))
    async with ListeningPool(policy=PoolPolicy(processes=1), limits=limits) as pool:
        with pytest.raises(errors.TooLongError, match="longer than 1 s"):
            await pool.listen(track, name="", deadline=soon())


@in_one_loop
async def test_a_process_is_replaced_after_its_share_of_files(track: Path) -> None:
    """A slow leak in a decoder must never matter."""
    async with ListeningPool(policy=PoolPolicy(processes=1, max_jobs=2)) as pool:
        seen = []
        for _ in range(3):
            await pool.warm_up()
            seen.append(psutil.Process().children()[-1].pid)
            await pool.listen(track, name="", deadline=soon())

    assert seen[0] == seen[1] != seen[2]


@in_one_loop
async def test_closing_ends_everything_within_a_second(endless: Path) -> None:
    """A server that stops has little time; callers get a reason and no process stays."""
    before = {worker.pid for worker in workers()}
    pool = ListeningPool(policy=PoolPolicy(processes=2))
    await pool.warm_up()
    tasks = [asyncio.create_task(pool.listen(endless, name="", deadline=soon())) for _ in range(3)]
    await asyncio.sleep(0)
    started = time.monotonic()

    await pool.close()

    assert time.monotonic() - started < 2
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {errors.ListeningBusyError}
    assert {worker.pid for worker in workers()} <= before


@in_one_loop
async def test_closing_while_processes_start_leaves_none(track: Path) -> None:
    """A server may be stopped in its first second."""
    before = {worker.pid for worker in workers()}
    pool = ListeningPool(policy=PoolPolicy(processes=2))
    task = asyncio.create_task(pool.listen(track, name="", deadline=soon()))
    await asyncio.sleep(0)

    await pool.close()

    with pytest.raises((errors.ListeningBusyError, asyncio.CancelledError)):
        await task
    assert {worker.pid for worker in workers()} <= before


@in_one_loop
async def test_processes_know_nothing_of_the_server(
    pool: ListeningPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile file that takes one over finds no key, no file and no rights to more."""
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    await pool.warm_up()

    for worker in workers():
        environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
        assert b"canary" not in environment
        assert {entry.split(b"=")[0] for entry in environment.split(b"\0") if entry} <= {
            *(b"PATH", b"PYTHONPATH", b"PYTHONDONTWRITEBYTECODE", b"LC_CTYPE"),
            *(b"OPENBLAS_NUM_THREADS", b"OMP_NUM_THREADS", b"MKL_NUM_THREADS"),
        }
        status = Path(f"/proc/{worker.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert worker.nice() > psutil.Process().nice()
        assert worker.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
        assert worker.rlimit(psutil.RLIMIT_CORE) == (0, 0)
        assert worker.rlimit(psutil.RLIMIT_AS)[1] < 4 << 30


@in_one_loop
async def test_processes_die_with_the_server(track: Path) -> None:
    """Even kill -9 of the server leaves nothing behind that hears on."""
    script = (
        "import asyncio, os, sys\n"
        "from liner_server.audio.pool import ListeningPool, PoolPolicy\n"
        "async def main():\n"
        "    pool = ListeningPool(policy=PoolPolicy(processes=1))\n"
        "    await pool.warm_up()\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert server.stdout is not None
    await asyncio.wait_for(server.stdout.readline(), 30)
    [worker] = psutil.Process(server.pid).children()

    server.send_signal(signal.SIGKILL)
    await server.wait()

    assert psutil.wait_procs([worker], timeout=5)[1] == []


def test_importing_the_pool_imports_no_decoder_and_no_numpy() -> None:
    """The server must start fast and stay small; the processes bear the weight."""
    script = (
        "import sys\n"
        "import liner_server.audio.pool, liner_server.audio.fingerprint\n"
        "sys.exit(' '.join({'numpy', 'scipy', 'av', 'soxr'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr.decode().strip()) == (1, "") or done.returncode == 0
